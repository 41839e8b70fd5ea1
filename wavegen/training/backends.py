"""The ways to compute a step's loss and gradients; they give the same numbers but for rounding.

    L = (1 / N) sum over real targets of -ln p(x[t] | x[<t])        N: the real targets of the whole batch, all ranks

Because N does not depend on who computes a term, a batch may be cut into slices whose gradients are added (gradient
accumulation), and slices may go to other ranks: the sum is the same. They are added in order, so that its rounding is
the same too, with any number of threads.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from wavegen.audio.frames import DeviceFrames, MelSpectrogram
from wavegen.config import Config
from wavegen.data.conditioning import build_conditioner
from wavegen.data.windows import Batch
from wavegen.device import keep_freed_memory, one_thread_each, torch_threads, upload
from wavegen.errors import TrainingError
from wavegen.model.fused_stack import FusedStack
from wavegen.model.layers import Condition, Dropped
from wavegen.model.network import Network
from wavegen.model.wavenet import HEAD_ROWS, WaveNet
from wavegen.training.compute import AUTOCAST, Compute
from wavegen.training.process_group import ALONE, Group

# float16's smallest normal number is 6e-5: gradients are computed of the loss times a scale, which grows until they
# overflow (Micikevicius et al., 2018, "Mixed Precision Training", section 3.2)
FIRST_LOSS_SCALE, SCALE_GROWTH, SCALE_BACKOFF, SCALE_INTERVAL = 2.0**14, 2.0, 0.5, 1000
LEVELS = 1 << 16  # of a draw, 2 bytes: the rate is met to within 1/131,072

# Of b windows: inputs (b, context + T), targets (b, T), is_real (b, T), and their condition.
Slice = tuple[Tensor, Tensor, Tensor, Condition | None]


class Backend(Protocol):
    """A way to compute the gradients of one model."""

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float | Tensor, list[Tensor]]:
        """Differentiate the loss of a batch.

        Args:
            batch: this process's windows of it, one at least.
            n_targets: what the sum of the losses is divided by: the real targets of the whole batch.

        Returns:
            L in nats, of the whole batch, on the model's device or as a number, and its gradient for each of
            ``model.parameters()``, in their order.

        Raises:
            ProcessDied: another process does not respond.
        """


def build_backend(config: Config, compute: Compute, model: Network, group: Group = ALONE) -> Backend:
    """Build the backend of a plan, for a model on its device.

    Args:
        config: of the model.
        compute: of all processes together.
        model: whose gradients are taken.
        group: the processes that share each step.
    """
    own, recompute = compute.share(group.size), config.training.activation_checkpointing
    if compute.backend == "fused":
        return FusedBackend(cast(WaveNet, model), own.precision, own.accumulation, recompute, own.threads, group)
    if compute.side_by_side:
        return RecurrentBackend(model, own.precision, own.accumulation, own.threads, group)
    dropout = Dropout(config.training.seed, config.model.dropout) if config.model.dropout else None
    # on a GPU mel frames are computed there, of windows of samples; the host only gathers these
    device, mel = next(model.parameters()).device, build_conditioner(config).frames
    frames = DeviceFrames(mel, device) if isinstance(mel, MelSpectrogram) and device.type != "cpu" else None
    is_compiled = compute.backend == "compile"
    return TorchBackend(model, own.precision, own.accumulation, recompute, is_compiled, group, dropout, frames)


class TorchBackend:
    """A model as it is written, differentiated by autograd, on any device.

    Args:
        model: whose gradients are taken.
        precision: of the matrix products.
        slices: parts in which a batch is worked through.
        recompute: activation checkpointing.
        compiled: through ``torch.compile``.
        group: the processes that share each batch; their gradients are added up in one message.
        dropout: what is left out of each window; None for nothing.
        frames: computes mel frames on the device; None where they are in the batch.
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
        frames: DeviceFrames | None = None,
    ) -> None:
        self.model, self.slices, self.group, self.dropout, self.frames = model, slices, group, dropout, frames
        self.parameters = list(model.parameters())
        self.device = self.parameters[0].device
        self.precision = precision
        self.loss: nn.Module = _SummedLoss(model, precision, recompute)
        if compiled:
            self.loss.compile()
        self.scale = LossScale(self.device) if precision == "float16" else None

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float | Tensor, list[Tensor]]:
        return self.differentiate(self.upload(batch), n_targets)

    def upload(self, batch: Batch) -> list[tuple[Slice, Dropped | None]]:
        """Copy a batch to the device, slice by slice, each with what dropout leaves out of it."""
        # dropout is drawn by a window's number in the stream: slices leave out what the whole batch would
        parts, item = [], batch.first
        for part in slices_of(batch, self.slices):
            items, dropped = range(item, item + len(part[0])), None
            item = items.stop
            if self.dropout is not None:
                dropped = self.dropout.of_items(self.model, items, batch.inputs.shape[1], self.device)
            inputs, targets, is_real, condition = _moved(part, self.device)
            if self.frames is not None and condition is not None and condition.frames is not None:
                condition = condition._replace(frames=self.frames(condition.frames))
            parts.append(((inputs, targets, is_real, condition), dropped))
        return parts

    def differentiate(
        self, parts: Sequence[tuple[Slice, Dropped | None]], n_targets: int | Tensor
    ) -> tuple[float | Tensor, list[Tensor]]:
        """Differentiate the loss of slices that lie on the device; see ``Backend.gradients``."""
        nats, total = torch.zeros((), device=self.device), None
        with products_in(self.device, self.precision):
            # a slice's activations are freed by its own backward pass, before the next one's are made
            for part, dropped in parts:
                loss = self._loss(part, dropped) / n_targets  # divided by N of all slices and ranks: they add up to L
                scaled = loss if self.scale is None else loss * self.scale.scale[0]
                total = _add(total, torch.autograd.grad(scaled, self.parameters))
                nats = nats + loss.detach()
        assert total is not None  # there is at least one slice
        if self.scale is not None:
            self.scale.unscale(total)
        return self.group.all_reduce_gradients(nats, total)

    def _loss(self, part: Slice, dropped: Dropped | None) -> Tensor:
        try:
            loss: Tensor = self.loss(*part, dropped)
            return loss
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            problem = f"torch.compile cannot compile the model here ({reason}); choose auto, fused or torch"
            raise TrainingError(f"training.backend: {problem}") from error


