"""The processes of one training: how they agree, and add up their gradients.

They are numbered: the rank. Each works on its share of every batch. Rank 0 is the one that speaks and writes.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from wavegen.errors import TrainingError, UsageError, WavegenError
from wavegen.training.memory import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch._C._distributed_c10d import Store
    from torch.distributed import ProcessGroup

    from wavegen.training.run_folder import RunFolder

T = TypeVar("T")

BEGUN = "begun"  # in the store


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
def losses_explained() -> Iterator[None]:
    """Turn what PyTorch says of a process that is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise LostProcess(f"another process of this training is gone or does not answer: {reason_of(error)}") from error


def reason_of(error: RuntimeError) -> str:
    """What PyTorch says, without the place in its source code and its guesses."""
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return re.sub(r"^\[[^]]*\]\s*", "", first).partition(". This is")[0][:200]
