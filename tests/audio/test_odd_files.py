"""Odd files: what can be decoded is used to the last second, and what is wrong with a file is said."""

import contextlib
import io
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio.odd_files import FFMPEG, RATE, chunk, encode, make_odd_files, pcm, tone, wav
from tests.trainings import TINY, begin
from wavegen.audio.read import Recording, decode, probe
from wavegen.audio.waveform import Preparation, build_preparation, open_audio
from wavegen.config import load_config
from wavegen.data.recordings import read_recordings
from wavegen.errors import AudioError
from wavegen.inspect.recordings import inspect_folder
from wavegen.report.training import data_table
from wavegen.text import format_duration

PREPARATION = Preparation(RATE, True, 40.0, 0.3, "peak", 30.0)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    return folder, make_odd_files(folder)


@pytest.fixture(scope="module")
def corpus(odd, tmp_path_factory):
    config = load_config("small", [f"data.folder={odd[0]}", "data.validation=0", f"audio.sample_rate_hz={RATE}"])
    assert build_preparation(config) == PREPARATION
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WAVEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return read_recordings(config)


def warnings_of(path):
    with open_audio(path, PREPARATION) as audio:
        return audio.warnings


def bounds(seconds):
    low, high = seconds if isinstance(seconds, tuple) else (seconds, seconds)
    return low - 0.06, high + 0.06


def test_every_odd_file_is_used_to_its_last_second_or_listed_with_a_reason(odd, corpus):
    _, known = odd
    assert len(known) >= 60
    reasons, used = dict(corpus.unusable), {clip.name: clip.stored.source_seconds for clip in corpus.clips}
    assert used.keys() | reasons.keys() == known.keys()
    for name, outcome in known.items():
        if isinstance(outcome, str):
            assert outcome in reasons[name], name
        else:
            low, high = bounds(outcome)
            assert low <= used[name] <= high, name


def test_seconds_add_up(corpus):
    """Seconds used and seconds cut add up to those found, but for part of a sample in each file."""
    for clip in corpus.clips:
        used = clip.stored.n_samples / RATE + clip.stored.trimmed_seconds
        assert used == pytest.approx(clip.stored.source_seconds, abs=1.001 / RATE), clip.name
    found, train, held_out, cut, skipped = data_table(corpus, RATE).rows
    assert [row[0] for row in (found, train, cut, skipped)] == ["found", "train", "silence cut", "skipped"]
    assert (found[1], held_out[1], skipped[1]) == (f"{len(corpus.clips)}", "0", f"{len(corpus.unusable)}")
    assert found[2] == format_duration(sum(clip.stored.source_seconds for clip in corpus.clips))


def test_inspect_lists_the_same_seconds_as_training_uses(odd, corpus):
    facts = inspect_folder(odd[0], decode=True)
    listed = {file.name: file.seconds for file in facts.files}
    assert listed == {clip.name: clip.stored.source_seconds for clip in corpus.clips if clip.name in listed}
    # a rate and a level are not looked at there, and are no reason against the rest
    assert listed.keys() == {clip.name for clip in corpus.clips}


def test_a_folder_of_odd_files_trains(odd, tmp_path):
    trainer = begin(load_config("small", [f"data.folder={odd[0]}", *TINY]), tmp_path / "run")
    trainer.fit()
    assert {clip.name for clip in trainer.corpus.clips} >= {"counts half.wav", "two in a row.ogg"}


@pytest.mark.skipif(FFMPEG is None, reason="needs ffmpeg")
def test_the_seconds_are_those_that_ffmpeg_decodes(odd):
    """But for where ffmpeg believes a wrong header, and the last frame of what is cut off."""
    folder, known = odd
    believed = {"counts half.aiff", "counts half.caf", "recorder died.rf64", "another behind.wav", "two rates.ogg"}
    believed |= {"counts half.wav", "recorder died.wav", "recorder died, both sizes 0.wav"}  # see the remedies
    for name, outcome in known.items():
        if isinstance(outcome, str) or name in believed or "half copied" in name:
            continue
        command = [FFMPEG, "-v", "quiet", "-i", folder / name, "-f", "s16le", "-ac", "1", "-ar", "44100", "-"]
        seconds = len(subprocess.run(command, check=False, capture_output=True).stdout) / 2 / 44100
        assert decode_seconds(folder / name) == pytest.approx(seconds, abs=0.09), name


def decode_seconds(path):
    waveform, rate_hz = decode(path)
    return len(waveform) / rate_hz


@pytest.mark.parametrize(
    "name",
    [
        *("counts half.wav", "recorder died.wav", "recorder died.rf64", "counts half.aiff", "counts half.au"),
        *("counts half.flac", "two in a row.mp3"),
    ],
)
def test_the_remedy_of_a_wrong_header_is_a_command_that_repairs_the_file(odd, name, tmp_path):
    shutil.copy(odd[0] / name, tmp_path / name)
    (warning,) = warnings_of(tmp_path / name)
    kind, _, details = warning.partition(": ")
    assert kind == "wrong header"
    command = shlex.split(details.partition("repair it: ")[2])
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    subprocess.run(command, check=True, capture_output=True)
    repaired = Path(command[-1])
    assert not warnings_of(repaired)
    assert decode_seconds(repaired) == pytest.approx(odd[1][name], abs=0.11)


