"""Generated audio into files."""

import io
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from wavegen.audio.write import free_output, write_clip, write_clips
from wavegen.errors import ModelError, UsageError

RATE_HZ = 8000
BEFORE = np.full(3, 0.5, np.float32)


def write(blocks, paths):
    made = []
    names = [str(path) for path in paths]
    write_clips(blocks, names, RATE_HZ, n_samples=8, before=BEFORE, overwrite=True, written=made.append)
    return made


def test_each_clip_is_written_behind_what_comes_before(tmp_path):
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    blocks = (np.full((2, n), n / 10, np.float32) * [[1], [-1]] for n in (5, 3))
    assert write(blocks, paths) == [5, 8]
    for path, sign in zip(paths, (1, -1), strict=True):
        expected = [*[0.5] * 3, *[sign * 0.5] * 5, *[sign * 0.3] * 3]
        np.testing.assert_allclose(soundfile.read(path)[0], expected, atol=1e-4)


def test_the_header_of_a_pipe_counts_the_prime(monkeypatch):
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe))
    write([np.zeros((1, 8), np.float32)], ["-"])
    content = pipe.getvalue()
    n_bytes = 2 * (3 + 8)
    assert struct.unpack_from("<I", content, 4) == (len(content) - 8,)
    assert content[-n_bytes - 8 : -n_bytes] == b"data" + struct.pack("<I", n_bytes)


def test_what_fails_before_the_first_sample_replaces_nothing(tmp_path):
    def broken():
        raise ModelError("not finite")
        yield

    old, new = tmp_path / "old.wav", tmp_path / "new.wav"
    soundfile.write(old, np.zeros(100), RATE_HZ)
    with pytest.raises(ModelError):
        write(broken(), [old, new])
    assert soundfile.info(old).frames == 100
    assert not new.exists()


@pytest.mark.parametrize(
    ("there", "count", "free"),
    [
        ([], 1, "new.wav"),
        (["new.wav"], 1, "new-2.wav"),
        (["new.wav", "new-2.wav", "new-4.wav"], 1, "new-3.wav"),
        (["new.wav"], 2, "new.wav"),  # two clips are new-1.wav and new-2.wav
        (["new-2.wav"], 2, "new-2.wav"),
        (["new-2.wav", "new-2-1.wav"], 2, "new-3.wav"),
        (["new-07.wav"], 10, "new-2.wav"),
    ],
)
def test_the_next_free_name_is_that_of_which_no_file_exists(tmp_path, monkeypatch, there, count, free):
    monkeypatch.chdir(tmp_path)
    for name in there:
        (tmp_path / name).touch()
    assert free_output("new.wav", count) == free


def test_a_clip_is_written_whole_and_replaces_nothing_unasked(tmp_path):
    clip = np.linspace(-0.5, 0.5, 50, dtype=np.float32)
    write_clip(clip, str(tmp_path / "a.wav"), RATE_HZ, overwrite=False)
    np.testing.assert_allclose(soundfile.read(tmp_path / "a.wav")[0], clip, atol=1e-4)
    with pytest.raises(UsageError, match="already exists"):
        write_clip(clip, str(tmp_path / "a.wav"), RATE_HZ, overwrite=False)
