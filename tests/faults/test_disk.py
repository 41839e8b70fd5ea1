"""Full disks, folders that may not be written to, and folders that vanish while they are used.

A full disk is a small tmpfs in a namespace of its own, where the system lets anybody mount one, and everywhere a limit
on the size of a file.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import soundfile

from command_line import COMMAND, run_interpreter, wait_until
from wavegen.training.checkpoint import load_checkpoint
from wavegen.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

# Runs the command line with a limit on the size of any file it writes.
LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv[1:2] = []
from wavegen.__main__ import main
main()
"""
WAVEGEN = "from wavegen.__main__ import main; main()"
# Runs the command line without what root may do in spite of a file's mode; for others it changes nothing.
LIKE_ANYBODY = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
if os.geteuid() == 0:
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-W", "error", "-m", "wavegen", *sys.argv[1:]])
"""


def run(code, *arguments, inside=(), **how):
    """What the command line says when it is started by some code."""
    return run_interpreter([*inside, sys.executable, "-W", "error", "-c", code], *arguments, **how).stderr


# --- full --------------------------------------------------------------------------------------------------------


class Limit:
    """Files can have so many bytes and no more."""

    error = "File too large"

    def __init__(self, folder):
        self.path = self.seen = folder

    def run_full(self, room, *arguments, cwd, **environment):
        """Run a command that is to fail for want of room; returns what it says."""
        return run(LIMITED, room, *arguments, cwd=cwd, exit_code=1, **environment)

    def run(self, *arguments, cwd):
        """Run a command with room enough."""
        run(WAVEGEN, *arguments, cwd=cwd, exit_code=0)


class SmallDisk(Limit):
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
        self.inside = ["nsenter", "--target", str(self.shell.pid), "--user", "--mount", "--preserve-credentials"]

    def run_full(self, room, *arguments, cwd, **environment):
        filler = self.seen / "filler"
        status = os.statvfs(self.seen)
        filler.write_bytes(bytes(max(0, status.f_bavail * status.f_frsize - room)))
        said = run(WAVEGEN, *arguments, cwd=cwd, exit_code=1, inside=self.inside, **environment)
        filler.unlink()
        return said

    def run(self, *arguments, cwd):
        run(WAVEGEN, *arguments, cwd=cwd, exit_code=0, inside=self.inside)

    def end(self):
        self.shell.communicate()


def can_mount():
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        disk = SmallDisk(Path(folder))
        disk.end()
        return disk.is_mounted


@pytest.fixture(params=[Limit, *([SmallDisk] if can_mount() else [])])
def disk(request, tmp_path):
    (tmp_path / "disk").mkdir()
    disk = request.param(tmp_path / "disk")
    yield disk
    if isinstance(disk, SmallDisk):
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


@pytest.mark.parametrize("arguments", [["--plot", "new.png"], ["--html", "new.html", "--sample-seconds", "0"]])
def test_no_room_for_reports_leaves_no_half_of_one(home, disk, arguments):
    option, name, *more = arguments
    said = disk.run_full(10_000, "inspect", home / "run", option, disk.path / name, *more, cwd=home)
    assert f"{name}: cannot be written ({disk.error})" in said
    assert list(disk.seen.iterdir()) == []


# --- not allowed -------------------------------------------------------------------------------------------------


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
    "sound": (["generate", "run", "-o", "new.wav"], 1, "open/cache", "new.wav: cannot be written (Permission denied)"),
    "flac": (["generate", "run", "-o", "new.flac"], 1, "open/cache", "new.flac: cannot be written ("),
    "a picture": (
        ["inspect", "run", "--plot", "new.png"],
        2,
        "open/cache",
        "new.png: the folder . cannot be written to",
    ),
    "a page": (
        ["inspect", "run", "--html", "new.html"],
        2,
        "open/cache",
        "new.html: the folder . cannot be written to",
    ),
}


@pytest.mark.parametrize("case", NOT_ALLOWED)
def test_folders_that_may_not_be_written_to(case, shut):
    arguments, exit_code, cache, expected = NOT_ALLOWED[case]
    said = run(LIKE_ANYBODY, *arguments, cwd=shut, exit_code=exit_code, WAVEGEN_CACHE=str(shut / cache))
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert expected in errors[0]


def test_what_may_not_be_read_is_listed(shut):
    (shut / "recordings" / "0.wav").chmod(0)
    (shut / "recordings" / "secret").mkdir(mode=0)
    arguments = ["train", "recordings", "--config", "tiny.yaml", "--run", "open/run"]
    said = run(LIKE_ANYBODY, *arguments, cwd=shut, exit_code=0, WAVEGEN_CACHE=str(shut / "open" / "cache"))
    assert "0.wav" in said
    assert "cannot be read (Permission denied)" in said
    assert "cannot be listed (Permission denied)" in said
    assert "done: " in said
    (shut / "recordings" / "secret").rmdir()


# --- gone --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["run", "cache"])
def test_a_folder_that_vanishes_while_it_is_used(what, home, tmp_path):
    """One error, never a crash."""
    arguments = train(home, tmp_path, "--steps", "100000", "--set", "training.audition_every=0")
    command = [*COMMAND, *map(str, arguments)]
    environment = {**os.environ, "WAVEGEN_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(RunFolder(tmp_path / "run").step_checkpoints()) >= 2)
        for _ in range(100):  # it is written to all the while
            shutil.rmtree(tmp_path / what, ignore_errors=True)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.returncode is None:  # it needs nothing of what is gone
            process.send_signal(signal.SIGTERM)
        try:
            said = process.communicate(timeout=300)[1]
        finally:
            process.kill()
    assert "Traceback" not in said, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (process.returncode, len(errors)) in [(1, 1), (143, 0)]
    if what == "cache" or process.returncode == 143:  # it went on, in a folder that it made again
        assert load_checkpoint(RunFolder(tmp_path / "run").step_checkpoints()[-1]).step > 0
