"""The torch engine: one step of a dense network per sample, of any kind of model, on any device, in batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import torch_threads
from wavegen.model.network import Network
from wavegen.model.truncation import Truncation
from wavegen.sampling.engines.engine import ClassArray, not_finite
from wavegen.sampling.engines.steps import Steps, steps_of

Draw = Callable[[Tensor, Tensor, Truncation], Tensor]

# Streams run in groups of a fixed width, the last one padded: a matrix product's rounding depends on its shape, and
# a clip's audio must not depend on how many are made beside it. Eight cost a CPU little more than one.
GROUP_WIDTH = {"cpu": 8, "cuda": 32}


class TorchQueueEngine:
    """Implements ``Engine`` with preallocated buffers.

    Args:
        model: on the device to run on; in float32 or float64.
        capture: replay the step as a CUDA graph; None does so on CUDA.
    """

    def __init__(self, model: Network, capture: bool | None = None) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.steps_of = steps_of(self.model)
        self.capture = self.device.type == "cuda" if capture is None else capture
        self.groups: list[_Group] = []
        self.n_streams = 0

    @property
    def receptive_field(self) -> int:
        return self.model.receptive_field

    def padding(self, silence: int) -> int:
        return self.model.padding(silence)

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        width = GROUP_WIDTH.get(self.device.type, 8)
        self.n_streams = len(past)
        newest = past if self.model.has_memory else past[:, -self.receptive_field :]
        padded = torch.from_numpy(np.pad(newest, ((0, -len(past) % width), (0, 0)), mode="edge")).to(self.device)
        seen = [] if conditions is None else [*conditions, *[conditions[-1]] * (len(padded) - len(past))]
        self.groups = [
            _Group(
                self.steps_of(rows, seen[i * width : (i + 1) * width]),
                rows[:, -1],
                self.model.distribution.draw,
                self.capture,
            )
            for i, rows in enumerate(padded.chunk(len(padded) // width))
        ]

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        return self._gather([group.generate(u, truncation) for group, u in self._deal(uniforms)])

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._gather([group.force(rows) for group, rows in self._deal(classes)])
        return logits

    def _deal(self, rows: npt.NDArray[np.float64] | ClassArray) -> list[tuple[_Group, Tensor]]:
        """Give each group its rows, padded to its width."""
        width = GROUP_WIDTH.get(self.device.type, 8)
        padded = np.pad(rows, ((0, -len(rows) % width), (0, 0)), mode="edge")
        return list(zip(self.groups, torch.from_numpy(padded).to(self.device).chunk(len(self.groups)), strict=True))

    def _gather(self, parts: list[Tensor]) -> npt.NDArray:  # type: ignore[type-arg]
        return torch.cat(parts)[: self.n_streams].cpu().numpy()


class _Group:
    """Streams that run side by side, in buffers that never move: a step can be captured once and replayed.

    Args:
        steps: the network, a step at a time.
        last: (B,) the newest sample of each stream: known, but not yet fed.
        draw: the network's distribution's.
        capture: replay the step as a CUDA graph.
    """

    def __init__(self, steps: Steps, last: Tensor, draw: Draw, capture: bool) -> None:
        self.steps, self.draw, self.capture = steps, draw, capture
        self.last = last.clone()
        self.n_made = 0
        self.uniform = torch.zeros(len(last), dtype=torch.float64, device=last.device)
        self.finite = torch.ones((), dtype=torch.bool, device=last.device)
        self.graphs: dict[Truncation, torch.cuda.CUDAGraph] = {}

    def generate(self, uniforms: Tensor, truncation: Truncation) -> Tensor:
        advance = self._captured(truncation) if self.capture else partial(self._advance, truncation)
        drawn = []
        for u, _ in zip(uniforms.unbind(dim=1), self._conditions(uniforms.shape[1]), strict=True):
            self.uniform.copy_(u)
            advance()
            drawn.append(self.last.clone())
        if not bool(self.finite):  # looked at once a chunk, because a look waits for the device
            raise not_finite()
        return torch.stack(drawn, dim=1)

    def force(self, classes: Tensor) -> Tensor:
        logits = []
        for sample, _ in zip(classes.unbind(dim=1), self._conditions(classes.shape[1]), strict=True):
            logits.append(self.steps.step(self.last))
            self.last.copy_(sample)
        forced = torch.stack(logits, dim=1)
        if not bool(torch.isfinite(forced).all()):
            raise not_finite()
        return forced

    def _conditions(self, n: int) -> Iterator[None]:
        """Have each of the next samples conditioned before it is made."""
        first = self.n_made
        self.n_made += n
        return self.steps.conditioned(first, n)

    def _captured(self, truncation: Truncation) -> Callable[[], None]:
        """The step as a CUDA graph: its hundred kernels are launched as one."""
        if truncation not in self.graphs:
            # libraries set themselves up in their first calls, which a graph cannot hold; what these change is undone
            state = (*self.steps.state, self.last, self.finite)
            before = [tensor.clone() for tensor in state]
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._advance(truncation)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._advance(truncation)
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
            self.graphs[truncation] = graph
        return self.graphs[truncation].replay

    def _advance(self, truncation: Truncation) -> None:
        """Draw the next sample of every stream."""
        logits = self.steps.step(self.last)
        self.finite.logical_and_(torch.isfinite(logits).all())
        self.last.copy_(self.draw(logits, self.uniform, truncation))
