"""The torch engine: cached queues, one step of a dense network per sample, on any device, in batch.

A block's convolution needs its own inputs of dilation, 2 dilation, ... steps ago. Each block keeps the last
``reach`` of them in a ring buffer, so that the cost of a sample does not depend on the receptive field
(Le Paine et al., 2016, "Fast Wavenet Generation Algorithm").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.model.layers import ResidualBlock
from wavegen.model.outputs import softmax_draw
from wavegen.model.truncation import Truncation
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines.engine import ClassArray, not_finite
from wavegen.sampling.engines.one_thread import one_thread

# Streams run in groups of a fixed width, the last one padded: a matrix product's rounding depends on its shape, and
# a clip's audio must not depend on how many are made beside it. Eight cost a CPU little more than one.
GROUP_WIDTH = {"cpu": 8, "cuda": 32}


class TorchQueueEngine:
    """Implements ``Engine`` with preallocated ring buffers.

    Args:
        model: on the device to run on; in float32 or float64.
    """

    def __init__(self, model: WaveNet) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.blocks = [_DenseBlock(block) for block in model.blocks if isinstance(block, ResidualBlock)]
        self.groups: list[_Group] = []
        self.n_streams = 0

    @property
    def receptive_field(self) -> int:
        return self.model.receptive_field

    @torch.inference_mode()
    @one_thread()
    def start(self, past: ClassArray) -> None:
        width = GROUP_WIDTH.get(self.device.type, 8)
        self.n_streams = len(past)
        padded = np.pad(past[:, -self.receptive_field :], ((0, -len(past) % width), (0, 0)), mode="edge")
        newest = torch.from_numpy(padded).to(self.device)
        self.groups = [_Group(self.model, self.blocks, rows) for rows in newest.chunk(len(padded) // width)]

    @torch.inference_mode()
    @one_thread()
    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        return self._gather([group.generate(u, truncation) for group, u in self._deal(uniforms)])

    @torch.inference_mode()
    @one_thread()
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
        self.bias = conv.bias
        self.taps = [weight.t().contiguous() for weight in conv.weight.detach().unbind(dim=0)]
        # tap j reads (kernel_size - 1 - j) * dilation steps back, which is slot (oldest + j * dilation) mod reach
        self.offsets = [tap * conv.dilation for tap in range(conv.kernel_size - 1)]
        self.residual = None if block.residual is None else block.residual.weight.detach().t().contiguous()


class _Queue:
    """A block's last inputs, (reach, B, residual_channels), as a ring of slots."""

    def __init__(self, held: Tensor) -> None:
        self.slots = list(held.clone().unbind(dim=0))
        self.oldest = 0

    def back(self, offset: int) -> Tensor:
        """The slot this many steps after the oldest."""
        return self.slots[(self.oldest + offset) % len(self.slots)]

    def push(self, h: Tensor) -> None:
        """Overwrite the oldest input with the newest."""
        self.slots[self.oldest].copy_(h)
        self.oldest = (self.oldest + 1) % len(self.slots)


class _Group:
    """Streams that run side by side.

    Args:
        model: gives the input layer, the skip product and the head.
        blocks: the residual blocks as dense layers.
        past: (B, receptive_field) classes, the newest last.
    """

    def __init__(self, model: WaveNet, blocks: list[_DenseBlock], past: Tensor) -> None:
        self.model = model
        self.last = past[:, -1]  # known, but not yet fed: the next step's input
        queues = model.queues(past[:, :-1])
        # every block writes its z into its slice, and the sum of skips is one product
        self.z = queues[0].new_empty(len(past), model.skip.in_features)
        slices = self.z.chunk(len(blocks), dim=-1)
        self.stack = list(zip(blocks, map(_Queue, queues), slices, strict=True))

    def generate(self, uniforms: Tensor, truncation: Truncation) -> Tensor:
        drawn = []
        finite = torch.ones((), dtype=torch.bool, device=uniforms.device)
        for u in uniforms.unbind(dim=1):
            logits = self._step()
            finite &= torch.isfinite(logits).all()
            self.last = softmax_draw(logits, u, truncation)
            drawn.append(self.last)
        if not bool(finite):  # looked at once a chunk, because a look waits for the device
            raise not_finite()
        return torch.stack(drawn, dim=1)

    def force(self, classes: Tensor) -> Tensor:
        logits = []
        for sample in classes.unbind(dim=1):
            logits.append(self._step())
            self.last = sample
        return torch.stack(logits, dim=1)

    def _step(self) -> Tensor:
        """Feed the newest sample; the logits of the next one, (B, classes) float32."""
        model = self.model
        h = model.input(self.last)
        for block, queue, z in self.stack:
            gates = torch.addmm(block.bias, h, block.taps[-1])
            for offset, tap in zip(block.offsets, block.taps, strict=False):
                gates.addmm_(queue.back(offset), tap)
            queue.push(h)
            filter_, gate = gates.chunk(2, dim=-1)
            torch.mul(torch.tanh(filter_), torch.sigmoid(gate), out=z)
            if block.residual is not None:
                h = torch.addmm(h, z, block.residual)
        logits: Tensor = model.output(torch.relu(model.head(torch.relu(model.skip(self.z)))))
        return logits.float()
