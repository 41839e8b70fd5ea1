"""The torch engine: cached queues, one step of a dense network per sample, on any device, in batch.

A block's convolution needs its own inputs of dilation, 2 dilation, ... steps ago. Each block keeps the last
``reach`` of them in a ring buffer, so that the cost of a sample does not depend on the receptive field
(Le Paine et al., 2016, "Fast Wavenet Generation Algorithm").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.audio.conditions import ClipCondition
from wavegen.device import torch_threads
from wavegen.model.conditioning import Condition
from wavegen.model.layers import ResidualBlock, activate
from wavegen.model.truncation import Truncation
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines.ahead import RowsAhead
from wavegen.sampling.engines.engine import ClassArray, not_finite

# Streams run in groups of a fixed width, the last one padded: a matrix product's rounding depends on its shape, and
# a clip's audio must not depend on how many are made beside it. Eight cost a CPU little more than one.
GROUP_WIDTH = {"cpu": 8, "cuda": 32}


class TorchQueueEngine:
    """Implements ``Engine`` with preallocated ring buffers.

    Args:
        model: on the device to run on; in float32 or float64.
        capture: replay the step as a CUDA graph; None does so on CUDA.
    """

    def __init__(self, model: WaveNet, capture: bool | None = None) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.blocks = [_DenseBlock(block) for block in model.blocks if isinstance(block, ResidualBlock)]
        self.capture = self.device.type == "cuda" if capture is None else capture
        self.groups: list[_Group] = []
        self.n_streams = 0

    @property
    def receptive_field(self) -> int:
        return self.model.receptive_field

    @torch.inference_mode()
    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        width = GROUP_WIDTH.get(self.device.type, 8)
        self.n_streams = len(past)
        padded = np.pad(past[:, -self.receptive_field :], ((0, -len(past) % width), (0, 0)), mode="edge")
        newest = torch.from_numpy(padded).to(self.device)
        seen = [] if conditions is None else [*conditions, *[conditions[-1]] * (len(padded) - len(past))]
        self.groups = [
            _Group(self.model, self.blocks, rows, seen[i * width : (i + 1) * width], self.capture)
            for i, rows in enumerate(newest.chunk(len(padded) // width))
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


class _DenseBlock:
    """A residual block as a dense layer: its weights, laid out for one step."""

    def __init__(self, block: ResidualBlock) -> None:
        conv = block.conv
        self.reach = conv.reach
        self.bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
        self.taps = [weight.t().contiguous() for weight in conv.weight.detach().unbind(dim=0)]
        # tap j reads (kernel_size - 1 - j) * dilation steps back: that many steps after the oldest held
        self.offsets = [tap * conv.dilation for tap in range(conv.kernel_size - 1)]
        self.residual = None if block.residual is None else block.residual.weight.detach().t().contiguous()


class _Group:
    """Streams that run side by side, in buffers that never move: a step can be captured once and replayed.

    Args:
        model: gives the input layer, the skip product and the head.
        blocks: the residual blocks as dense layers.
        past: (B, receptive_field) classes, the newest last.
        conditions: of each stream; empty in a network without conditions.
        capture: replay the step as a CUDA graph.
    """

    def __init__(
        self,
        model: WaveNet,
        blocks: list[_DenseBlock],
        past: Tensor,
        conditions: Sequence[ClipCondition],
        capture: bool,
    ) -> None:
        self.model, self.blocks, self.capture = model, blocks, capture
        device = past.device
        before = None
        self.ahead: RowsAhead | None = None
        self.added: list[Tensor] = []  # to each block's gates, in a buffer of all
        if conditions:
            silent = [condition.rows(2 - past.shape[1], 1) for condition in conditions]
            before = Condition.of(silent, device)
            weights = {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}
            self.ahead = RowsAhead(weights, conditions)
            self.all_added = model.skip.weight.new_zeros(len(past), len(blocks), blocks[0].bias.shape[0])
            self.added = list(self.all_added.unbind(dim=1))
        self.n_made = 0
        # (reach, B, residual) rings, oldest first
        self.queues = [held.clone() for held in model.queues(past[:, :-1], before)]
        self.last = past[:, -1].clone()  # known, but not yet fed: the next step's input
        self.uniform = torch.zeros(len(past), dtype=torch.float64, device=device)
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        # every block writes its z into its slice, and the sum of skips is one product
        self.z = self.queues[0].new_empty(len(past), model.skip.in_features)
        self.slices = self.z.chunk(len(blocks), dim=-1)
        # slot (steps + offset) mod reach, for all taps of all blocks at once; that of tap 0 is the oldest
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self.offsets = torch.tensor([block.offsets for block in blocks], device=device)  # (blocks, taps - 1)
        self.reaches = torch.tensor([[block.reach] for block in blocks], device=device)
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
            logits.append(self._step())
            self.last.copy_(sample)
        forced = torch.stack(logits, dim=1)
        if not bool(torch.isfinite(forced).all()):
            raise not_finite()
        return forced

    def _conditions(self, n: int) -> Iterator[None]:
        """Put what conditions add to each of the next samples where a step finds it."""
        if self.ahead is None:
            yield from [None] * n
            return
        for piece in self.ahead.pieces(self.n_made, n):
            table = torch.from_numpy(piece.table[self.ahead.table_of]).to(self.all_added)
            for i, row in enumerate(piece.row_of):
                if i == 0 or row != piece.row_of[i - 1]:
                    self.all_added.copy_(table[:, row])
                self.n_made += 1
                yield

    def _captured(self, truncation: Truncation) -> Callable[[], None]:
        """The step as a CUDA graph: its hundred kernels are launched as one."""
        if truncation not in self.graphs:
            # libraries set themselves up in their first calls, which a graph cannot hold; what these change is undone
            state = (*self.queues, self.last, self.finite, self.steps)
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
        logits = self._step()
        self.finite.logical_and_(torch.isfinite(logits).all())
        self.last.copy_(self.model.distribution.draw(logits, self.uniform, truncation))

    def _step(self) -> Tensor:
        """Feed the newest sample; the logits of the next one, (B, classes) float32."""
        model = self.model
        h = model.input(self.last)
        slots = (self.steps + self.offsets) % self.reaches
        for i, (block, queue, z, taps) in enumerate(zip(self.blocks, self.queues, self.slices, slots, strict=True)):
            gates = torch.addmm(block.bias, h, block.taps[-1])
            if self.added:
                gates += self.added[i]
            for slot, tap in zip(taps.chunk(len(taps)), block.taps, strict=False):
                gates.addmm_(queue.index_select(0, slot)[0], tap)
            queue.index_copy_(0, taps[:1], h[None])
            activate(gates, model.activation, out=z)
            if block.residual is not None:
                h = torch.addmm(h, z, block.residual)
        self.steps += 1
        logits: Tensor = model.output(torch.relu(model.head(torch.relu(model.skip(self.z)))))
        return logits.float()