class _SummedLoss(nn.Module):
    """A model with its loss, as one module, which is what ``torch.compile`` takes."""

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
        """Return the sum of the losses of some windows' real targets, in nats."""
        options = {}
        if self.recompute or dropped is not None:
            options = {"stack": partial(cast(WaveNet, self.model).stack, recompute=self.recompute, dropped=dropped)}
        with autocast(inputs.device, self.precision):
            parameters = self.model(inputs, condition, **options)  # (b, T, P), P numbers of each distribution
        # the loss in float32, outside of autocast; `where` and not a product: 0 * inf would be nan
        return torch.where(is_real, self.model.distribution.loss(parameters, targets), 0.0).sum()


class LossScale:
    """The factor of the loss with which float16 gradients neither vanish nor overflow; it lies on the device.

    Args:
        device: of the gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((1,), FIRST_LOSS_SCALE, device=device)
        self.steps_since_change = torch.zeros(1, dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the scale, in place, and adapt it: halved after an overflow, doubled after a while."""
        overflow = torch.zeros_like(self.scale)
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), overflow, self.scale.reciprocal())
        torch._amp_update_scale_(
            self.scale, self.steps_since_change, overflow, SCALE_GROWTH, SCALE_BACKOFF, SCALE_INTERVAL
        )


@dataclass(frozen=True)
class Dropout:
    """The masks of each window: a pure function of (seed, item), so that slices, ranks and resuming change nothing.

        z <- z mask / (1 - rate),   mask ~ Bernoulli(1 - rate)        for each step and channel of each block's output z

    Args:
        seed: of the training.
        rate: the share of zeros.
    """

    seed: int
    rate: float

    def of_items(self, model: Network, items: Sequence[int], n_steps: int, device: torch.device) -> Dropped:
        """Draw the masks of some windows.

        Args:
            model: whose blocks' outputs are masked.
            items: the windows' numbers in the training stream.
            n_steps: of each window's input.
            device: of the model.

        Returns:
            A mask for each block, in its output's time-major rows.
        """
        threshold = round(self.rate * LEVELS)
        scale = LEVELS / (LEVELS - threshold)
        if device.type != "cpu":
            return Dropped(self._drawn_by_torch(model.dropout_shapes(n_steps), items, threshold, device), scale)
        masks = [np.empty((n, len(items), channels), np.bool_) for n, channels in model.dropout_shapes(n_steps)]
        for column, item in enumerate(items):
            random = np.random.Generator(np.random.Philox(self._sequence(item)))
            for mask in masks:  # (steps, windows, channels), time-major as the blocks' rows
                draws = random.integers(LEVELS, size=(len(mask), mask.shape[2]), dtype=np.uint16)
                mask[:, column] = draws >= threshold
        # (steps, windows, channels) -> (steps windows, channels)
        kept = [torch.from_numpy(mask).flatten(0, 1).to(device, non_blocking=True) for mask in masks]
        return Dropped(kept, scale)

    def _sequence(self, item: int) -> np.random.SeedSequence:
        # (seed, item) as a spawn key: epochs are shuffled by (seed, number) without one, and shall not share draws
        return np.random.SeedSequence(self.seed, spawn_key=(item,))

    def _drawn_by_torch(
        self, shapes: Sequence[tuple[int, int]], items: Sequence[int], threshold: int, device: torch.device
    ) -> list[Tensor]:
        """Draw the masks on the device, where they are used: other masks than a CPU's, from the same seeds."""
        sizes = [steps * channels for steps, channels in shapes]
        generator, columns = torch.Generator(device), []
        for item in items:
            generator.manual_seed(int(self._sequence(item).generate_state(1, np.uint64)[0] >> np.uint64(1)))
            draws = torch.randint(LEVELS, (sum(sizes),), generator=generator, dtype=torch.int32, device=device)
            columns.append(torch.split(draws >= threshold, sizes))
        # of each item (steps channels,) -> (steps, items, channels) -> (steps items, channels)
        return [
            torch.stack([mask.view(steps, channels) for mask in masks], dim=1).flatten(0, 1)
            for (steps, channels), masks in zip(shapes, zip(*columns, strict=True), strict=True)
        ]


