"""The ways to compute a step's loss and gradients; they give the same numbers but for rounding.

A batch is worked through in slices, whose gradients are added in order: gradient accumulation. Slicing changes
nothing, because the loss is a sum over targets divided by their number in the whole batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, Protocol, cast

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wavegen.config import Config
from wavegen.data.windows import Batch
from wavegen.device import keep_freed_memory, one_thread_each, torch_threads
from wavegen.errors import TrainingError
from wavegen.model.conditioning import Condition
from wavegen.model.fused.stack import FusedStack
from wavegen.model.layers import Dropped
from wavegen.model.network import Network
from wavegen.model.wavenet import HEAD_ROWS, WaveNet
from wavegen.training.distributed import ALONE, Group, explain_distributed_errors
from wavegen.training.dropout import Dropout
from wavegen.training.settling import runs_in_slices

Slice = tuple[Tensor, Tensor, Tensor, Condition | None]  # inputs, targets, is_real, condition of some windows


class Backend(Protocol):
    """Computes gradients of one model."""

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float, list[Tensor]]:
        """Differentiate the loss of a batch.

        Args:
            batch: this process's windows of it, one at least.
            n_targets: what the sum of the losses is divided by: the real targets of the whole batch.

        Returns:
            The negative log-likelihood in nats, summed over the whole batch's real targets and divided by
            ``n_targets``; and its gradient for each of ``model.parameters()``.

        Raises:
            ProcessDied: another process does not respond.
        """


def build_backend(config: Config, model: Network, group: Group = ALONE) -> Backend:
    """The backend that a frozen configuration names, for a model on its device."""
    settings = config.training
    slices, recompute = -(-int(settings.accumulation) // group.size), settings.activation_checkpointing
    if settings.backend == "fused":
        return FusedBackend(cast(WaveNet, model), settings.precision, slices, recompute, int(settings.threads), group)
    if runs_in_slices(config, next(model.parameters()).device):
        return RecurrentBackend(model, settings.precision, slices, int(settings.threads), group)
    dropout = Dropout(settings.seed, config.model.dropout) if config.model.dropout else None
    return TorchBackend(model, settings.precision, slices, recompute, settings.backend == "compile", group, dropout)


class TorchBackend:
    """The model as it is written, differentiated by autograd, on any device.

    Args:
        model: whose gradients are taken.
        precision: of the matrix products, float32 or bfloat16.
        slices: parts in which a batch is worked through.
        recompute: activation checkpointing.
        compiled: through ``torch.compile``.
        group: the processes that share each batch, by DistributedDataParallel.
        dropout: what is left out of each window; None for nothing.
    """

    def __init__(
        self,
        model: Network,
        precision: str,
        slices: int,
        recompute: bool,
        compiled: bool = False,
        group: Group = ALONE,
        dropout: Dropout | None = None,
    ) -> None:
        self.model, self.slices, self.group, self.dropout = model, slices, group, dropout
        self.loss: nn.Module = _SummedLoss(model, precision, recompute)
        if compiled:
            self.loss.compile()
        if group.size > 1:
            # Looking for unused parameters keeps it from ordering its messages anew after the first step: sums of three
            # and more would then be rounded differently after a resume. Where there are none it warns about that, in
            # C++: so there is one, outside of the model.
            self.loss.register_parameter("unused", nn.Parameter(next(model.parameters()).new_zeros(1)))
            self.loss = DistributedDataParallel(self.loss, process_group=group.channel, find_unused_parameters=True)

    def _loss(self, part: Slice, dropped: Dropped | None) -> Tensor:
        try:
            loss: Tensor = self.loss(*part, dropped)
            return loss
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(
                f"training.backend: torch.compile cannot compile the model here ({reason}); choose auto, fused or torch"
            ) from error

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float, list[Tensor]]:
        """See ``Backend``."""
        device = next(self.model.parameters()).device
        self.model.zero_grad(set_to_none=True)
        nats, item = 0.0, batch.first
        *parts, last = slices_of(batch, self.slices)
        for part in (*parts, last):
            items, n_steps, dropped = range(item, item + len(part[0])), batch.inputs.shape[1], None
            if self.dropout is not None:
                dropped = self.dropout.of_items(self.model, items, n_steps, device)
            item = items.stop
            with self._talking(part is last):
                loss = self._loss(_moved(part, device), dropped) / n_targets
                (loss * self.group.size).backward()  # type: ignore[no-untyped-call]  # DDP divides by the size
            nats += float(loss.detach())
        return self.group.all_reduce_sum(nats), [p.grad for p in self.model.parameters() if p.grad is not None]

    @contextmanager
    def _talking(self, wanted: bool) -> Iterator[None]:
        """Add up the processes' gradients in this backward pass, or not yet."""
        if not isinstance(self.loss, DistributedDataParallel):
            yield
        elif not wanted:
            with self.loss.no_sync():
                yield
        else:
            with explain_distributed_errors():
                yield


