"""Start the processes of one training on this machine, and read a process's rank; PyTorch is not needed for it.

They are started by torchrun, by SLURM's srun, or by ``wavegen train --devices`` (``run_processes`` below), which sets
the variables that torchrun would set. Each process then reads its rank from them and joins the others: see
``wavegen.training.process_group``.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import NamedTuple

from wavegen.errors import UsageError

FIRST_PORT, N_PORTS = 20000, 12000  # for SLURM: below the range that systems assign dynamically
PARENT_KEY = "WAVEGEN_PARENT"  # in the environment of what `wavegen train --devices` starts
FORWARDED = [signal.SIGTERM, signal.SIGINT]
if sys.platform != "win32":
    FORWARDED.append(signal.SIGUSR1)
GRACE_SECONDS = 30.0  # after another has failed, rank 0 notices, saves and ends
REST_SECONDS = 3.0  # after rank 0 has failed: there is nothing left to save
POLL_SECONDS = 0.1


class Rank(NamedTuple):
    """The rank of a process and the address of the others, from the environment.

    Attributes:
        rank: from 0.
        size: number of processes (torchrun's world size).
        address, port: of the key-value store in which all processes find each other.
        is_hosted: whether a store listens there already (torchrun's); otherwise rank 0 opens one.
        restart_count: how often torchrun started the training again.
    """

    rank: int
    size: int
    address: str
    port: int
    is_hosted: bool = False
    restart_count: int = 0


def rank_from_environment(environment: Mapping[str, str]) -> Rank | None:
    """Read torchrun's variables, or those of a SLURM step with several tasks; None when this process is alone.

    Raises:
        UsageError: there are some of them, but not all, or one is not a number.
    """
    try:
        if "WORLD_SIZE" in environment:
            rank, size, port = (int(environment[key]) for key in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
            hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
            return Rank(rank, size, environment["MASTER_ADDR"], port, hosted, restarts)
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            rank, size, job = (int(environment[f"SLURM_{key}"]) for key in ("PROCID", "STEP_NUM_TASKS", "JOB_ID"))
            address = environment.get("MASTER_ADDR") or main_address(environment["SLURM_STEP_NODELIST"])
            step = int(environment.get("SLURM_STEP_ID", 0))
            port = int(environment.get("MASTER_PORT", FIRST_PORT + (job + 101 * step) % N_PORTS))
            return Rank(rank, size, address, port)
    except KeyError as error:
        raise UsageError(f"training on several processes: expected {error} in the environment, found none") from None
    except ValueError as error:
        raise UsageError(f"training on several processes: a variable of the environment is wrong: {error}") from None
    return None


def main_address(nodes: str) -> str:
    """Return the first host of SLURM's list of nodes: gpu03 of ``gpu[03-05,9],big1``."""
    match = re.match(r"([^,\[]*)(?:\[(\w+)[^]]*\])?([^,\[]*)", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


def run_processes(n: int, command: Sequence[str], complain: Callable[[str], None]) -> int:
    """Run a command as n processes of one training, and forward signals to them.

    Args:
        n: number of processes.
        command: with its arguments; it reads its rank from torchrun's variables.
        complain: called with a message when a process died of a signal.

    Returns:
        The exit code: 0 if all went well, 128 + N if one died of signal N, else that of the first that failed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    variables[PARENT_KEY] = str(os.getpid())
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (signal's signature)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        for rank in range(n):
            environment = {**os.environ, **variables, "RANK": str(rank)}
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
            complain(f"process {rank} of 0 to {n - 1} was killed by {name}; continue with --resume")
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
                process.terminate()  # so that rank 0 stops and saves
        if None not in codes or time.monotonic() > deadline:
            return first or codes
        time.sleep(POLL_SECONDS)