class SlicedBackend(ABC):
    """A backend that computes the slices of a batch side by side on a CPU, each on one thread from beginning to end.

    Threads that shared each product would wait for each other after every one; with slices they do so once a step.

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

    def gradients(self, batch: Batch, n_targets: int) -> tuple[float | Tensor, list[Tensor]]:
        parts = slices_of(batch, self.slices)
        with torch_threads(1):  # for each of ours
            work = deque(self.pool.submit(self.of_slice, part, n_targets) for part in parts)
            try:
                nats, total = work.popleft().result()
                while work:  # in the order of the batch, not of completion; each is freed once it is added
                    loss, gradients = work.popleft().result()
                    nats += loss
                    total = _add(total, gradients)
            finally:
                for one in work:
                    one.cancel()
                wait(work)  # after an error or Ctrl-C: no thread computes in these buffers any more
        return self.group.all_reduce_gradients(nats, total)

    @abstractmethod
    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        """Return the loss and the gradients of some windows; several threads call it at a time."""


class RecurrentBackend(SlicedBackend):
    """A network with recurrent layers differentiated by autograd, a slice on each thread.

    Its steps are too small to be shared: two threads that share each take twice as long as two with a slice each.
    """

    def __init__(self, model: Network, precision: str, slices: int, threads: int, group: Group = ALONE) -> None:
        super().__init__(precision, slices, threads, group)
        self.parameters = list(model.parameters())
        self.loss = _SummedLoss(model, precision, recompute=False)

    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        loss = self.loss(*part) / n_targets
        return float(loss.detach()), list(torch.autograd.grad(loss, self.parameters))


class FusedBackend(SlicedBackend):
    """A backend for WaveNets: the residual blocks as one operation in the core's cache, the head in stretches.

    Autograd sees three pieces joined by two tensors, so that each is differentiated in the way that suits it:

        h    = embed(x), g = V c           autograd
        skip = blocks(h, g)                ``wavegen.model.fused_stack``: its own backward pass
        L    = loss(head(skip))            autograd, ``HEAD_ROWS`` targets at a time

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
        self.workspaces = threading.local()  # each thread's stacks: allocated once, as large as the activations
        keep_freed_memory()

    def of_slice(self, part: Slice, n_targets: int) -> tuple[float, list[Tensor]]:
        model = self.model
        inputs, targets, is_real, condition = part
        size = len(inputs)
        stacks: dict[int, FusedStack] = vars(self.workspaces).setdefault("stacks", {})  # by number of windows
        if size not in stacks:
            stacks[size] = FusedStack(model.residual_blocks, model.skip, self.dtype, self.recompute)
        with autocast(inputs.device, self.precision):
            # Phase 1, blocks: (b, context + T) classes -> (T b, S) summed skips, time-major: row t b + i is target t of
            # window i
            skip = stacks[size](model.embed(inputs), size, model.gate_bias(condition))
            # Phase 2, head: L and dL/dskip, (T b, S); targets (b, T) -> (T b,) in the same order
            nats, dskip, dhead = self._head(skip.detach(), targets.t().reshape(-1), is_real.t().reshape(-1), n_targets)
        # Phase 3, back through the blocks: dL/dw = (dskip/dw)^T dL/dskip for all that lies below the skips
        # the head's parameters are not among them: `_head` has their gradients
        modules = [model.input, *model.blocks, model.skip, *([model.conditioning] if model.conditioning else [])]
        below = [parameter for module in modules for parameter in module.parameters()]
        gradients = dict(zip(below, torch.autograd.grad(skip, below, dskip), strict=True)) | dhead
        return nats, [gradients[parameter] for parameter in model.parameters()]  # in the order of `Backend`

    def _head(
        self, skip: Tensor, targets: Tensor, is_real: Tensor, n_targets: int
    ) -> tuple[float, Tensor, dict[nn.Parameter, Tensor]]:
        """Differentiate the head and the loss, stretch by stretch: all logits at once would not fit the cache.

        Args:
            skip: (T b, S) summed skips.
            targets: (T b,) classes.
            is_real: (T b,) bool.
            n_targets: N.

        Returns:
            L of these targets, dL/dskip, and the gradients of the head's parameters.
        """
        parameters = [*self.model.head.parameters(), *self.model.output.parameters()]
        dskip, nats, total = torch.empty_like(skip), 0.0, None
        for first in range(0, len(skip), HEAD_ROWS):
            rows = slice(first, first + HEAD_ROWS)
            here = skip[rows].requires_grad_()  # (R, S), R = HEAD_ROWS or what is left
            losses = self.model.distribution.loss(self.model.predict(here), targets[rows])  # (R,)
            loss = torch.where(is_real[rows], losses, 0.0).sum() / n_targets
            dskip[rows], *gradients = torch.autograd.grad(loss, [here, *parameters])
            total = _add(total, gradients)
            nats += float(loss.detach())
        assert total is not None  # there is at least one target
        return nats, dskip, dict(zip(parameters, total, strict=True))


