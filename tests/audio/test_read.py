import io
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tracemalloc
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from wavegen.audio.read import (
    AudioInfo,
    FoundAudio,
    Recording,
    decode,
    find_audio,
    probe,
)
from wavegen.audio.write import GENERATED, AudioWriter
from wavegen.errors import AudioError, DataError, UsageError
from wavegen.text import printable

RATE = 16000


def noise(n_samples, channels=1, seed=0):
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (n_samples, channels))
    return (np.round(samples * 128) / 128).astype(np.float32)  # exact with 8 bits and more


def wav_header(data_bytes, rate_hz=RATE):
    sizes = (b"RIFF", min(data_bytes + 36, 2**32 - 1), b"WAVE", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16, b"data")
    return struct.pack("<4sI4s4sIHHIIHH4sI", *sizes, data_bytes)


def claim_frames(flac, frames):
    """Overwrite the 36 bits of a FLAC header that say how long it is."""
    content = bytearray(flac.read_bytes())
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | frames
    content[18:26] = word.to_bytes(8, "big")
    flac.write_bytes(content)


# --- find ---------------------------------------------------------------------------------------------------


def test_find_lists_audio_recursively_sorted_by_name(tmp_path):
    for name in ["b/2.WAV", "b/1.flac", "a.ogg", "c/d/e/f.mp3", "z.aif", "z.opus"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_audio(tmp_path)
    assert found.names == ("a.ogg", "b/1.flac", "b/2.WAV", "c/d/e/f.mp3", "z.aif", "z.opus")
    assert found.unusable == ()
    assert found.n_ignored == 0


def test_what_is_plainly_no_audio_is_counted(tmp_path):
    for name in ["LICENSE", "take 1", "a.raw", "notes.txt", "a.json", "b.png", ".hidden.wav", "._resource.wav"]:
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "inside.wav").touch()
    found = find_audio(tmp_path)
    assert (found.names, found.unusable, found.n_ignored) == ((), (), 9)


@pytest.mark.parametrize("ending", ["m4a", "aac", "wma", "mp4", "webm", "M4A"])
def test_formats_that_need_conversion_are_listed_with_the_command(tmp_path, ending):
    (tmp_path / f"my song.{ending}").write_bytes(b"whatever")
    (name, reason), *_ = find_audio(tmp_path).unusable
    assert name == f"my song.{ending}"
    assert shlex.split(reason.partition("convert it: ")[2])[:4] == [
        "find",
        str(tmp_path),
        "-iname",
        f"*.{ending.lower()}",
    ]
    path = tmp_path / name
    with pytest.raises(
        AudioError, match=r"my song.*: libsndfile cannot read this format; convert it: ffmpeg"
    ) as caught:
        decode(path)
    assert shlex.split(str(caught.value).partition("convert it: ")[2]) == [
        *("ffmpeg", "-i", str(path), "-vn", str(path.with_suffix(".flac")))
    ]


def test_the_command_that_converts_works_when_it_is_pasted(tmp_path, monkeypatch):
    ffmpeg = tmp_path / "bin" / "ffmpeg"
    ffmpeg.parent.mkdir()
    ffmpeg.write_text('#!/bin/sh\nfor last; do :; done; touch "$last"\n')
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ffmpeg.parent}:{os.environ['PATH']}")
    folder = tmp_path / "my phone's"
    for name in ("a.m4a", "deep/b c.M4A"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    ((_, reason), (_, same)) = find_audio(folder).unusable
    assert reason == same
    subprocess.run(reason.partition("convert it: ")[2], shell=True, check=True)
    assert find_audio(folder).names == ("a.flac", "deep/b c.flac")


def test_pipes_sockets_devices_and_broken_links_are_listed_and_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    os.mkfifo("pipe.wav")
    Path("device.wav").symlink_to("/dev/zero")
    Path("gone.wav").symlink_to("nowhere.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        found = find_audio(tmp_path)
    assert found.names == ()
    assert dict(found.unusable) == {
        "pipe.wav": "a pipe, a socket or a device, not a file",
        "device.wav": "a pipe, a socket or a device, not a file",
        "socket.wav": "a pipe, a socket or a device, not a file",
        "gone.wav": "a broken link (No such file or directory)",
    }
    for name in ["pipe.wav", "device.wav", "socket.wav"]:
        for read in (probe, decode):
            with pytest.raises(AudioError, match=f"{name}: a .*, not a file"):
                read(tmp_path / name)


def test_loops_of_links_end_and_each_folder_counts_once(tmp_path):
    (tmp_path / "corpus" / "real").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "corpus" / "real" / "a.wav").touch()
    (tmp_path / "elsewhere" / "b.wav").touch()
    (tmp_path / "corpus" / "real" / "up").symlink_to("..")
    (tmp_path / "corpus" / "again").symlink_to("real")
    (tmp_path / "corpus" / "away").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "copy.wav").symlink_to("real/a.wav")
    found = find_audio(tmp_path / "corpus")
    assert found.names == ("away/b.wav", "copy.wav", "real/a.wav")
    assert dict(found.unusable) == {
        "again/": "a link to a folder that is already in: real/",
        "away/back/": "a link to a folder that is already in: the folder itself",
        "real/up/": "a link to a folder that is already in: the folder itself",
    }


