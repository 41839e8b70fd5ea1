"""Hostile recordings: each is read, or listed with its reason, and nothing else comes of it."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import has_ended, wait_until, wavegen
from wavegen.audio import decoder
from wavegen.audio.quantize import Quantizer
from wavegen.audio.read import decode, probe
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.errors import AudioError

RATE = 16000
SETTINGS = ClipSettings(Preparation(RATE), Quantizer("mu_law", 256))

PROGRAMS = Path(__file__).parents[1] / "programs"
WHAT_IS_SAID = {
    "crash": "it crashes the decoder, SIGSEGV",
    "abort": "it crashes the decoder, SIGABRT",
    "kill": "the decoder was killed, perhaps for lack of memory",
    "hang": "the decoder hung on it and was stopped after 1 s",
    "sleep": "the decoder hung on it and was stopped after 1 s",
    "swell": "MemoryError",
}


def noise(n_samples, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, channels)).astype(np.float32)


@pytest.fixture
def bad_decoder(monkeypatch):
    """Decoders that crash, hang and take too much memory, and a limit of a second for each answer."""
    decoder.shut_down_decoders()
    monkeypatch.setenv("PYTHONPATH", f"{PROGRAMS / 'bad_soundfile'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(decoder, "ANSWER_SECONDS", 1.0)
    yield
    decoder.shut_down_decoders()


def some_recordings(folder, names):
    folder.mkdir()
    for i, name in enumerate(names):
        soundfile.write(folder / name, noise(3000, seed=i), RATE)
    return [folder / name for name in names]


def test_a_decoder_that_crashes_hangs_or_swells_costs_that_file_alone(bad_decoder, tmp_path, same_threads):
    bad = [f"{what} {when}" for what in WHAT_IS_SAID for when in ("at once", "later")]
    paths = some_recordings(tmp_path / "audio", [f"{name}.wav" for name in ("a", *bad, "z")])
    first, *others, last = ClipCache(tmp_path / "cache").prepare(paths, SETTINGS)
    assert first.n_samples == last.n_samples == 3000
    for name, said in zip(bad, others, strict=True):
        assert WHAT_IS_SAID[name.split()[0]] in said
        assert said.endswith(("copy it again from its source", "convert it to FLAC"))
    for name, read in [("crash at once", probe), ("hang later", decode)]:
        with pytest.raises(AudioError, match=WHAT_IS_SAID[name.split()[0]]):
            read(tmp_path / "audio" / f"{name}.wav")
    assert probe(paths[0]).frames == 3000


def test_what_the_decoder_was_killed_over_is_tried_again(bad_decoder, tmp_path, monkeypatch):
    """The system may have been short of memory; but what crashes the decoder does so every time."""
    paths = some_recordings(tmp_path / "audio", ["kill at once.wav", "kill later.wav", "crash later.wav"])
    cache = ClipCache(tmp_path / "cache")
    assert all("the decoder" in reason for reason in cache.prepare(paths, SETTINGS))
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setattr(decoder, "ANSWER_SECONDS", 60.0)
    decoder.shut_down_decoders()
    *good, bad = cache.prepare(paths, SETTINGS)
    assert [clip.n_samples for clip in good] == [3000, 3000]
    assert "SIGSEGV" in bad


def test_training_continues_without_files_that_crash_the_decoder(bad_decoder, home, tmp_path):
    some_recordings(tmp_path / "audio", ["a.wav", "crash later.wav", "b.flac"])
    said = wavegen("train", tmp_path / "audio", "--config", home / "tiny.yaml", "--run", tmp_path / "run").stderr
    assert "crash later.wav" in said
    assert "it crashes the decoder, SIGSEGV" in " ".join(said.split())
    assert "done: " in said


def test_decoders_end_with_the_process_that_asked_even_if_it_was_killed(tmp_path):
    (path,) = some_recordings(tmp_path / "audio", ["a.wav"])
    command = [sys.executable, PROGRAMS / "decode_and_wait.py", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        decoder = int(process.stdout.readline())
        os.kill(decoder, 0)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: has_ended(decoder))


def wav(data, *, claimed=None, rate_hz=RATE, channels=1, bits=16, kind=1):
    size = len(data) if claimed is None else claimed
    frame = channels * bits // 8
    sizes = (b"RIFF", min(size + 36, 2**32 - 1), b"WAVE", b"fmt ", 16, kind, channels, rate_hz, rate_hz * frame % 2**32)
    return struct.pack("<4sI4s4sIHHIIHH4sI", *sizes, frame % 2**16, bits, b"data", size) + data


def floats(*values):
    return np.array(values * 200, np.float32).tobytes()


ODD_FILES = {
    "nothing.wav": (b"", "the file is empty (0 bytes)"),
    "no-frames.wav": (wav(b""), "no audio in it (0 samples)"),
    "header-alone.wav": (wav(b"", claimed=2**32 - 1), "no audio in it (0 samples)"),
    "hours-claimed.wav": (wav(bytes(2000), claimed=2**32 - 1), None),
    "nan.wav": (
        wav(floats(0, np.nan), bits=32, kind=3),
        "expected samples within [-1, 1], found [nan] at 0.000 s",
    ),
    "infinite.wav": (
        wav(floats(0, np.inf), bits=32, kind=3),
        "expected samples within [-1, 1], found [inf] at 0.000 s",
    ),
    "huge.wav": (wav(floats(3e38, -3e38), bits=32, kind=3), "expected samples within [-1, 1], found [3.0"),
    "integers.wav": (wav(floats(32767, -32768), bits=32, kind=3), None),
    "no-integers.wav": (
        wav(floats(32767, -32768.5), bits=32, kind=3),
        "expected samples within [-1, 1], found up to 3.28e",
    ),
    "tiny.wav": (wav(floats(1e-45, -1e-45), bits=32, kind=3), None),
    "silent.wav": (wav(bytes(4000)), None),
    "full-scale.wav": (wav(np.tile(np.array([-32768, 32767], np.int16), 1000).tobytes()), None),
    "one-sample.wav": (wav(bytes(2)), None),
    "100-hz.wav": (wav(bytes(200), rate_hz=100), None),
    "1-hz.wav": (wav(bytes(200), rate_hz=1), "expected a sample rate of 100 Hz or more, found 1 Hz in its header"),
    "1-hz-for-a-day.wav": (wav(bytes(2 * 80_000), rate_hz=1), "expected a sample rate of 100 Hz or more, found 1 Hz"),
    "1-hz-for-two-days.wav": (wav(bytes(2 * 180_000), rate_hz=1), "longer than 24.0 hours; cut it"),
    "0-hz.wav": (wav(bytes(2000), rate_hz=0), "libsndfile cannot read it"),
    "768-khz.wav": (wav(bytes(20_000), rate_hz=768_000), None),
    "2-ghz.wav": (wav(bytes(2000), rate_hz=2**31 - 1), None),
    "8-bit.wav": (wav(bytes(range(256)) * 8, bits=8), None),
    "24-bit.wav": (wav(bytes(range(240)) * 9, bits=24), None),
    "32-bit.wav": (wav(bytes(range(240)) * 8, bits=32), None),
    "64-bit.wav": (wav(np.linspace(-1, 1, 500).tobytes(), bits=64, kind=3), None),
    "32-channels.wav": (wav(bytes(64 * 500), channels=32), None),
    "1024-channels.wav": (wav(bytes(2048 * 50), channels=1024), None),
    "no-channels.wav": (wav(bytes(2000), channels=0), "libsndfile cannot read it"),
    "65535-channels.wav": (wav(bytes(2000), channels=65535), "libsndfile cannot read it"),
    "text.flac": (b"This is a shopping list.\n" * 100, "no audio format is recognized in it"),
    "\n line\tbreaks .wav": (wav(bytes(2000)), None),
    "emoji \N{MUSICAL KEYBOARD}.wav": (wav(bytes(2000)), None),
    os.fsdecode(b"latin-\xe9\xff.wav"): (wav(bytes(2000)), None),
    "\x1b[31mred\x1b[0m.wav": (wav(b""), "no audio in it (0 samples)"),
    "x" * 251 + ".wav": (wav(bytes(2000)), None),
    "-rf.wav": (wav(bytes(2000)), None),
}
ODD_ENTRIES = {
    "pipe.wav": "a pipe, a socket or a device, not a file",
    "device.wav": "a pipe, a socket or a device, not a file",
    "socket.wav": "a pipe, a socket or a device, not a file",
    "loop.wav": "a broken link (Too many levels of symbolic links)",
    "gone.wav": "a broken link (No such file or directory)",
    "up/": "a link to a folder that is already in: the folder itself",
}


@pytest.fixture
def odd_folder(tmp_path, monkeypatch):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name, (content, _) in ODD_FILES.items():
        (folder / name).write_bytes(content)
    monkeypatch.chdir(folder)  # a socket's path must be short
    os.mkfifo("pipe.wav")
    Path("device.wav").symlink_to("/dev/zero")
    Path("loop.wav").symlink_to("loop.wav")
    Path("gone.wav").symlink_to("nowhere.wav")
    Path("up").symlink_to(".")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        yield folder


def test_a_folder_of_everything_odd_is_listed_file_by_file(odd_folder):
    done = wavegen("inspect", odd_folder, "--listen", "--json")
    facts = json.loads(done.stdout)
    reasons = {entry["name"]: entry["reason"] for entry in facts["unusable"]}
    by_training = {"1-hz.wav", "1-hz-for-a-day.wav"}  # they can be heard, but take gigabytes at a model's rate
    expected = {name: reason for name, (_, reason) in ODD_FILES.items() if reason and name not in by_training}
    expected |= ODD_ENTRIES
    assert set(reasons) == set(expected)
    for name, reason in expected.items():
        assert reason in reasons[name]
    assert facts["usable_files"] == len(ODD_FILES) + len(ODD_ENTRIES) - len(expected)
    said = wavegen("inspect", odd_folder).stdout
    assert "\x1b" not in said
    assert "\\x1b[31mred" in said


def test_the_same_folder_is_trained_on(odd_folder, home, tmp_path):
    said = wavegen("train", odd_folder, "--config", home / "tiny.yaml", "--run", tmp_path / "run").stderr
    assert "done: " in said
    n_bad = sum(reason is not None for _, reason in ODD_FILES.values()) + len(ODD_ENTRIES)
    assert f"skipped {n_bad} " in " ".join(said.split())


def test_what_a_low_rate_would_make_too_long_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(wav(bytes(2000), rate_hz=100))
    assert len(load_waveform(tmp_path / "a.wav", Preparation(RATE))) == 160_000
    monkeypatch.setattr("wavegen.audio.waveform.MAX_FRAMES", 159_999)
    with pytest.raises(AudioError, match=r"a\.wav: too long at 16,000 Hz; cut it into shorter files"):
        load_waveform(tmp_path / "a.wav", Preparation(RATE))


def test_reading_takes_memory_by_the_block(tmp_path):
    """Ten minutes of 8 channels: 307 MB as samples, 38 MB as one channel, of which 16 MB may wait in memory."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", RATE, 8, "PCM_16") as file:
        for _ in range(600):
            file.write(np.zeros((RATE, 8), np.int16))
    tracemalloc.start()  # counts numpy's arrays, whatever the process used before
    try:
        (clip,) = ClipCache(tmp_path / "cache").prepare([path], SETTINGS)
        most_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clip.n_samples == 600 * RATE
    assert most_bytes < 60e6
