"""The processes of one training: how they find each other, agree, and add up their gradients.

They are started by torchrun, by SLURM's srun, or by ``wavegen train --devices``, and are numbered: the rank. Each
works on its share of every batch. Rank 0 is the one that speaks and writes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from wavegen.errors import TrainingError, UsageError, WavegenError
from wavegen.training.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

    from wavegen.training.run_folder import RunFolder

T = TypeVar("T")

JOIN_TIMEOUT = timedelta(minutes=10)  # machines of a job do not start at once
SETUP_TIMEOUT = timedelta(days=1)  # while one process decodes the recordings of its machine, the others wait
FIRST_PORT, N_PORTS = 20000, 12000  # for SLURM: below those that systems give to whoever asks
BEGUN = "begun"  # in the store
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


class LostProcess(TrainingError):  # noqa: N818 (it names what happened)
    """Another process of this training stopped, or was silent for too long."""


class ElsewhereError(WavegenError):
    """Another process failed, and says why; this one ends without a word.

    Args:
        exit_code: of that process.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


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


@dataclass
class Group:
    """All processes of a training, as one of them sees them. Alone, it needs nobody.

    Args:
        rank: of this process.
        size: number of processes.
        local_rank: among those of its machine.
        local_size: how many those are.
        device: where its model lies.
        attempt_number: how often torchrun started them again.
        store: what all attempts can read, torchrun's or rank 0's.
        channel: PyTorch's own group, with a timeout.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device | None = None
    attempt_number: int = 0
    store: Store | None = None
    channel: ProcessGroup | None = None

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    def restarts(self, run: RunFolder) -> bool:
        """Whether torchrun started this training again after a failure, and there is something to go on with."""
        begun = self.attempt_number > 0 and self.store is not None and self.store.check([BEGUN])
        return self.from_first(begun and bool(run.step_checkpoints()))

    def begin(self) -> None:
        """Note that this job has a run folder: after a restart by torchrun it is its own to go on with."""
        if self.store is not None:
            self.store.set(BEGUN, "yes")

    def share(self, n: int) -> range:
        """This process's part of n things in order, sizes differing by one at most."""
        each, more = divmod(n, self.size)
        first = self.rank * each + min(self.rank, more)
        return range(first, first + each + (self.rank < more))

    def gather(self, value: T) -> list[T]:
        """Everyone's value, in the order of ranks.

        Raises:
            LostProcess: one does not answer.
        """
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        with losses_explained():
            distributed.all_gather_object(values, value, group=self.channel)
        return values

    def from_first(self, value: T) -> T:
        """Rank 0's value; what the others give is not looked at.

        Raises:
            LostProcess: one does not answer.
        """
        if self.size == 1:
            return value
        from torch import distributed

        values: list[Any] = [value if self.speaks else None]
        with losses_explained():
            distributed.broadcast_object_list(values, src=0, group=self.channel)
        return values[0]  # type: ignore[no-any-return]

    def largest(self, number: int) -> int:
        """The largest of everyone's numbers.

        Raises:
            LostProcess: one does not answer.
        """
        if self.size == 1:
            return number
        import torch
        from torch import distributed

        whole = torch.tensor(number)
        with losses_explained():
            distributed.all_reduce(whole, distributed.ReduceOp.MAX, group=self.channel)
        return int(whole)

    def total(self, number: float) -> float:
        """The sum of everyone's numbers.

        Raises:
            LostProcess: one does not answer.
        """
        return sum(self.gather(number))

    def add_up(self, loss: float, gradients: list[Tensor]) -> tuple[float, list[Tensor]]:
        """The sums of everyone's losses and gradients, in one message.

        Raises:
            LostProcess: one does not answer.
        """
        if self.size == 1:
            return loss, gradients
        import torch
        from torch import distributed

        flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor([loss])])
        with losses_explained():
            distributed.all_reduce(flat, group=self.channel)
        *parts, total = torch.split(flat, [*(gradient.numel() for gradient in gradients), 1])
        return float(total), [part.view_as(gradient) for part, gradient in zip(parts, gradients, strict=True)]

    def attempt(self, work: Callable[[], T]) -> T:
        """Do something that may fail on one process: then all of them give up, and the lowest such rank says why.

        Raises:
            WavegenError: what the work raised here, or ``ElsewhereError``.
            LostProcess: one does not answer.
        """
        if self.size == 1:
            return work()
        error: WavegenError | None = None
        try:
            result = work()
        except WavegenError as caught:
            error = caught
        codes = self.gather(None if error is None else error.exit_code)
        first = next((rank for rank, code in enumerate(codes) if code is not None), None)
        if first is None:
            return result
        if error is None or self.rank != first:
            raise ElsewhereError(codes[first] or 1)
        raise error

    def first_on_each_machine(self, work: Callable[[], T]) -> T:
        """As ``attempt``, and on each machine one process goes before the others, who find its work done."""
        if self.local_size == self.size == 1:
            return work()
        first = self.attempt(lambda: work() if self.local_rank == 0 else None)
        return self.attempt(lambda: work() if first is None else first)

    def check_same(self, what: str, value: str) -> None:
        """Make sure that everyone has the same.

        Raises:
            UsageError: one has something else; says who.
        """
        digest = hashlib.sha256(value.encode()).hexdigest()
        everyone = self.gather((digest, socket.gethostname()))
        for rank, (other, host) in enumerate(everyone):
            if other != everyone[0][0]:
                message = f"rank {rank} on {host} has other {what} than rank 0 on {everyone[0][1]}"
                raise UsageError(message) if self.speaks else ElsewhereError(UsageError.exit_code)

    def silent_for_at_most(self, seconds: float) -> None:
        """From here on, a process that does not answer for so long is taken for lost."""
        if self.size == 1:
            return
        from torch import distributed

        with losses_explained():
            channel = distributed.new_group(timeout=timedelta(seconds=seconds))
        assert isinstance(channel, distributed.ProcessGroup)  # this process is in it
        self.channel = channel


ALONE = Group()


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
    from wavegen.device import choose_device

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
        raise LostProcess(f"the processes of this training cannot meet at {where}: {_reason(error)}") from error
    return PrefixStore("all attempts", store)


@contextmanager
def losses_explained() -> Iterator[None]:
    """Turn what PyTorch says of a process that is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise LostProcess(f"another process of this training is gone or does not answer: {_reason(error)}") from error


def _reason(error: RuntimeError) -> str:
    """What PyTorch says, without the place in its source code and its guesses."""
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return re.sub(r"^\[[^]]*\]\s*", "", first).partition(". This is")[0][:200]


def _end_with(parent: int) -> None:
    """On Linux, be sent SIGTERM when the process that started this one dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has died already
            os.kill(os.getpid(), signal.SIGTERM)
