"""The process group of one training: its processes join it, and share values, errors and gradients through it.

Each process has a rank, and works on its share of every batch. Rank 0, the main process, prints and writes files.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed

from wavegen.device import choose_device, is_out_of_memory
from wavegen.errors import ParameterError, TrainingError, UsageError, WavegenError
from wavegen.runs.run_folder import RunFolder
from wavegen.training.launch import PARENT_KEY, Rank, rank_from_environment

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

T = TypeVar("T")

CPU = torch.device("cpu")
STARTED_KEY = "begun"  # in the store
JOIN_TIMEOUT = timedelta(minutes=10)  # machines of a job do not start at once
SETUP_TIMEOUT = timedelta(days=1)  # while one process decodes the recordings of its machine, the others wait
QUIET_SECONDS = 0.2
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


class ProcessDied(TrainingError):  # noqa: N818 (it names what happened)
    """Another process of this training exited, or did not respond in time."""


class RemoteError(WavegenError):
    """Another process failed and prints the reason; this one exits without a message.

    Args:
        exit_code: of that process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


@dataclass
class Group:
    """All processes of a training, as one of them sees them; every method also works in a group of one.

    Args:
        rank: of this process.
        size: number of processes.
        local_rank: among those of its machine.
        local_size: number of processes on its machine.
        device: on which its model lies.
        restart_count: how often torchrun started the processes again.
        store: key-value store that all restarts can read, torchrun's or rank 0's.
        channel: PyTorch's own group, with a timeout.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = CPU
    restart_count: int = 0
    store: Store | None = None
    channel: distributed.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """True for rank 0, which prints and writes files."""
        return self.rank == 0

    def is_restart(self, run: RunFolder) -> bool:
        """Return whether torchrun restarted this training after a failure, and the run has a checkpoint to resume."""
        started = self.restart_count > 0 and self.store is not None and self.store.check([STARTED_KEY])
        # rank 0 decides for all: only it is sure to see the run folder
        return self.broadcast(started and bool(run.step_checkpoints()))

    def mark_started(self) -> None:
        """Note in the store that this job owns a run folder: after a restart by torchrun it may resume it."""
        if self.store is not None:
            self.store.set(STARTED_KEY, "yes")

    def share(self, n: int) -> range:
        """Return this process's part of n items in order; the parts' sizes differ by one at most."""
        # the first `more` ranks take one item more than the others
        each, more = divmod(n, self.size)
        first = self.rank * each + min(self.rank, more)
        return range(first, first + each + (self.rank < more))

    def gather(self, value: T) -> list[T]:
        """Return every rank's value, in the order of ranks (an all-gather).

        Raises:
            ProcessDied: a process does not respond.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with explain_distributed_errors():
            distributed.all_gather_object(values, value, group=self.channel)
        return values

    def broadcast(self, value: T) -> T:
        """Return rank 0's value; the other ranks' values are ignored.

        Raises:
            ProcessDied: a process does not respond.
        """
        if self.size == 1:
            return value
        values: list[Any] = [value if self.is_main else None]
        with explain_distributed_errors():
            distributed.broadcast_object_list(values, src=0, group=self.channel)
        return values[0]  # type: ignore[no-any-return]

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the largest of all ranks' values for each of some numbers, in one message.

        Raises:
            ProcessDied: a process does not respond.
        """
        if self.size == 1:
            return list(numbers)
        largest = torch.tensor(numbers)  # on the host: gloo carries it, whatever the gradients take
        with explain_distributed_errors():
            distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=self.channel)
        return [int(number) for number in largest]

    def all_reduce_gradients(
        self, loss: float | Tensor, gradients: list[Tensor]
    ) -> tuple[float | Tensor, list[Tensor]]:
        """Return the sums of all ranks' losses and gradients.

        Raises:
            ProcessDied: a process does not respond.
        """
        if self.size == 1:
            return loss, gradients
        # One message for all: [gradient 1, gradient 2, ..., loss]. Small messages cost their latency, not their bytes.
        first = gradients[0]
        last = torch.as_tensor(loss, dtype=first.dtype, device=first.device).reshape(1)
        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), last])
        with explain_distributed_errors():
            distributed.all_reduce(flat, group=self.channel)
        # sum over ranks of L_r and dL_r/dw: each was divided by the N of all, so the sums are L and dL/dw
        *parts, total = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1])
        return total[0], [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]

    def all_or_none(self, work: Callable[[], T]) -> T:
        """Run work that may fail on one rank only: then all ranks raise, and the lowest that failed prints why.

        Raises:
            WavegenError: what the work raised here, or ``RemoteError``.
            ProcessDied: a process does not respond.
        """
        if self.size == 1:
            return work()
        error: WavegenError | None = None
        try:
            result = work()
        except WavegenError as caught:
            error = caught
        # Every rank comes here, failed or not: one that left early would keep the others waiting until their timeout.
        codes = self.gather(None if error is None else error.exit_code)
        first = next((rank for rank, code in enumerate(codes) if code is not None), None)
        if first is None:
            return result
        if error is None or self.rank != first:
            raise RemoteError(codes[first] or 1)
        raise error

    def on_main(self, work: Callable[[], T]) -> T:
        """Run work on rank 0 alone and broadcast its result; if it fails, all ranks raise.

        Raises:
            WavegenError: what the work raised, on rank 0; ``RemoteError`` on the others.
            ProcessDied: a process does not respond.
        """
        result = self.all_or_none(lambda: work() if self.is_main else None)
        return self.broadcast(result)  # type: ignore[return-value]  # rank 0 has one

    def first_on_each_machine(self, work: Callable[[], T]) -> T:
        """Run work as ``all_or_none``, on one process of each machine before the others, which then find its files."""
        # two rounds, and not a lock: the others of a machine wait at the first round's gather
        first = self.all_or_none(lambda: work() if self.local_rank == 0 else None)
        return self.all_or_none(lambda: work() if first is None else first)

    def check_same(self, what: str, value: str) -> None:
        """Make sure that all ranks have the same value.

        Raises:
            UsageError: one has another; names it.
        """
        # a digest: a manifest of many clips is megabytes, which every rank would send to every other
        digest = hashlib.sha256(value.encode()).hexdigest()
        everyone = self.gather((digest, socket.gethostname()))
        for rank, (other, host) in enumerate(everyone):
            if other != everyone[0][0]:
                message = f"rank {rank} on {host} has other {what} than rank 0 on {everyone[0][1]}"
                raise UsageError(message) if self.is_main else RemoteError(UsageError.exit_code)

    def set_timeout(self, seconds: float) -> None:
        """Set the seconds without a response after which a process is considered dead."""
        if self.size == 1:
            return
        # the timeout of a group is set when it is made: a second group over the same processes
        with explain_distributed_errors():
            channel = distributed.new_group(timeout=timedelta(seconds=seconds))
        assert isinstance(channel, distributed.ProcessGroup)  # this process is in it
        self.channel = channel


ALONE = Group()


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


@contextmanager
def explain_distributed_errors() -> Iterator[None]:
    """Turn PyTorch's message about a dead process into one line."""
    try:
        yield
    except RuntimeError as error:
        # a device reports its own errors late, perhaps here
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        raise ProcessDied(f"another process of this training died or does not respond: {reason_of(error)}") from error


def reason_of(error: RuntimeError) -> str:
    """Return PyTorch's reason, without its source location and its guesses."""
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return re.sub(r"^\[[^]]*\]\s*", "", first).partition(". This is")[0][:200]
