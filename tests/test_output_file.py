import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from wavegen.errors import UsageError
from wavegen.output_file import check_writable, write_atomically

PROGRAM = Path(__file__).parent / "programs" / "interrupt_write.py"


def test_a_file_is_made_or_replaced(tmp_path):
    file = tmp_path / ("x" * 251 + ".txt")  # as long as a name can be
    for content in (b"one", b"another"):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert file.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_was_there_stays_until_the_new_is_whole(tmp_path, number):
    (tmp_path / "file").write_bytes(b"old")
    command = [sys.executable, PROGRAM, str(int(number))]
    ended = subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL, check=False).returncode
    assert ended == -number
    assert (tmp_path / "file").read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path.name != "file"]
    if number == signal.SIGINT:
        assert left == []
    else:
        (name,) = left
        assert name.startswith(".file.")


def test_the_file_is_on_disk_before_it_is_renamed_and_the_folder_after(tmp_path, monkeypatch):
    file, synced, fsync = tmp_path / "file", [], os.fsync

    def noted(descriptor):
        fsync(descriptor)
        synced.append(("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file", file.exists()))

    monkeypatch.setattr(os, "fsync", noted)
    write_atomically(file, b"new")
    assert synced == [("file", False), ("folder", True)]


def test_no_room_leaves_nothing(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert not list(tmp_path.iterdir())


def test_a_name_in_braces_stays_as_it_is(tmp_path):
    path = tmp_path / "{overwrite}.wav"
    path.touch()
    with pytest.raises(UsageError) as caught:
        check_writable(path, False)
    assert str(caught.value) == f"{path}: already exists; give another name, or overwrite=True to replace it"
