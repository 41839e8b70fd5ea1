"""Generated audio into files."""

import io
import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from wavegen.errors import ModelError
from wavegen.sampling.writing import write_clips

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


def test_a_pipe_is_told_the_length_with_what_comes_before(monkeypatch):
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe))
    write([np.zeros((1, 8), np.float32)], ["-"])
    content = pipe.getvalue()
    assert len(content) == 44 + 2 * (3 + 8)
    assert struct.unpack_from("<I", content, 40) == (2 * (3 + 8),)


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