def test_odd_names_are_found_and_printed_on_one_line(tmp_path):
    odd = ["new\nline.wav", "emoji 🎹.wav", "  .wav", "tab\t.wav", os.fsdecode(b"latin-\xe9.wav"), "x" * 250 + ".flac"]
    for name in odd:
        with AudioWriter(tmp_path / name, RATE) as writer:
            writer.write(noise(10)[:, 0])
    assert set(find_audio(tmp_path).names) == set(odd)
    for name in odd:
        assert decode(tmp_path / name)[0].shape == (10, 1)
        assert printable(name).isprintable()
    assert printable("new\nline.wav") == "new\\nline.wav"


def test_a_folder_that_is_missing_is_a_wrong_call_and_a_file_stands_for_itself(tmp_path):
    with pytest.raises(
        UsageError, match=r"nowhere: expected a folder of recordings or a file, found none \(No such"
    ) as caught:
        find_audio(tmp_path / "nowhere")
    assert caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"found none \(File name too long\)"):
        find_audio(tmp_path / ("x" * 300))
    for name in ("file.wav", "of any end.ing"):
        (tmp_path / name).touch()
        assert find_audio(tmp_path / name) == FoundAudio((name,), (), 0)
    (tmp_path / "series.csv").touch()
    assert find_audio(tmp_path / "series.csv") == FoundAudio((), (), 1)


def test_folders_that_may_not_be_listed(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    scandir = os.scandir
    forbidden = [tmp_path / "secret"]

    def guarded(path):
        if Path(path) in forbidden:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert find_audio(tmp_path).unusable == (("secret/", "cannot be listed (Permission denied)"),)
    forbidden.append(tmp_path)
    with pytest.raises(DataError, match=r"cannot be listed \(Permission denied\)") as caught:
        find_audio(tmp_path)
    assert caught.value.exit_code == 1


# --- read ---------------------------------------------------------------------------------------------------

LOSSLESS = [
    *[("wav", "WAV", encoding) for encoding in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("flac", "FLAC", encoding) for encoding in ("PCM_S8", "PCM_16", "PCM_24")],
    *[("aiff", "AIFF", encoding) for encoding in ("PCM_S8", "PCM_16", "PCM_24", "FLOAT")],
    *[("au", "AU", "PCM_16"), ("caf", "CAF", "ALAC_16"), ("w64", "W64", "PCM_24"), ("rf64", "RF64", "PCM_16")],
]
LOSSY = [("ogg", "OGG", "VORBIS"), ("mp3", "MP3", "MPEG_LAYER_III"), ("opus", "OGG", "OPUS")]
BITS = {"PCM_U8": 8, "PCM_S8": 8, "PCM_16": 16, "ALAC_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("ending", "container", "encoding"), LOSSLESS)
def test_lossless_files_decode_exactly(tmp_path, ending, container, encoding, channels):
    path = tmp_path / f"a.{ending}"
    samples = noise(70_000, channels)  # more than a block
    soundfile.write(path, samples, 44100, format=container, subtype=encoding)

    info = probe(path)
    decoded, rate_hz = decode(path)

    assert info == AudioInfo(44100, channels, 70_000, container, encoding)
    assert info.seconds == pytest.approx(70_000 / 44100)
    assert info.bits == BITS[encoding]
    assert rate_hz == 44100
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, samples)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("ending", "container", "encoding"), LOSSY)
def test_lossy_files_decode_as_libsndfile_does(tmp_path, ending, container, encoding, channels):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, noise(100_000, channels), 48000, format=container, subtype=encoding)
    decoded, rate_hz = decode(path)
    np.testing.assert_array_equal(decoded, soundfile.read(path, dtype="float32", always_2d=True)[0])
    assert rate_hz == 48000
    assert probe(path).bits is None


