"""A step of training: gradients, clipping, the optimizer's update and the running average; on CUDA as one graph.

Nothing here waits for the device. Whether a step counts is decided by arithmetic on the device itself, and its loss is
read when the next step has been launched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from wavegen.config import TrainingConfig
from wavegen.data.windows import Batch
from wavegen.device import is_out_of_memory, read_later, torch_threads, upload
from wavegen.model.network import Network
from wavegen.training.backends import Backend, TorchBackend
from wavegen.training.optimizer import Optimizer, update_ema

STEPS_BEFORE_CAPTURE = 3  # in which libraries initialize, and memory is laid out


class Launched(NamedTuple):
    """A step whose result is not read yet.

    Attributes:
        step: its number, from 1.
        read: waits for its loss, in nats, and the norm of its gradients.
        n_targets: of the whole batch.
        rate: its learning rate.
        began: when it was launched.
    """

    step: int
    read: Callable[[], list[float]]
    n_targets: int
    rate: float
    began: float


class Step:
    """A step of training.

    Args:
        model: to train.
        average: the running average of its weights.
        backend: computes its gradients.
        settings: of the optimizer, clipping and averaging.
    """

    def __init__(self, model: Network, average: Network, backend: Backend, settings: TrainingConfig) -> None:
        self.model, self.average, self.backend, self.settings = model, average, backend, settings
        self.optimizer = Optimizer(model, settings)
        self.device = next(model.parameters()).device
        self.updates = torch.zeros((), device=self.device)  # steps that counted

    def __call__(self, batch: Batch, n_targets: int, factor: float) -> Callable[[], list[float]]:
        """Make a step, which counts if its loss and gradients are finite.

        Args:
            batch: this process's windows of the batch.
            n_targets: the real targets of all of it.
            factor: of the learning rates.

        Returns:
            A function that waits for the step's loss, in nats, and the norm of its gradients.
        """
        loss, gradients = self.backend.gradients(batch, n_targets)
        # Muon's products are small: threads that share them on a machine with other work took 2.5 s a step where one
        # thread took 21 ms. Without other work one thread makes a step of `paper` 2% slower.
        with torch_threads(1):
            return read_later(self.update(loss, gradients, factor))

    @torch.no_grad()
    def update(self, loss: float | Tensor, gradients: Sequence[Tensor], factor: float | Tensor) -> Tensor:
        """Update weights and average from a loss and its gradients; return the loss and the gradients' norm, (2,)."""
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        # g <- g min(1, limit / |g|), over all parameters together
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or math.inf)
        result = torch.stack([torch.as_tensor(loss, dtype=norm.dtype, device=norm.device), norm])
        counts = result.isfinite().all()  # else the step is skipped: one nan in a moment would stay for good
        self.optimizer.step(factor, counts)
        # counted in updates, not in steps: a skipped step does not age the average
        self.updates += counts
        update_ema(self.average, self.model, self.settings.ema_decay, self.updates, counts)
        return result

    def restore(self, moments: Any, updates: int) -> None:
        """Restore the optimizer's moments and the number of updates."""
        self.optimizer.restore(moments, updates)
        self.updates.fill_(updates)  # in place: a captured graph counts in this very tensor


class GraphStep(Step):
    """A step that is captured as a CUDA graph after its first calls, and replayed: a thousand kernels, one launch.

    Shapes stay as they are from step to step, as the windows of a training do.

    Args:
        model, average, backend, settings: as ``Step``'s.
        notice: called with the reason if the step cannot be captured; then kernels are launched one by one.
    """

    backend: TorchBackend

    def __init__(
        self,
        model: Network,
        average: Network,
        backend: TorchBackend,
        settings: TrainingConfig,
        notice: Callable[[str], None],
    ) -> None:
        super().__init__(model, average, backend, settings)
        self.notice, self.n_calls = notice, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Any] = []  # that the graph reads; None and numbers stay among them
        self.result: Tensor | None = None  # that it writes

    def __call__(self, batch: Batch, n_targets: int, factor: float) -> Callable[[], list[float]]:
        """See ``Step``."""
        # as a tensor: plain numbers would be those of the captured step, in every replay
        numbers = upload(torch.tensor([n_targets, factor], dtype=torch.float32), self.device)
        given, structure = pytree.tree_flatten((self.backend.upload(batch), numbers))

        def step() -> Tensor:
            slices, (n, rate) = pytree.tree_unflatten(self.inputs, structure)
            return self.update(*self.backend.differentiate(slices, n), rate)

        self.n_calls += 1
        if self.n_calls == STEPS_BEFORE_CAPTURE + 1:
            self.inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in given]
            self._capture(step)
        if self.graph is None:
            self.inputs = given
            return read_later(step())
        # a graph reads the addresses that it was captured with: each batch is copied to them
        for buffer, leaf in zip(self.inputs, given, strict=True):
            if isinstance(buffer, Tensor):
                buffer.copy_(leaf)
        self.graph.replay()
        assert self.result is not None
        return read_later(self.result)

    def _capture(self, step: Callable[[], Tensor]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.result = step()
            self.graph = graph
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            self.notice(f"the step is not captured as a CUDA graph ({reason}): it takes longer")


def build_step(
    model: Network,
    average: Network,
    backend: Backend,
    settings: TrainingConfig,
    notice: Callable[[str], None],
    alone: bool = True,
) -> Step:
    """Build the step of a training: captured on CUDA, where nothing in it waits and no other process takes part."""
    # NAdam decides on the host whether a step counts, and an all-reduce waits for other processes: no graph has that
    device = next(model.parameters()).device
    if device.type == "cuda" and alone and settings.optimizer != "nadam" and isinstance(backend, TorchBackend):
        return GraphStep(model, average, backend, settings, notice)
    return Step(model, average, backend, settings)