def test_what_follows_an_mp3_and_cannot_be_opened_is_reported(tmp_path):
    """Its own header counts what was used; what looks like another stream behind it is sound that may be lost."""
    mp3 = encode(tone(3.0, 44_100), "MP3", rate_hz=44_100)
    (tmp_path / "whole.mp3").write_bytes(mp3)
    (tmp_path / "more.mp3").write_bytes(mp3 + b"\xff\xe0" + bytes(9000) + mp3)
    assert warnings_of(tmp_path / "whole.mp3") == ()
    (warning,) = warnings_of(tmp_path / "more.mp3")
    assert warning.startswith("damaged or cut off: ended at ")
    assert decode_seconds(tmp_path / "more.mp3") == decode_seconds(tmp_path / "whole.mp3")


@pytest.mark.parametrize("name", ["half copied.ogg", "no end.ogg", "half copied.opus"])
def test_an_ogg_file_without_its_end_is_reported(odd, name):
    (warning,) = warnings_of(odd[0] / name)
    assert warning.startswith("damaged or cut off: ended at ")
    assert warning.endswith(" s (the end of its stream is missing); copy it again")


@pytest.mark.parametrize("n_bytes", [300, 9000, 70_000])
def test_an_mp3_of_unknown_length_behind_junk_is_used_whole(tmp_path, n_bytes):
    buffer = io.BytesIO()
    settings = {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "VARIABLE", "compression_level": 0.3}
    with soundfile.SoundFile(buffer, "w", 44_100, 1, **settings) as file:
        file.write(np.concatenate([tone(2.0, 44_100), np.zeros(10 * 44_100, np.float32)]))
    mp3 = buffer.getvalue()
    without_length = mp3[mp3.index(mp3[:2], 4) :]  # the first frame holds the length
    junk = np.random.default_rng(0).integers(0, 256, n_bytes, dtype=np.uint8).tobytes()
    (tmp_path / "a.mp3").write_bytes(junk + without_length)
    assert decode_seconds(tmp_path / "a.mp3") == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("tail", ["LIST", "id3 ", "bext"])
def test_chunks_behind_the_samples_are_no_samples(tmp_path, tail):
    """Also where the size of the samples is odd, and with no byte of padding behind them."""
    samples = pcm(tone(0.5))
    for odd_byte, pad in ((b"", b""), (b"\x00", b"\x00"), (b"\x00", b"")):
        content = wav(
            samples, declared=len(samples) + len(odd_byte), behind=odd_byte + pad + chunk(tail.encode(), b"z" * 99)
        )
        (tmp_path / "a.wav").write_bytes(content)
        np.testing.assert_array_equal(decode(tmp_path / "a.wav")[0][:, 0], np.frombuffer(samples, "<i2") / 32768)


def test_a_size_of_32_bits_that_wrapped(tmp_path):
    """A sparse file: 4 GiB of silence and 10 s more, of which the header counts the 10 s."""
    rest = 20 * RATE
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(wav(b"", declared=rest))
        file.truncate(44 + 2**32 + rest)
    info = probe(tmp_path / "a.wav")
    assert info.frames == (2**32 + rest) // 2
    assert info.claimed_seconds == pytest.approx(10.0)
    recording = Recording(tmp_path / "a.wav")
    assert len(next(iter(recording))) > 1000
    recording.close()


def test_a_size_that_wrapped_before_other_chunks(tmp_path):
    rest, tail = 20 * RATE, chunk(b"LIST", b"INFO" * 9)
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(wav(b"", declared=rest))
        file.seek(44 + 2**32 + rest)
        file.write(tail)
    assert probe(tmp_path / "a.wav").frames == (2**32 + rest) // 2


def test_samples_before_the_place_of_damage_are_used(tmp_path):
    content = encode(tone(20.0), "FLAC")
    (tmp_path / "whole.flac").write_bytes(content)
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    whole, cut = decode(tmp_path / "whole.flac")[0], decode(tmp_path / "cut.flac")[0]
    assert len(cut) > 8 * RATE
    np.testing.assert_array_equal(cut, whole[: len(cut)])
    (warning,) = warnings_of(tmp_path / "cut.flac")
    assert warning.startswith(f"damaged or cut off: {20 - len(cut) / RATE:.2f} s less than its header claims")


@pytest.mark.parametrize("container", ["MP3", "OGG"])
def test_streams_in_a_row_are_each_whole(tmp_path, container):
    rate = 44100
    parts = [encode(tone(2.0, rate, seed=i), container, rate_hz=rate) for i in range(3)]
    for i, part in enumerate(parts):
        (tmp_path / f"{i}.x").write_bytes(part)
    (tmp_path / "all.x").write_bytes(b"".join(parts))
    each = [decode(tmp_path / f"{i}.x")[0] for i in range(3)]
    np.testing.assert_array_equal(decode(tmp_path / "all.x")[0], np.concatenate(each))


def test_headers_that_are_cut_off_are_read_or_refused(tmp_path):
    others = (encode(tone(0.1), container) for container in ("AU", "AIFF", "W64", "CAF", "RF64", "OGG", "FLAC"))
    for content in (wav(pcm(tone(0.1))), *others):
        for length in (*range(1, 64), 90, 120):
            (tmp_path / "a.wav").write_bytes(content[:length])
            with contextlib.suppress(AudioError):
                decode(tmp_path / "a.wav")
