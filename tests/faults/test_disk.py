"""Full disks, folders that may not be written to, and folders that vanish while they are used.

A full disk is a small tmpfs in a namespace of its own, where the system lets anybody mount one, and everywhere a limit
on the size of a file.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
import soundfile

from command_line import Process, run_alone, wait_until
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder

# --- full --------------------------------------------------------------------------------------------------------


class LimitedFiles:
    """A folder whose files can have a limited number of bytes."""

    error = "File too large"

    def __init__(self, folder):
        self.path = self.seen = folder

    def run_full(self, room, *arguments, **how):
        """Run a command that is to fail for want of room, and return its standard error."""
        return run_alone(*arguments, exit_code=1, conditions={"limit_file_size": [room]}, **how).stderr

    def run(self, *arguments, **how):
        """Run a command with room enough."""
        run_alone(*arguments, **how)

    def end(self):
        pass


class SmallDisk:
    """A tmpfs that the shell in its namespace sees at ``path``, and others at ``seen``; it goes with the shell."""

    error = "No space left on device"
    MOUNT = 'mount -t tmpfs -o size=8m none "$0" && echo mounted && exec cat'

    def __init__(self, folder):
        self.path = folder
        self.shell = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", self.MOUNT, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.is_mounted = self.shell.stdout.readline() == b"mounted\n"
        self.seen = Path(f"/proc/{self.shell.pid}/root{folder}")
        self.inside = {"enter_namespaces": [self.shell.pid]}

    def run_full(self, room, *arguments, **how):
        filler = self.seen / "filler"
        status = os.statvfs(self.seen)
        filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - room)))
        said = run_alone(*arguments, exit_code=1, conditions=self.inside, **how).stderr
        filler.unlink()
        return said

    def run(self, *arguments, **how):
        run_alone(*arguments, conditions=self.inside, **how)

    def end(self):
        self.shell.communicate()


def can_mount():
    if not shutil.which("unshare"):
        return False
    with tempfile.TemporaryDirectory() as folder:
        disk = SmallDisk(Path(folder))
        disk.end()
        return disk.is_mounted


@pytest.fixture(params=[LimitedFiles, *([SmallDisk] if can_mount() else [])])
def disk(request, tmp_path):
    (tmp_path / "disk").mkdir()
    disk = request.param(tmp_path / "disk")
    yield disk
    disk.end()


def train(home, folder, *more):
    return ["train", home / "recordings", "--config", home / "tiny.yaml", "--run", folder / "run", *more]


def test_no_room_for_the_cache(home, tmp_path, disk):
    said = disk.run_full(500, *train(home, tmp_path), cwd=home, WAVEGEN_CACHE=str(disk.path / "cache"))
    assert "error: " in said
    assert "the cache can" in said
    assert "set WAVEGEN_CACHE to a folder that can be written and has room" in said
    assert not list((disk.seen / "cache").rglob("*.classes"))


def test_no_room_for_checkpoints_leaves_a_run_that_can_be_resumed(home, disk):
    disk.run(*train(home, disk.path), cwd=home)
    before = RunFolder(disk.seen / "run").load_newest()[0]
    resume = ["train", "--run", disk.path / "run", "--resume", "--steps", "12"]
    said = disk.run_full(20_000, *resume, cwd=home)
    assert "free some space" in said
    newest, damaged = RunFolder(disk.seen / "run").load_newest()
    assert newest.step >= before.step
    assert damaged == []
    assert not list((disk.seen / "run").rglob("*.tmp"))
    disk.run(*resume, cwd=home)
    assert RunFolder(disk.seen / "run").load_newest()[0].step == 12


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_no_room_for_new_sound_keeps_what_there_is(home, disk, ending):
    output = disk.path / f"new.{ending}"
    said = disk.run_full(20_000, "generate", home / "run", "-o", output, "--seconds", "60", cwd=home)
    assert f"{output}: cannot be written (" in said
    assert " s before are kept" in said
    if ending == "wav":
        assert soundfile.info(disk.seen / "new.wav").frames > 4000


@pytest.mark.parametrize(
    "arguments", [["inspect", "--plot", "new.png"], ["report", "-o", "new.html", "--sample-seconds", "0"]]
)
def test_no_room_for_reports_leaves_no_half_of_one(home, disk, arguments):
    command, option, name, *more = arguments
    said = disk.run_full(10_000, command, home / "run", option, disk.path / name, *more, cwd=home)
    assert f"{name}: cannot be written ({disk.error})" in said
    assert list(disk.seen.iterdir()) == []


# --- not allowed -------------------------------------------------------------------------------------------------


def run_as_anybody(*arguments, **how):
    """Run a command that must respect the modes of files, even if root runs the tests; return its standard error."""
    return run_alone(*arguments, conditions={"respect_file_modes": []}, **how).stderr


@pytest.fixture
def shut(home, tmp_path_factory):
    """A folder that may be read and not written to, with a copy of everything."""
    shut = tmp_path_factory.mktemp("shut")
    for name in ("recordings", "run"):
        shutil.copytree(home / name, shut / name)
    shutil.copy(home / "tiny.yaml", shut)
    (shut / "cache").mkdir()
    (shut / "open").mkdir()
    for folder in (shut, shut / "cache", shut / "run", shut / "run" / "checkpoints"):
        folder.chmod(0o555)
    yield shut
    for folder in (shut, shut / "cache", shut / "run", shut / "run" / "checkpoints"):
        folder.chmod(0o755)


NOT_ALLOWED = {
    "a cache": (["train", "recordings", "--config", "tiny.yaml", "--run", "open/run"], 1, "cache", "the cache can"),
    "a new run": (
        ["train", "recordings", "--config", "tiny.yaml", "--run", "new"],
        2,
        "open/cache",
        "Permission denied",
    ),
    "an old run": (["train", "--run", "run", "--resume", "--steps", "9"], 1, "open/cache", "Permission denied"),
    "sound": (["generate", "run", "-o", "new.wav"], 2, "open/cache", "new.wav: the folder . cannot be written to"),
    "a picture": (
        ["inspect", "run", "--plot", "new.png"],
        2,
        "open/cache",
        "new.png: the folder . cannot be written to",
    ),
    "a page": (
        ["report", "run", "-o", "new.html"],
        2,
        "open/cache",
        "new.html: the folder . cannot be written to",
    ),
}


@pytest.mark.parametrize("case", NOT_ALLOWED)
def test_folders_that_may_not_be_written_to(case, shut):
    arguments, exit_code, cache, expected = NOT_ALLOWED[case]
    said = run_as_anybody(*arguments, cwd=shut, exit_code=exit_code, WAVEGEN_CACHE=str(shut / cache))
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_what_may_not_be_read_is_listed(shut):
    (shut / "recordings" / "0.wav").chmod(0)
    (shut / "recordings" / "secret").mkdir(mode=0)
    arguments = ["train", "recordings", "--config", "tiny.yaml", "--run", "open/run"]
    said = run_as_anybody(*arguments, cwd=shut, WAVEGEN_CACHE=str(shut / "open" / "cache"))
    assert "0.wav" in said
    assert "cannot be read (Permission denied)" in said
    assert "cannot be listed (Permission denied)" in said
    assert "done: " in said
    (shut / "recordings" / "secret").rmdir()


# --- gone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["run", "cache"])
def test_a_folder_that_vanishes_while_it_is_used(what, home, tmp_path):
    """The training ends with one error, or continues."""
    arguments = train(home, tmp_path, "--steps", "100000", "--set", "training.audition_every=0")
    run = RunFolder(tmp_path / "run")
    with Process(*arguments, WAVEGEN_CACHE=str(tmp_path / "cache")) as process:
        wait_until(lambda: len(run.step_checkpoints()) >= 2)
        for _ in range(100):  # it is written to all the while
            shutil.rmtree(tmp_path / what, ignore_errors=True)
        seen = set(run.step_checkpoints())
        wait_until(lambda: process.poll() is not None or set(run.step_checkpoints()) - seen)
        process.send_signal(signal.SIGTERM)
        exit_code, said = process.wait(), process.words()[1]
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (exit_code, len(errors)) in [(1, 1), (143, 0)]
    if what == "cache" or exit_code == 143:  # in a folder that it made again
        assert load_checkpoint(run.step_checkpoints()[-1]).step > 0
