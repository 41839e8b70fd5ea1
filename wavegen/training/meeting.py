"""How the processes of one training find each other.

They are started by torchrun, by SLURM's srun, or by ``wavegen train --devices``.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from wavegen.device import choose_device
from wavegen.errors import UsageError
from wavegen.training.distributed import ElsewhereError, Group, LostProcess, reason_of

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

JOIN_TIMEOUT = timedelta(minutes=10)  # machines of a job do not start at once
SETUP_TIMEOUT = timedelta(days=1)  # while one process decodes the recordings of its machine, the others wait
QUIET_SECONDS = 0.2
FIRST_PORT, N_PORTS = 20000, 12000  # for SLURM: below those that systems give to whoever asks
PARENT_KEY = "WAVEGEN_PARENT"  # in the environment of what `wavegen train --devices` starts
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


class Place(NamedTuple):
    """A process's place among all, as whoever started it says.

    Attributes:
        rank: from 0.
        size: how many there are.
        address, port: where they meet.
        hosted: whether somebody listens there already; otherwise rank 0 does.
        attempt: how often the training was started again.
    """

    rank: int
    size: int
    address: str
    port: int
    hosted: bool = False
    attempt: int = 0


def place_from(environment: Mapping[str, str]) -> Place | None:
    """Read torchrun's variables, or those of a SLURM step with several tasks; None when this process is alone.

    Raises:
        UsageError: there are some of them, but not all, or one is not a number.
    """
    try:
        if "WORLD_SIZE" in environment:
            rank, size, port = (int(environment[key]) for key in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
            hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
            return Place(rank, size, environment["MASTER_ADDR"], port, hosted, attempt)
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            rank, size, job = (int(environment[f"SLURM_{key}"]) for key in ("PROCID", "STEP_NUM_TASKS", "JOB_ID"))
            address = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
            step = int(environment.get("SLURM_STEP_ID", 0))
            port = int(environment.get("MASTER_PORT", FIRST_PORT + (job + 101 * step) % N_PORTS))
            return Place(rank, size, address, port)
    except KeyError as error:
        raise UsageError(f"training on several processes: expected {error} in the environment, found none") from None
    except ValueError as error:
        raise UsageError(f"training on several processes: a variable of the environment is wrong: {error}") from None
    return None


def first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes: ``gpu[03-05,9],big1`` begins with gpu03."""
    match = re.match(r"([^,\[]*)(?:\[(\w+)[^]]*\])?([^,\[]*)", nodes)
    return "".join(part or "" for part in match.groups()) if match else ""


@contextmanager
def joined(device_name: str, environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """Meet the other processes of this training, if the environment speaks of any.

    Args:
        device_name: auto, cpu or cuda; on CUDA each process of a machine takes a device of its own.
        environment: torchrun's or SLURM's variables.

    Yields:
        The group; alone where nothing is said of others.

    Raises:
        UsageError: the environment makes no sense, or there are fewer CUDA devices than processes.
        LostProcess: the others cannot be met.
    """
    place = place_from(environment)
    if place is None or place.size == 1:
        yield Group(device=choose_device(device_name))
        return
    import torch
    from torch import distributed

    if device_name.startswith("cuda:"):
        raise UsageError(f"--device {device_name}: each process takes its own device; give --device cuda")
    try:
        on_cuda = choose_device(device_name).type == "cuda"
    except UsageError as error:
        raise error if place.rank == 0 else ElsewhereError(error.exit_code) from None
    if PARENT_KEY in environment:
        _end_with(int(environment[PARENT_KEY]))
    # a collective that cannot end gives its process an error, and does not kill it
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    store = _join(place, "cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    try:
        meeting = Group(place.rank, place.size)
        # with GPUs of its own for each process (srun --gpus-per-task), each counts from 0
        everyone = meeting.gather((socket.gethostname(), environment.get("CUDA_VISIBLE_DEVICES")))
        here = [rank for rank, (host, _) in enumerate(everyone) if host == everyone[place.rank][0]]
        local_rank = here.index(place.rank)
        index = local_rank if len({everyone[rank] for rank in here}) == 1 else 0
        group = Group(place.rank, place.size, local_rank, len(here), attempt_number=place.attempt, store=store)
        group.device = group.attempt(lambda: choose_device(f"cuda:{index}" if on_cuda else "cpu"))
        if on_cuda:
            torch.cuda.set_device(group.device)
        group.silent_for_at_most(SETUP_TIMEOUT.total_seconds())
        yield group
    finally:
        distributed.destroy_process_group()
        # Gloo's threads stay. One that lets go of the last message's tensors only when the interpreter ends takes the
        # process down ("terminate called without an active exception").
        time.sleep(QUIET_SECONDS)


def _join(place: Place, backend: str) -> Store:
    """Meet the other processes; returns the store in which all leave their addresses."""
    from torch import distributed
    from torch._C._distributed_c10d import PrefixStore, TCPStore

    hosts = place.rank == 0 and not place.hosted
    try:
        store = TCPStore(place.address, place.port, place.size, hosts, timeout=JOIN_TIMEOUT)
        # a name of its own for each attempt: torchrun's store remembers the addresses of the one before
        own = PrefixStore(f"attempt {place.attempt}", store)
        distributed.init_process_group(backend, store=own, rank=place.rank, world_size=place.size, timeout=JOIN_TIMEOUT)
    except RuntimeError as error:
        where = f"{place.address}:{place.port}"
        raise LostProcess(f"the processes of this training cannot meet at {where}: {reason_of(error)}") from error
    return PrefixStore("all attempts", store)


def _end_with(parent: int) -> None:
    """On Linux, be sent SIGTERM when the process that started this one dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)
