"""The engines in torch: a step over queues, and the naive forward pass that obviously is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import on_device, torch_threads
from wavegen.model.layers import Condition
from wavegen.model.network import Network
from wavegen.model.outputs import ClassArray, Truncation, not_finite
from wavegen.sampling.engines.conditioning_rows import PrecomputedRows

# Streams run in groups of a fixed width, the last one padded: a matrix product's rounding depends on its shape, and
# a clip's audio must not depend on the number of clips. Eight cost a CPU little more than one.
GROUP_WIDTH = {"cpu": 8, "cuda": 32}


class NetworkEngine:
    """The part that the engines in torch share: the network, and the past that it needs."""

    def __init__(self, model: Network) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device

    @property
    def receptive_field(self) -> int:
        return self.model.receptive_field

    def padding(self, silence: int) -> int:
        return self.model.padding(silence)

    def _newest(self, past: ClassArray) -> ClassArray:
        """Return the part of the past that the network sees."""
        return past if self.model.has_memory else past[:, -self.receptive_field :]


class TorchQueueEngine(NetworkEngine):
    """Implements ``Engine`` with preallocated buffers.

    Args:
        model: on the device to run on; in float32 or float64.
        capture: replay the step as a CUDA graph; None does so on CUDA.
    """

    def __init__(self, model: Network, capture: bool | None = None) -> None:
        super().__init__(model)
        self.width = GROUP_WIDTH.get(self.device.type, 8)
        self.capture = self.device.type == "cuda" if capture is None else capture
        self.groups: list[_Group] = []
        self.n_streams = 0

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        self.n_streams = len(past)
        padded = self._padded(self._newest(past))  # (groups * width, T)
        seen = [] if conditions is None else [*conditions, *[conditions[-1]] * (len(padded) - len(past))]
        with on_device(self.device):
            self.groups = [
                _Group(self.model, rows, seen[i * self.width : (i + 1) * self.width], self.capture)
                for i, rows in enumerate(torch.split(padded, self.width))
            ]

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        with on_device(self.device):  # on which the step is captured and replayed
            return self._merge_streams([group.generate(u, truncation) for group, u in self._split_streams(uniforms)])

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        with on_device(self.device):
            parts = [group.force(rows) for group, rows in self._split_streams(classes)]
            logits: npt.NDArray[np.float32] = self._merge_streams(parts)
        return logits

    def _padded(self, rows: npt.NDArray[np.float64] | ClassArray) -> Tensor:
        """Repeat the last stream until all groups are full."""
        return torch.from_numpy(np.pad(rows, ((0, -len(rows) % self.width), (0, 0)), mode="edge")).to(self.device)

    def _split_streams(self, rows: npt.NDArray[np.float64] | ClassArray) -> list[tuple[_Group, Tensor]]:
        """Give each group its rows, (width, n)."""
        return list(zip(self.groups, torch.split(self._padded(rows), self.width), strict=True))

    def _merge_streams(self, parts: list[Tensor]) -> npt.NDArray:  # type: ignore[type-arg]
        # (width, n) of each group -> (S, n), without the streams that fill the last group
        return torch.cat(parts)[: self.n_streams].cpu().numpy()


class _Group:
    """Streams that run side by side, in buffers that never move: a step can be captured once and replayed.

    Args:
        model: the network.
        past: (B, T) classes; the newest of them is known, but not yet fed.
        conditions: of each stream, counted from the first sample that is made; empty in a network without conditions.
        capture: replay the step as a CUDA graph.
    """

    def __init__(self, model: Network, past: Tensor, conditions: Sequence[ClipCondition], capture: bool) -> None:
        self.draw, self.capture = model.distribution.draw, capture
        self.ahead: PrecomputedRows | None = None
        before = None
        if conditions:
            # a step of the past at t predicts the sample at t + 1, so that the newest, -1, is not among them
            before = Condition.of([each.rows(2 - past.shape[1], 1) for each in conditions], past.device)
            self.ahead = PrecomputedRows(model.arrays(), conditions)
        self.step = model.queue_step(past, before)
        self.last = past[:, -1].clone()
        self.n_made = 0
        self.uniform = torch.zeros(len(past), dtype=torch.float64, device=past.device)
        self.finite = torch.ones((), dtype=torch.bool, device=past.device)
        self.graphs: dict[Truncation, torch.cuda.CUDAGraph] = {}

    def generate(self, uniforms: Tensor, truncation: Truncation) -> Tensor:
        advance = self._captured(truncation) if self.capture else partial(self._advance, truncation)
        drawn = []
        for u, _ in zip(uniforms.unbind(dim=1), self._conditioned(uniforms.shape[1]), strict=True):
            self.uniform.copy_(u)
            advance()
            drawn.append(self.last.clone())
        if not bool(self.finite):  # checked once per chunk, because the check waits for the device
            raise not_finite()
        # n of (B,) -> (B, n)
        return torch.stack(drawn, dim=1)

    def force(self, classes: Tensor) -> Tensor:
        logits = []
        for sample, _ in zip(classes.unbind(dim=1), self._conditioned(classes.shape[1]), strict=True):
            logits.append(self.step(self.last))
            self.last.copy_(sample)
        # n of (B, n_parameters) -> (B, n, n_parameters)
        forced = torch.stack(logits, dim=1)
        if not bool(torch.isfinite(forced).all()):
            raise not_finite()
        return forced

    def _conditioned(self, n: int) -> Iterator[None]:
        """Yield for each of the next n samples, after copying its gate bias into the step's buffer."""
        first = self.n_made
        self.n_made += n
        if self.ahead is None or self.step.gate_bias is None:
            yield from [None] * n
            return
        for piece in self.ahead.pieces(first, n):
            # (tables, R, blocks, outputs) -> (B, R, blocks, outputs): each stream's own table
            table = torch.from_numpy(piece.table[self.ahead.table_of]).to(self.step.gate_bias)
            for i, row in enumerate(piece.row_of):
                if i == 0 or row != piece.row_of[i - 1]:
                    self.step.gate_bias.copy_(table[:, row])
                yield

    def _captured(self, truncation: Truncation) -> Callable[[], None]:
        """Capture the step as a CUDA graph, so that its hundred kernels are launched as one."""
        if truncation not in self.graphs:
            # Libraries initialize in their first calls, which a graph cannot capture; the state is restored after.
            state = (*self.step.buffers, self.last, self.finite)
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
        logits = self.step(self.last)
        self.finite.logical_and_(torch.isfinite(logits).all())
        self.last.copy_(self.draw(logits, self.uniform, truncation))


