"""Join the processes of one training into a group."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from wavegen.device import choose_device
from wavegen.errors import ParameterError, UsageError
from wavegen.training.distributed import Group, ProcessDied, RemoteError, reason_of
from wavegen.training.launch import PARENT_KEY, Rank, rank_from_environment

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

JOIN_TIMEOUT = timedelta(minutes=10)  # machines of a job do not start at once
SETUP_TIMEOUT = timedelta(days=1)  # while one process decodes the recordings of its machine, the others wait
QUIET_SECONDS = 0.2
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


@contextmanager
def process_group(device_name: str, environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """Join the other processes of this training, if the environment names any.

    Args:
        device_name: auto, cpu or cuda; on CUDA each process of a machine takes a device of its own.
        environment: torchrun's or SLURM's variables.

    Yields:
        The group; of size 1 where the environment names no others.

    Raises:
        UsageError: the environment makes no sense, or there are fewer CUDA devices than processes.
        ProcessDied: the others cannot be reached.
    """
    own = rank_from_environment(environment)
    if own is None or own.size == 1:
        yield Group(device=choose_device(device_name))
        return
    if device_name.startswith("cuda:"):
        raise ParameterError("device", "each process takes its own device", device_name, {"device": "cuda"})
    try:
        on_cuda = choose_device(device_name).type == "cuda"
    except UsageError as error:
        raise error if own.rank == 0 else RemoteError(error.exit_code) from None
    if PARENT_KEY in environment:
        _end_with(int(environment[PARENT_KEY]))
    # a collective that cannot end gives its process an error, and does not kill it
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")
    store = _join(own, "cpu:gloo,cuda:nccl" if on_cuda else "gloo")
    try:
        peers = Group(own.rank, own.size)
        # with GPUs of its own for each process (srun --gpus-per-task), each counts from 0
        everyone = peers.gather((socket.gethostname(), environment.get("CUDA_VISIBLE_DEVICES")))
        here = [rank for rank, (host, _) in enumerate(everyone) if host == everyone[own.rank][0]]
        # counted here, because SLURM sets no LOCAL_RANK
        local_rank = here.index(own.rank)
        index = local_rank if len({everyone[rank] for rank in here}) == 1 else 0
        group = Group(own.rank, own.size, local_rank, len(here), restart_count=own.restart_count, store=store)
        group.device = group.all_or_none(lambda: choose_device(f"cuda:{index}" if on_cuda else "cpu"))
        if on_cuda:
            torch.cuda.set_device(group.device)
        group.set_timeout(SETUP_TIMEOUT.total_seconds())
        yield group
    finally:
        distributed.destroy_process_group()
        # Gloo's threads stay. One that lets go of the last message's tensors only when the interpreter ends takes the
        # process down ("terminate called without an active exception").
        time.sleep(QUIET_SECONDS)


def _join(rank: Rank, backend: str) -> Store:
    """Initialize PyTorch's process group; returns the store that all restarts share."""
    from torch._C._distributed_c10d import PrefixStore, TCPStore  # which some builds of PyTorch lack

    hosts = rank.rank == 0 and not rank.is_hosted
    try:
        store = TCPStore(rank.address, rank.port, rank.size, hosts, timeout=JOIN_TIMEOUT)
        # a prefix for each restart: torchrun's store still holds the addresses of the processes before it
        prefixed = PrefixStore(f"attempt {rank.restart_count}", store)
        distributed.init_process_group(
            backend, store=prefixed, rank=rank.rank, world_size=rank.size, timeout=JOIN_TIMEOUT
        )
    except RuntimeError as error:
        where = f"{rank.address}:{rank.port}"
        raise ProcessDied(f"the processes of this training cannot connect at {where}: {reason_of(error)}") from error
    return PrefixStore("all attempts", store)


def _end_with(parent: int) -> None:
    """On Linux, request SIGTERM for this process when its parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)