@pytest.mark.parametrize("rate_hz", [1, 8000, 11127, 192000, 768000])
def test_any_rate_is_read(tmp_path, rate_hz):
    soundfile.write(tmp_path / "a.wav", noise(100), rate_hz)
    assert decode(tmp_path / "a.wav")[1] == rate_hz


def test_what_lies_above_a_link_is_where_the_link_leads(tmp_path):
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    soundfile.write(tmp_path / "far" / "a.wav", np.zeros(7), 8000)
    assert len(decode(tmp_path / "link" / ".." / "a.wav")[0]) == 7


def test_a_single_sample_is_audio(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)
    assert decode(tmp_path / "a.wav")[0].shape == (1, 1)


def test_many_channels(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(5000, 32), RATE)
    np.testing.assert_array_equal(decode(tmp_path / "a.wav")[0], noise(5000, 32))


@pytest.mark.parametrize("read", [probe, decode])
def test_a_missing_file_is_a_wrong_call(tmp_path, read):
    with pytest.raises(UsageError, match=r"gone\.wav: expected an audio file, found nothing there") as caught:
        read(tmp_path / "gone.wav")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("read", [probe, decode])
def test_a_folder_is_no_audio_file(tmp_path, read):
    with pytest.raises(UsageError, match=": expected an audio file, found a folder"):
        read(tmp_path)


@pytest.mark.parametrize("read", [probe, decode])
@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_empty_files(tmp_path, read, ending):
    (tmp_path / f"a.{ending}").touch()
    with pytest.raises(AudioError, match=rf"a\.{ending}: the file is empty \(0 bytes\)") as caught:
        read(tmp_path / f"a.{ending}")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("read", [probe, decode])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "aiff"])
def test_text_with_an_audio_ending(tmp_path, read, ending):
    (tmp_path / f"a.{ending}").write_text("This is a shopping list.\n" * 100)
    with pytest.raises(AudioError, match=r"libsndfile cannot read it \(no audio format is recognized in it\)"):
        read(tmp_path / f"a.{ending}")


def test_a_header_without_samples(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_header(0))
    assert probe(tmp_path / "a.wav").frames == 0
    with pytest.raises(AudioError, match=r"a\.wav: no audio in it \(0 samples\)"):
        decode(tmp_path / "a.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(tmp_path, bad):
    samples = noise(50_000)
    samples[40_000] = bad
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=rf"expected samples within \[-1, 1\], found \[{bad}\] at 2\.500 s; export it again"
    ):
        decode(tmp_path / "a.wav")