# --- the reference -------------------------------------------------------------------------------------------------


class ReferenceEngine(NetworkEngine):
    """Implements ``Engine`` by the model's teacher-forced forward pass alone.

    Args:
        model: on the device to run on.
    """

    def __init__(self, model: Network) -> None:
        super().__init__(model)
        self.past = torch.empty(0, 0, dtype=torch.int64)
        self.conditions: Sequence[ClipCondition | None] = []
        self.n_made = 0

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        self.conditions, self.n_made = conditions or [None] * len(past), 0
        self.past = torch.from_numpy(self._newest(past).copy()).to(self.device)

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        numbers = torch.from_numpy(uniforms).to(self.device)
        drawn = [self._take(self.model.distribution.draw(self._logits(), u, truncation)) for u in numbers.unbind(dim=1)]
        return torch.stack(drawn, dim=1).cpu().numpy()

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        logits = []
        for sample in torch.from_numpy(classes).to(self.device).unbind(dim=1):
            logits.append(self._logits())
            self._take(sample)
        return torch.stack(logits, dim=1).cpu().numpy()

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        # one stream at a time: a product's rounding depends on its shape, a clip's audio must not
        streams = zip(self.past, self.conditions, strict=True)
        logits = torch.cat([self._one(stream, condition) for stream, condition in streams])
        if not bool(torch.isfinite(logits).all()):
            raise not_finite()
        return logits

    def _one(self, past: Tensor, condition: ClipCondition | None) -> Tensor:
        seen = None
        if condition is not None:
            # the rows that the steps of the receptive field see: step t predicts the sample after it
            rows = condition.rows(self.n_made - self.receptive_field + 1, self.n_made + 1)
            seen = Condition.of([rows], self.device)
        # (1, T - receptive_field + 1, n_parameters): the last position predicts the next sample
        logits: Tensor = self.model(past[None], condition=seen)[:, -1]
        return logits.float()

    def _take(self, sample: Tensor) -> Tensor:
        self.n_made += 1
        self.past = torch.cat([self.past[:, 0 if self.model.has_memory else 1 :], sample[:, None]], dim=1)
        return sample
