"""The networks as dense networks, one step at a time: what the torch engine runs.

A convolution needs its own inputs of dilation, 2 dilation, ... steps ago. Each keeps the last ``reach`` of them in a
ring buffer, so that the cost of a sample does not depend on the receptive field (Le Paine et al., 2016, "Fast Wavenet
Generation Algorithm"). A recurrent network keeps its state.

All that a step changes lies in buffers that never move, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.model.conditioning import Condition
from wavegen.model.layers import ResidualBlock, activate
from wavegen.model.network import Network
from wavegen.model.recurrent import Recurrent
from wavegen.model.stack import JoinLayer, Stack, TapLayer
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines.ahead import RowsAhead

PRIME_STEPS = 4096  # of the past are heard at a time


class Steps(Protocol):
    """Some streams of a network, side by side."""

    @property
    def state(self) -> tuple[Tensor, ...]:
        """All buffers that a step changes."""

    def step(self, last: Tensor) -> Tensor:
        """Feed the newest sample of each stream, (B,); the next one's distribution's parameters, (B, n) float32."""

    def conditioned(self, first: int, n: int) -> Iterator[None]:
        """Before each of the samples first .. first + n - 1 put what it is conditioned on where the step finds it."""


def steps_of(model: Network) -> Callable[[Tensor, Sequence[ClipCondition]], Steps]:
    """What makes steps of a network: of the past, (B, T) with the newest sample last, and each stream's condition."""
    if isinstance(model, WaveNet):
        return partial(WaveNetSteps, model, [_DenseBlock(block) for block in model.residual_blocks])
    if isinstance(model, Stack):
        return partial(StackSteps, model)
    assert isinstance(model, Recurrent)
    return partial(RecurrentSteps, model)


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


class WaveNetSteps:
    """A WaveNet's.

    Args:
        model: gives the input layer, the skip product and the head.
        blocks: its residual blocks as dense layers.
        past: (B, receptive_field) classes.
        conditions: of each stream; empty in a network without conditions.
    """

    def __init__(
        self, model: WaveNet, blocks: list[_DenseBlock], past: Tensor, conditions: Sequence[ClipCondition]
    ) -> None:
        self.model, self.blocks = model, blocks
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
        # (reach, B, residual) rings, oldest first
        self.queues = [held.clone() for held in model.queues(past[:, :-1], before)]
        # every block writes its z into its slice, and the sum of skips is one product
        self.z = self.queues[0].new_empty(len(past), model.skip.in_features)
        self.slices = self.z.chunk(len(blocks), dim=-1)
        # slot (steps + offset) mod reach, for all taps of all blocks at once; that of tap 0 is the oldest
        self.steps = torch.zeros((), dtype=torch.int64, device=device)
        self.offsets = torch.tensor([block.offsets for block in blocks], device=device)  # (blocks, taps - 1)
        self.reaches = torch.tensor([[block.reach] for block in blocks], device=device)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """See ``Steps``."""
        return (*self.queues, self.steps)

    def conditioned(self, first: int, n: int) -> Iterator[None]:
        """See ``Steps``."""
        if self.ahead is None:
            yield from [None] * n
            return
        for piece in self.ahead.pieces(first, n):
            table = torch.from_numpy(piece.table[self.ahead.table_of]).to(self.all_added)
            for i, row in enumerate(piece.row_of):
                if i == 0 or row != piece.row_of[i - 1]:
                    self.all_added.copy_(table[:, row])
                yield

    def step(self, last: Tensor) -> Tensor:
        """See ``Steps``."""
        model = self.model
        h = model.input(last)
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


class StackSteps:
    """A stack's.

    Args:
        model: the network.
        past: (B, receptive_field) classes, negative before a clip's start.
        conditions: none.
    """

    def __init__(self, model: Stack, past: Tensor, conditions: Sequence[ClipCondition]) -> None:
        assert not conditions
        self.model = model
        self.queues = [held.clone() for held in model.queues(past[:, :-1])]  # (reach, B, C) rings, oldest first
        self.steps = torch.zeros((), dtype=torch.int64, device=past.device)
        taps = [layer for layer in model.layers if isinstance(layer, TapLayer)]
        self.offsets = [torch.arange(layer.kernel_size - 1, device=past.device) * layer.dilation for layer in taps]

    @property
    def state(self) -> tuple[Tensor, ...]:
        """See ``Steps``."""
        return (*self.queues, self.steps)

    def conditioned(self, first: int, n: int) -> Iterator[None]:  # noqa: ARG002
        """See ``Steps``."""
        yield from [None] * n

    def step(self, last: Tensor) -> Tensor:
        """See ``Steps``."""
        entered, there = self.model.enter(last)
        outputs, rings = [entered], iter(zip(self.queues, self.offsets, strict=True))
        for layer in self.model.layers:
            if isinstance(layer, JoinLayer):
                h = layer(outputs[layer.source], outputs[-1])
            else:
                assert isinstance(layer, TapLayer)
                queue, offsets = next(rings)
                held: tuple[Tensor, ...] = ()
                if layer.kernel_size > 1:
                    slots = (self.steps + offsets) % layer.reach
                    held = queue.index_select(0, slots).unbind()
                    queue.index_copy_(0, slots[:1], outputs[-1][None])
                h = layer.combine([*held, outputs[-1]])
            outputs.append(h * there)
        self.steps += 1
        parameters: Tensor = self.model.output(outputs[-1])
        return parameters.float()


class RecurrentSteps:
    """A recurrent network's.

    Args:
        model: the network.
        past: (B, T) classes since the clips began, and the silence before them.
        conditions: none.
    """

    def __init__(self, model: Recurrent, past: Tensor, conditions: Sequence[ClipCondition]) -> None:
        assert not conditions
        self.model = model
        zeros = model.output.weight.new_zeros(model.recurrent.num_layers, len(past), model.recurrent.hidden_size)
        self.buffers = tuple(zeros.clone() for _ in range(2 if isinstance(model.recurrent, torch.nn.LSTM) else 1))
        for begin in range(0, past.shape[1] - 1, PRIME_STEPS):
            self._advance(past[:, begin : min(begin + PRIME_STEPS, past.shape[1] - 1)])

    @property
    def state(self) -> tuple[Tensor, ...]:
        """See ``Steps``."""
        return self.buffers

    def conditioned(self, first: int, n: int) -> Iterator[None]:  # noqa: ARG002
        """See ``Steps``."""
        yield from [None] * n

    def step(self, last: Tensor) -> Tensor:
        """See ``Steps``."""
        return self._advance(last[:, None])[:, 0].float()

    def _advance(self, inputs: Tensor) -> Tensor:
        parameters, after = self.model.advance(inputs, self.buffers, inputs.shape[1] - 1)
        for buffer, value in zip(self.buffers, after, strict=True):
            buffer.copy_(value)
        return parameters