@pytest.mark.parametrize(("ending", "container"), [("wav", "WAV"), ("aiff", "AIFF"), ("ogg", "OGG"), ("flac", "FLAC")])
def test_what_is_left_of_a_file_that_was_cut_off_is_used(tmp_path, ending, container):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, noise(200_000), RATE, format=container)
    whole = decode(path)[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    rest = decode(path)[0]
    assert 50_000 < len(rest) <= 100_100
    np.testing.assert_array_equal(rest, whole[: len(rest)])


@pytest.mark.parametrize("claimed", [0, 30_000, 2**36 - 1])
def test_flac_headers_that_do_not_know_the_length(tmp_path, claimed):
    path = tmp_path / "a.flac"  # 0 is what an encoder leaves that wrote to a pipe
    soundfile.write(path, noise(20_000), RATE)
    claim_frames(path, claimed)
    tracemalloc.start()
    decoded, _ = decode(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(decoded, noise(20_000))
    assert probe(path).frames == (claimed or None)
    assert peak_bytes < 5e6


def test_a_wav_header_that_claims_hours_allocates_nothing(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_header(2**32 - 1) + bytes(2000))
    tracemalloc.start()
    decoded, _ = decode(tmp_path / "a.wav")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(decoded) == 1000
    assert peak_bytes < 5e6


def test_files_beyond_the_limit_are_refused(tmp_path, monkeypatch):
    (tmp_path / "days.wav").write_bytes(wav_header(200_000, rate_hz=1) + bytes(200_000))
    with pytest.raises(AudioError, match=r"days\.wav: longer than 24\.0 hours; cut it into shorter files: ffmpeg -i"):
        decode(tmp_path / "days.wav")
    monkeypatch.setattr("wavegen.audio.read.MAX_FRAMES", 99_999)
    soundfile.write(tmp_path / "long.wav", noise(100_000), RATE)
    with pytest.raises(AudioError, match=r"long\.wav: longer than 0\.0 hours"):
        decode(tmp_path / "long.wav")


def test_blocks_join_to_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(200_000, 2), RATE)
    recording = Recording(tmp_path / "a.wav")
    lengths = [len(block) for block in recording]
    assert recording.info.frames == recording.n_frames == sum(lengths) == 200_000
    assert max(lengths) < 50_000


# --- write --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "encoding", "accuracy"),
    [("wav", "PCM_16", 0), ("WAV", "PCM_16", 0), ("flac", "PCM_16", 0), ("ogg", "VORBIS", 0.05)],
)
def test_a_round_trip_keeps_the_sound_and_says_that_it_is_generated(tmp_path, ending, encoding, accuracy):
    path = tmp_path / f"a.{ending}"
    samples = (np.rint(16384 * np.sin(2 * np.pi * 440 * np.arange(5 * RATE) / RATE)) / 32768).astype(np.float32)
    with AudioWriter(path, RATE) as writer:
        for block in np.array_split(samples, 7):
            writer.write(block)
    assert writer.n_written == len(samples)
    info = probe(path)
    assert info == AudioInfo(RATE, 1, len(samples), ending.upper(), encoding, comment=GENERATED)
    assert info.is_generated
    np.testing.assert_allclose(decode(path)[0][:, 0], samples, atol=accuracy)


def test_minutes_of_ogg_in_one_block(tmp_path):
    """libsndfile 1.2.2 crashes when it gets them at once."""
    with AudioWriter(tmp_path / "a.ogg", RATE) as writer:
        writer.write(np.zeros(8_000_000, np.float32))
    assert probe(tmp_path / "a.ogg").frames == 8_000_000


def test_wav_written_here_is_read_by_others(tmp_path):
    with AudioWriter(tmp_path / "a.wav", 44100) as writer:
        writer.write(np.float32([0, 0.5, -0.5]))
    with wave.open(str(tmp_path / "a.wav")) as reader:
        assert reader.getparams()[:4] == (1, 2, 44100, 3)
        assert np.frombuffer(reader.readframes(3), "<i2").tolist() == [0, 16384, -16384]


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_too_loud_is_clipped_not_wrapped(tmp_path, ending):
    with AudioWriter(tmp_path / f"a.{ending}", RATE) as writer:
        writer.write(np.full(8000, 3.0, np.float32))
    assert decode(tmp_path / f"a.{ending}")[0].min() > 0


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_an_existing_file_is_replaced_only_with_overwrite(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"already exists; give another name, or overwrite=True to") as caught:
        AudioWriter(path, RATE)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == b"precious"
    with AudioWriter(path, RATE, overwrite=True) as writer:
        writer.write(noise(1000)[:, 0])
    assert len(decode(path)[0]) == 1000


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    writer = AudioWriter(path, RATE)
    path.write_bytes(b"precious")
    with pytest.raises((UsageError, AudioError)), writer:
        pass
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.mp4", r"a\.mp4: expected a file ending in \.wav, \.flac, \.ogg, or - for standard output"),
        ("a", r"a: expected a file ending in \.wav, \.flac, \.ogg"),
        ("missing/a.wav", r"a\.wav: the folder .*missing does not exist; make it first"),
        ("x" * 300 + ".wav", r"cannot be written \(File name too long\)"),
        ("folder.wav", r"folder\.wav: expected a file to write, found a folder"),
        (
            "pipe.wav",
            r"pipe\.wav: .*, found a pipe, a socket or a device, not a file; - writes to standard output",
        ),
    ],
)
def test_targets_that_cannot_be(tmp_path, name, message):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UsageError, match=message) as caught:
        AudioWriter(tmp_path / name, RATE, overwrite=True)
    assert caught.value.exit_code == 2