class _SummedLoss(nn.Module):
    """A model with its loss, as one module that DistributedDataParallel and ``torch.compile`` can take hold of."""

    def __init__(self, model: Network, precision: str, recompute: bool) -> None:
        super().__init__()
        self.model, self.precision, self.recompute = model, precision, recompute

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        is_real: Tensor,
        condition: Condition | None,
        dropped: Dropped | None = None,
    ) -> Tensor:
        """The sum of the losses of some windows' real targets."""
        options = {"recompute": self.recompute, "dropped": dropped} if self.recompute or dropped is not None else {}
        with autocast(inputs.device, self.precision):
            parameters = self.model(inputs, condition, **options)
        return torch.where(is_real, self.model.distribution.loss(parameters, targets), 0.0).sum()


class SlicedBackend(ABC):
    """The slices of a batch side by side on a CPU, each computed by one thread from beginning to end.

    Slices are added in order: the result does not depend on the number of threads.

    Args:
        precision: of the matrix products, float32 or bfloat16.
        slices: parts in which a batch is worked through.
        threads: slices that are computed at a time.
        group: the processes that share each batch; their gradients are added up in one message.
    """

    def __init__(self, precision: str, slices: int, threads: int, group: Group) -> None:
        self.precision, self.slices, self.group = precision, slices, group
        self.threads = min(threads, slices)
        self.pool = one_thread_each(self.threads, "gradients")

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float, list[Tensor]]:
        """See ``Backend``."""
        parts = slices_of(batch, self.slices)
        with torch_threads(1):  # for each of ours
            work = deque(self.pool.submit(self.of_slice, part, n_targets) for part in parts)
            try:
                nats, total = work.popleft().result()
                while work:  # in order, each let go of as soon as it is added
                    loss, gradients = work.popleft().result()
                    nats += loss
                    total = _add(total, gradients)
            finally:
                for one in work:
                    one.cancel()
                wait(work)  # after an error or Ctrl-C: nobody computes in these buffers any more
        return self.group.all_reduce_gradients(nats, total)

    @abstractmethod
    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        """The loss and the gradients of some windows; called by several threads at a time."""


class RecurrentBackend(SlicedBackend):
    """A network with recurrent layers differentiated by autograd, a slice on each thread.

    Its steps are too small to be shared: two threads that share each take twice as long as two with a slice each.
    """

    def __init__(self, model: Network, precision: str, slices: int, threads: int, group: Group = ALONE) -> None:
        super().__init__(precision, slices, threads, group)
        self.parameters = list(model.parameters())
        self.loss = _SummedLoss(model, precision, recompute=False)

    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        """See ``SlicedBackend``."""
        loss = self.loss(*part) / n_targets
        return float(loss.detach()), list(torch.autograd.grad(loss, self.parameters))


