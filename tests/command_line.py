"""The command line: as its users meet it, in a process of its own; or, faster, in the tests' own."""

import os
import subprocess
import sys
import time
from pathlib import Path

from typer.testing import CliRunner

from wavegen.cli import app
from wavegen.training.run_folder import RunFolder

COMMAND = [sys.executable, "-W", "error", "-m", "wavegen"]


def wavegen(*arguments, cwd=None, exit_code=0, **environment):
    """Run it; whatever it meets, it shows no traceback."""
    return checked(COMMAND, *arguments, cwd=cwd, exit_code=exit_code, **environment)


def checked(
    command,
    *arguments,
    cwd=None,
    exit_code=0,
    **environment,
):
    """Run what begins the command line in another way."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == exit_code, done.stderr
    return done


def called(*arguments, exit_code=0):
    """Call it in this process."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == exit_code, done.output
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
    return sum("train_bits" in entry for entry in RunFolder(run).metrics())