def test_ogg_has_a_highest_rate(tmp_path):
    with pytest.raises(UsageError, match=r"Ogg Vorbis goes up to 200000 Hz, the audio has 384000; use \.wav"):
        AudioWriter(tmp_path / "a.ogg", 384000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_a_read_only_folder(tmp_path, ending):
    tmp_path.chmod(0o500)
    with pytest.raises(AudioError, match="cannot be written"), AudioWriter(tmp_path / f"a.{ending}", RATE):
        pass


def test_samples_that_are_not_finite_are_not_written(tmp_path):
    with (
        pytest.raises(AudioError, match="expected finite samples to write"),
        AudioWriter(tmp_path / "a.wav", RATE) as w,
    ):
        w.write(np.float32([0, np.nan]))
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_an_interrupted_file_plays(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    with pytest.raises(KeyboardInterrupt), AudioWriter(path, RATE) as writer:  # noqa: PT012
        writer.write(noise(10_000)[:, 0])
        raise KeyboardInterrupt
    assert len(decode(path)[0]) == 10_000


def test_a_file_interrupted_before_the_first_block_is_not_left_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), AudioWriter(tmp_path / "a.wav", RATE):
        raise KeyboardInterrupt
    assert not (tmp_path / "a.wav").exists()


WRITE_BLOCKS = [sys.executable, "-W", "error", str(Path(__file__).parents[1] / "programs" / "write_blocks.py")]


@pytest.mark.parametrize(("ending", "at_least"), [("wav", 80_000), ("flac", 70_000), ("ogg", 60_000)])
def test_kill_leaves_a_file_that_plays(tmp_path, ending, at_least):
    path = tmp_path / f"a.{ending}"
    done = subprocess.run([*WRITE_BLOCKS, "kill", str(path)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert at_least <= len(decode(path)[0]) <= 80_000


@pytest.mark.parametrize(
    ("trouble", "ending"),
    [
        *(("full disk", ending) for ending in ("wav", "flac", "ogg")),
        *(("no room", ending) for ending in ("wav", "flac")),  # for a header; a Vorbis header waits for sound
    ],
)
def test_a_full_disk_is_one_line(tmp_path, trouble, ending):
    path = tmp_path / f"a.{ending}"
    command = [*WRITE_BLOCKS, trouble, str(path)]
    done = subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{path}: cannot be written (")
    assert line.endswith(" s before are kept") == path.exists() == (trouble == "full disk")


def test_a_closed_pipe_is_one_quiet_broken_pipe_error():
    command = [*WRITE_BLOCKS, "pipe", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(5000).startswith(b"RIFF")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=300) == 7


def test_a_pipe_gets_the_true_length_when_it_is_known(monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=(pipe := io.BytesIO())))
    with AudioWriter("-", RATE, n_samples=300) as writer:
        writer.write(noise(100)[:, 0])
        writer.write(noise(200)[:, 0])
    written = pipe.getvalue()
    assert struct.unpack_from("<I", written, 4) == (len(written) - 8,)
    assert written[-608:-600] == b"data" + struct.pack("<I", 600)
    assert len(soundfile.read(io.BytesIO(written))[0]) == 300


def test_an_endless_pipe_gets_the_largest_length(monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=(pipe := io.BytesIO())))
    with AudioWriter("-", RATE) as writer:
        writer.write(noise(100)[:, 0])
    assert struct.unpack_from("<I", pipe.getvalue(), 4) == (2**32 - 1,)
    assert pipe.getvalue()[-208:-200] == b"data" + struct.pack("<I", 2**32 - 1)
    assert len(soundfile.read(io.BytesIO(pipe.getvalue()))[0]) == 100