def slices_of(batch: Batch, n: int) -> list[Slice]:
    """Cut a batch into at most n slices, along its windows, whose sizes differ by one at most."""
    # (B, ...) -> n parts (b, ...); the tables of labels and frames are cut with the windows that look into them
    whole = (batch.inputs, batch.targets, batch.is_real, *(batch.condition or (None, None, None)))
    n = min(n, len(batch.inputs))
    # views: a batch is not copied on a CPU
    parts = [[None] * n if array is None else torch.tensor_split(torch.from_numpy(array), n) for array in whole]
    return [
        (inputs, targets, is_real, None if row_of is None else Condition(labels, frames, row_of))
        for inputs, targets, is_real, labels, frames, row_of in zip(*parts, strict=True)
    ]


def _moved(part: Slice, device: torch.device) -> Slice:
    """Copy a slice to a device."""
    *tensors, condition = part
    if condition is not None:
        condition = Condition(*(None if tensor is None else upload(tensor, device) for tensor in condition))  # type: ignore[arg-type]
    inputs, targets, is_real = (upload(tensor, device) for tensor in tensors)
    return inputs, targets, is_real, condition


@contextmanager
def products_in(device: torch.device, precision: str) -> Iterator[None]:
    """Compute float32 matrix products, forward and backward, with ten bits of mantissa (TF32) if that is wanted."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    # ieee: all 24 bits of mantissa; the setting is the process's, so it is put back
    before, products.fp32_precision = products.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


def autocast(device: torch.device, precision: str) -> torch.autocast | nullcontext[None]:
    """Return the context in which matrix products run in the precision."""
    return torch.autocast(device.type, AUTOCAST[precision]) if precision in AUTOCAST else nullcontext()


def _add(total: list[Tensor] | None, gradients: Sequence[Tensor]) -> list[Tensor]:
    if total is None:
        return list(gradients)
    # in place, all parameters in one call; the first slice's gradients become the sum
    torch._foreach_add_(total, list(gradients))
    return total
