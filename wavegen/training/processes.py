"""Starting the processes of one training on this machine, as torchrun would, without its words."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from wavegen.training.meeting import PARENT_KEY

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_SECONDS = 30.0  # after another has failed, rank 0 notices, saves and ends
REST_SECONDS = 3.0  # after rank 0 has failed: there is nothing left to save
POLL_SECONDS = 0.1


def run_processes(n: int, command: Sequence[str], complain: Callable[[str], None]) -> int:
    """Run a command as n processes that meet, and pass signals on to them.

    Args:
        n: number of processes.
        command: with its arguments; it finds the others as under torchrun (see ``wavegen.training.meeting``).
        complain: is told of a process that died of a signal.

    Returns:
        The exit code: 0 if all went well, 128 + N if one died of signal N, else that of the first that failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    meeting[PARENT_KEY] = str(os.getpid())
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for rank in range(n):
            environment = {**os.environ, **meeting, "RANK": str(rank)}
            # a session of its own: the terminal's Ctrl-C comes to it once, from here
            processes.append(subprocess.Popen(command, env=environment, start_new_session=True))
        codes = _wait(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    for rank, code in enumerate(codes):
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            complain(f"process {rank} of 0 to {n - 1} was killed by {name}; go on with --resume")
            return 128 - code
    return next((code for code in codes if code), 0)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int | None]:
    """Wait until all have ended, or for a while after one has failed.

    Returns:
        Their exit codes; after a failure those that were known when it was seen, and None for the others.
    """
    first: list[int | None] | None = None
    deadline = math.inf
    while True:
        codes = [process.poll() for process in processes]
        if first is None and any(codes):
            first = codes
            deadline = time.monotonic() + (REST_SECONDS if codes[0] else GRACE_SECONDS)
            for process in processes:
                process.terminate()  # so that rank 0 leaves what it does alone, and saves
        if None not in codes or time.monotonic() > deadline:
            return first or codes
        time.sleep(POLL_SECONDS)


def own_command() -> list[str]:
    """The command that started this process, to start it again."""
    return [sys.executable, "-P", "-m", "wavegen", *sys.argv[1:]]
