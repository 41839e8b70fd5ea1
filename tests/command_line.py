"""The command line, called in three ways.

``wavegen`` calls it in the tests' own process: the fastest, for all that is about files and words. ``Process`` and
``run_alone`` give it a process of its own, for what is about signals, pipes, and streams (a fork of one that has
imported everything). ``COMMAND`` starts an interpreter, for what is about starting.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from typer.testing import CliRunner

from wavegen.cli import app
from wavegen.runs.run_folder import RunFolder

PROGRAMS = Path(__file__).with_name("programs")
COMMAND = [sys.executable, "-W", "error", "-m", "wavegen"]


class Done(NamedTuple):
    """A call that has ended, and its words."""

    returncode: int
    stdout: str
    stderr: str


def wavegen(*arguments, cwd=None, exit_code=0, **environment):
    """Call it in this process; whatever it meets, it must end with an exit code, not an exception."""
    assert all(name.startswith("WAVEGEN_") for name in environment), "only a new interpreter reads it: run_interpreter"
    with contextlib.chdir(cwd or Path.cwd()):
        done = CliRunner().invoke(app, list(map(str, arguments)), prog_name="wavegen", env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.stderr
    assert done.exit_code == exit_code, done.stderr
    return Done(done.exit_code, done.stdout, done.stderr)


class Process:
    """A command in a process of its own, started by the fork server; as far as needed, a ``subprocess.Popen``.

    Args:
        arguments: what stands after ``wavegen``.
        cwd: the folder to run in.
        stdin, stdout, stderr: descriptors or files with one; else nothing is read, and what is written is kept.
        slow_disk: let each fsync take a while.
        program: a file of ``tests/programs`` to run with these arguments, instead of wavegen.
        conditions: names of other conditions (see the fork server), and their arguments.
        environment: variables, besides those of the tests.
    """

    def __init__(
        self,
        *arguments,
        cwd=None,
        stdin=None,
        stdout=None,
        stderr=None,
        slow_disk=False,
        program=None,
        conditions=None,
        **environment,
    ):
        order = {
            "arguments": list(map(str, arguments)),
            "folder": str(cwd or Path.cwd()),
            "environment": {**os.environ, **environment},
            "program": program and str(PROGRAMS / program),
            "conditions": {**({"slow_disk": []} if slow_disk else {}), **(conditions or {})},
        }
        self.returncode = None
        self._kept = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 (closed in __exit__)
        reader, writer = os.pipe()
        with contextlib.ExitStack() as opened:
            nothing = opened.enter_context(Path(os.devnull).open())
            opened.callback(os.close, writer)
            streams = [stdin or nothing, stdout or self._kept[0], stderr or self._kept[1], writer]
            descriptors = [stream if isinstance(stream, int) else stream.fileno() for stream in streams]
            socket.send_fds(fork_server(), [json.dumps(order).encode()], descriptors)
        self._status = os.fdopen(reader)
        self.pid = int(self._status.readline())  # or its exit code, if it ended before

    def poll(self):
        """The exit code, or None while it runs; a process killed by signal N has the exit code -N."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout=300):
        if self.returncode is None:
            assert select.select([self._status], [], [], timeout)[0], "waited too long"
            self.returncode = int(self._status.readline() or self.pid)
            self._status.close()
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may have ended since
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def words(self):
        """Return what it has written to standard output and error so far."""
        return tuple(os.pread(file.fileno(), 1 << 24, 0).decode() for file in self._kept)

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        if problem[0] is not None:
            self.kill()
        self.wait()
        for file in self._kept:
            file.close()


def run_alone(*arguments, exit_code=0, **how):
    """Run it in a process of its own, to its end; it shows no traceback."""
    with Process(*arguments, **how) as process:
        process.wait()
        done = Done(process.returncode, *process.words())
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == exit_code, (done.stdout[-500:], done.stderr)
    return done


@functools.cache
def fork_server():
    """The socket of the process that forks, started when it is first needed."""
    mine, its_own = socket.socketpair()
    program = Path(__file__).with_name("fork_server.py")
    with its_own:
        command = [sys.executable, "-W", "error", str(program), str(its_own.fileno())]
        server = subprocess.Popen(command, pass_fds=[its_own.fileno()])
    atexit.register(server.wait, 60)
    atexit.register(mine.close)  # runs first, and ends it
    return mine


def run_interpreter(command, *arguments, cwd=None, exit_code=0, **environment):
    """Run a command that starts an interpreter; it shows no traceback."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == exit_code, (done.stdout[-500:], done.stderr)
    return done


def wait_until(condition, seconds=300):
    """Wait for what a process of the command line is to bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def has_ended(process):
    """Whether a process is gone, or would be if its parent, who may be anybody, looked after it."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return "State:\tZ" in status


def n_steps(run):
    """Steps in the metrics of a run, which may not be there yet."""
    return sum("train_loss" in entry for entry in RunFolder(run).metrics())
