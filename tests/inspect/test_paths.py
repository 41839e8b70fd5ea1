"""The kind of a path."""

import os

import pytest

from inspections import sine, write
from wavegen.errors import AudioError, UsageError
from wavegen.inspect import inspect_path


def test_the_error_of_a_missing_path_lists_what_can_be_inspected(tmp_path):
    with pytest.raises(UsageError, match=r"gone: nothing there; expected a folder of recordings, .* preset \(.*small"):
        inspect_path(str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="did you mean 'small'"):
        inspect_path("smal")
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path(str(tmp_path / "gone.safetensors"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path(str(tmp_path / "file" / "below"))
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path("a\0b")
    with pytest.raises(UsageError, match=r"cannot be read \(File name too long\)"):
        inspect_path("x" * 5000)


def test_what_lies_on_disk_goes_before_a_preset_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small" / "a.wav", sine(0.5, 1.0))
    assert inspect_path("small").kind == "folder"


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="a pipe, a socket or a device"):
        inspect_path(str(tmp_path / "a.wav"))