class FusedBackend(SlicedBackend):
    """The residual blocks as one operation in the core's cache, the head in stretches.

    Args:
        model: on the CPU.
        precision: of the matrix products, float32 or bfloat16.
        slices: parts in which a batch is worked through.
        recompute: activation checkpointing.
        threads: slices that are computed at a time.
        group: the processes that share each batch; their gradients are added up in one message.
    """

    def __init__(
        self, model: WaveNet, precision: str, slices: int, recompute: bool, threads: int, group: Group = ALONE
    ) -> None:
        super().__init__(precision, slices, threads, group)
        self.model, self.recompute = model, recompute
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.stacks: SimpleQueue[dict[int, FusedStack]] = SimpleQueue()  # each thread's workspaces, by windows
        for _ in range(self.threads):
            self.stacks.put({})
        keep_freed_memory()

    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        """See ``SlicedBackend``."""
        stacks = self.stacks.get()
        try:
            return self._slice(stacks, part, n_targets)
        finally:
            self.stacks.put(stacks)

    def _slice(self, stacks: dict[int, FusedStack], part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        model = self.model
        inputs, targets, is_real, condition = part
        size = len(inputs)
        if size not in stacks:
            stacks[size] = FusedStack(model.residual_blocks, model.skip, self.dtype, self.recompute)
        with autocast(inputs.device, self.precision):
            skip = stacks[size](model.embed(inputs), size, model.gate_rows(condition))
            nats, dskip, dhead = self._head(skip.detach(), targets.t().reshape(-1), is_real.t().reshape(-1), n_targets)
        modules = [model.input, *model.blocks, model.skip, *([model.conditioning] if model.conditioning else [])]
        below = [parameter for module in modules for parameter in module.parameters()]
        gradients = dict(zip(below, torch.autograd.grad(skip, below, dskip), strict=True)) | dhead
        return nats, [gradients[parameter] for parameter in model.parameters()]

    def _head(
        self, skip: Tensor, targets: Tensor, is_real: Tensor, n_targets: int
    ) -> tuple[float, Tensor, dict[nn.Parameter, Tensor]]:
        """The loss, and its gradients with respect to the summed skips and the head's parameters."""
        parameters = [*self.model.head.parameters(), *self.model.output.parameters()]
        dskip, nats, total = torch.empty_like(skip), 0.0, None
        for first in range(0, len(skip), HEAD_ROWS):
            rows = slice(first, first + HEAD_ROWS)
            here = skip[rows].requires_grad_()
            losses = self.model.distribution.loss(self.model.predict(here), targets[rows])
            loss = torch.where(is_real[rows], losses, 0.0).sum() / n_targets
            dskip[rows], *gradients = torch.autograd.grad(loss, [here, *parameters])
            total = _add(total, gradients)
            nats += float(loss.detach())
        assert total is not None  # there is at least one target
        return nats, dskip, dict(zip(parameters, total, strict=True))


def slices_of(batch: Batch, n: int) -> list[Slice]:
    """Cut a batch into at most n parts of (nearly) equal size."""
    whole = (batch.inputs, batch.targets, batch.is_real, *(batch.condition or (None, None, None)))
    parts = [_split(array, min(n, len(batch.inputs))) for array in whole]
    return [
        (inputs, targets, is_real, None if row_of is None else Condition(labels, frames, row_of))
        for inputs, targets, is_real, labels, frames, row_of in zip(*parts, strict=True)
    ]


def _split(array: npt.NDArray[Any] | None, n: int) -> Sequence[Any]:
    return [None] * n if array is None else torch.tensor_split(torch.from_numpy(array), n)


def _moved(part: Slice, device: torch.device) -> Slice:
    """A slice on a device."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    inputs, targets, is_real, condition = part
    if condition is not None:
        condition = Condition(*(None if tensor is None else move(tensor) for tensor in condition))  # type: ignore[arg-type]
    return move(inputs), move(targets), move(is_real), condition


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext[None]:
    """Where matrix products run in the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _add(total: list[Tensor] | None, gradients: Sequence[Tensor]) -> list[Tensor]:
    if total is None:
        return list(gradients)
    torch._foreach_add_(total, list(gradients))
    return total
