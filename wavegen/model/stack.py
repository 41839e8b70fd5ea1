"""A plain stack of causal layers, with joins: textbooks' simplified WaveNets, one-dimensional DenseNets, GRU, LSTM.

The rows are time-major, as in ``wavegen.model.layers``. A fully connected layer over a clip's steps is a convolution
with one tap. A strided layer followed by others is the same function, at the steps that it keeps, as one without a
stride followed by layers of a larger dilation: a layer's dilation is the product of the strides below it. Sound needs
every step. A forecaster of series may skip some: its layers have strides, and nothing stands before a series.

Before a clip's start the input and every layer's output are 0, as those texts have it: the class that stands there is
negative. In a stack with recurrent layers silence stands there instead, and their state starts from zero ``context``
steps before the first prediction.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from wavegen.config.schema import LayerConfig, ModelConfig
from wavegen.model.layers import Condition, build_raw_input
from wavegen.model.network import LayerFacts, MatrixGroup, Network, SliceShape, State
from wavegen.model.outputs import Distribution
from wavegen.text import pluralize

NOTHING = -1  # the class that stands before a clip's start
PRIME_STEPS = 4096  # of the past go through recurrent layers at a time
ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Stack(Network):
    """Predicts each sample from the layers' outputs at the step before it, through a last 1x1 layer.

    Args:
        classes: levels of the input; 0 where it is a series of values.
        distribution: of a sample, whose parameters the network puts out.
        model: the section of the configuration, valid.
    """

    def __init__(self, classes: int, distribution: Distribution, model: ModelConfig) -> None:
        super().__init__(classes, distribution, model)
        self.input, width = build_raw_input(model.input, classes, model.embedding_channels)
        self.positions = model.positions
        self.layers = nn.ModuleList()
        widths, places = [width], {"input": 0}
        for i, layer in enumerate(model.layers, start=1):
            source = places.get(layer.source or "", 0)
            self.layers.append(build_layer(layer, widths[-1], layer.width(widths[-1], widths[source]), source))
            widths.append(layer.width(widths[-1], widths[source]))
            if layer.name is not None:
                places[layer.name] = i
        for built in self.stack_layers:
            if isinstance(built, RecurrentLayer):
                built.initialize()
        self.output: nn.Module = nn.Identity()
        if model.output_layer:
            self.output = nn.Linear(widths[-1], distribution.n_parameters)
            nn.init.xavier_uniform_(self.output.weight)
            distribution.initialize(self.output)
        self.warm_up = model.context - 1 if self.has_memory else 0  # first predictions after an empty state: not used

    # --- description ---------------------------------------------------------------------------------------------

    @property
    def stack_layers(self) -> list[SequenceLayer | JoinLayer]:
        """The layers, the lowest first."""
        return [layer for layer in self.layers if isinstance(layer, SequenceLayer | JoinLayer)]

    @property
    def has_memory(self) -> bool:
        return any(layer.has_memory for layer in self.stack_layers)

    @property
    def receptive_field(self) -> int:
        seen, spacing = [0], 1  # steps of past that the input and each layer's output need, and steps between outputs
        for layer in self.stack_layers:
            reach = layer.reach * spacing
            seen.append(max(seen[-1], seen[layer.source]) if isinstance(layer, JoinLayer) else seen[-1] + reach)
            spacing *= layer.stride
        return 1 + seen[-1] + self.warm_up

    def padding(self, silence: int) -> int:
        return silence if self.has_memory else NOTHING

    @property
    def before_series(self) -> float:
        return math.nan if self.has_zeros_before else 0.0

    @property
    def has_zeros_before(self) -> bool:
        """True if all layers' outputs are 0 before a clip's start; else silence or nothing stands there."""
        return not self.has_memory and self.positions.step == 1

    def describe(self) -> str:
        return f"stack, {pluralize(len(self.layers), 'layer')}"

    def layer_facts(self) -> list[LayerFacts]:
        return [layer.facts for layer in self.stack_layers]

    def matrix_groups(self) -> list[MatrixGroup]:
        """See ``Network``: without an embedding the lowest convolution is the first layer."""
        groups, is_inner = [], bool(list(self.input.parameters()))
        for layer in self.stack_layers:
            if is_inner or layer.has_memory:
                groups += layer.matrix_groups()
            is_inner = is_inner or isinstance(layer, ConvLayer)
        return groups

    def activation_bytes(self, part: SliceShape) -> int:
        """See ``Network``: autograd's, in float32, and the logits with their log-softmax and its gradient."""
        targets = part.windows * part.targets
        rows = targets + part.windows * (self.receptive_field - 1)
        of_output = targets * (part.word + 8) * self.distribution.n_parameters
        return of_output + rows * 4 * sum(layer.kept * layer.width for layer in self.stack_layers)

    # --- computing ----------------------------------------------------------------------------------------------

    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:  # noqa: ARG002
        """See ``Network``; without a memory inputs are negative (in a series not a number) before a clip's start."""
        self.check_length(inputs.shape[1])
        return self.advance(inputs)[0]

    def advance(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        top, after = self._through(inputs, state)
        unused = 0 if state else self.warm_up
        rows: Tensor = self.output(top[unused * len(inputs) :])
        # (n * B, n_parameters) -> (B, n, n_parameters)
        return rows.view(-1, len(inputs), rows.shape[-1]).transpose(0, 1), after

    def queue_step(self, past: Tensor, condition: Condition | None = None) -> StackStep:  # noqa: ARG002
        state: State | None = None
        if not self.has_memory:
            past = past[:, past.shape[1] - self.receptive_field :]
        fed = past[:, :-1]
        # the first stretch fills the queues of all layers with taps, so it is no shorter than they are
        first = max(PRIME_STEPS, self.receptive_field - 1)
        for begin in (0, *range(first, fed.shape[1], PRIME_STEPS)):
            end = begin + (PRIME_STEPS if begin else first)
            state = self._through(fed[:, begin:end], state)[1]
        return StackStep(self, len(past), state or ())

    def embed(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the lowest layer's input.

        Args:
            inputs: (N,).

        Returns:
            (N, C) rows; and (N, 1), 0 before a clip's start, else 1; None where no zeros stand there.
        """
        dtype = next(self.parameters()).dtype
        if not self.has_zeros_before:
            return self.input(inputs).to(dtype), None
        is_there = inputs >= 0 if self.classes else ~inputs.isnan()
        rows: Tensor = self.input(torch.where(is_there, inputs, 0)).to(dtype)
        there = is_there[:, None].to(rows.dtype)
        return rows * there, there

    def _through(self, inputs: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Compute the uppermost layer's rows, as far as the past reaches that the inputs and the state hold.

        Args:
            inputs: (B, T).
            state: that the stretch before left, of all layers; None for an empty one.

        Returns:
            (T * B, C), without a state fewer; and the state after them.
        """
        before, after = iter(state or ()), list[Tensor]()

        def through(layer: SequenceLayer, below: Tensor) -> Tensor:
            known = None if state is None else tuple(islice(before, layer.n_states))
            h, own = layer(below, len(inputs), known)
            after.extend(own)
            rows: Tensor = h
            return rows

        return self.walk(inputs.t().reshape(-1), through), tuple(after)  # (T * B,) time-major

    def walk(self, inputs: Tensor, through: Callable[[SequenceLayer, Tensor], Tensor]) -> Tensor:
        """Compute the uppermost layer's rows from inputs, (N,); ``through`` computes a layer from the one below."""
        entered, there = self.embed(inputs)
        outputs = [entered]
        for layer in self.stack_layers:
            below = outputs[-1]
            h = layer(outputs[layer.source], below) if isinstance(layer, JoinLayer) else through(layer, below)
            outputs.append(h if there is None else h * there[len(there) - len(h) :])
        return outputs[-1]


class StackStep:
    """Implements ``QueueStep``.

    Args:
        model: the network.
        batch: streams.
        state: that their past left.
    """

    gate_bias = None

    def __init__(self, model: Stack, batch: int, state: State) -> None:
        self.model, self.batch = model, batch
        self.state = [tensor.clone() for tensor in state]
        self.steps = torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device)

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        return (*self.state, self.steps)

    def __call__(self, newest: Tensor) -> Tensor:
        state = iter(self.state)

        def through(layer: SequenceLayer, below: Tensor) -> Tensor:  # (B, C) -> (B, C')
            return layer.step(below, tuple(islice(state, layer.n_states)), self.steps)

        parameters: Tensor = self.model.output(self.model.walk(newest, through))
        self.steps += 1
        return parameters.float()


# --- layers --------------------------------------------------------------------------------------------------------


class StackLayer(nn.Module):
    """A layer of a stack.

    Args:
        width: channels of its output.
        facts: describe the layer.
    """

    reach = 0  # earlier steps that an output sees: without a state the output is this much shorter than the input
    stride = 1  # steps of the input from one output to the next
    has_memory = False
    n_states = 0  # tensors that it carries from one stretch of a clip to the next
    kept = 1  # numbers of each row and channel that autograd keeps, if only of what zeros before a clip leave of them

    def __init__(self, width: int, facts: LayerFacts) -> None:
        super().__init__()
        self.width, self.facts = width, facts

    def matrix_groups(self) -> list[MatrixGroup]:
        """Return the matrices that Muon moves."""
        return []


class SequenceLayer(StackLayer, ABC):
    """A layer of the one below alone, which it sees step by step or a stretch at a time."""

    @abstractmethod
    def step(self, newest: Tensor, state: Sequence[Tensor], steps: Tensor) -> Tensor:
        """Map one step of some streams, (B, C) to (B, C'), and move their state on, in place.

        Args:
            newest: of the layer below.
            state: n_states tensors, which the stretch before left.
            steps: () how many have been made since.
        """


class TapLayer(SequenceLayer):
    """A layer of which each output is made of some steps of its input.

    Args:
        width: channels of its output.
        name: of its kind.
        kernel_size: steps that an output is made of.
        dilation: steps between them.
        stride: steps from one output to the next, reach + 1 at most.
    """

    n_states = 1  # the last rows that it was given, oldest first: (reach, B, C) without a stride
    offsets: Tensor  # of the older taps from the oldest

    def __init__(self, width: int, name: str, kernel_size: int, dilation: int, stride: int) -> None:
        super().__init__(width, LayerFacts(name, kernel_size, dilation))
        self.kernel_size, self.dilation, self.stride = kernel_size, dilation, stride
        self.reach = (kernel_size - 1) * dilation
        self.register_buffer("offsets", torch.arange(kernel_size - 1) * dilation, persistent=False)

    def forward(self, rows: Tensor, batch: int, state: State | None) -> tuple[Tensor, State]:
        """Map (T * batch, C) rows to (n * batch, C'), without a stride and a state n = T - reach; return the state."""
        if state is not None:
            rows = torch.cat([state[0].flatten(0, 1), rows])
        steps = rows.view(-1, batch, rows.shape[1])  # (T, B, C)
        span = max(0, (len(steps) - self.reach + self.stride - 1) // self.stride) * self.stride
        # tap j of output i is input i stride + j dilation: n steps from j dilation on, a view where the stride is 1
        starts = [tap * self.dilation for tap in range(self.kernel_size)]
        taps = [steps[start : start + span : self.stride].flatten(0, 1) for start in starts]
        return self.combine(taps), (steps[span:],)

    def step(self, newest: Tensor, state: Sequence[Tensor], steps: Tensor) -> Tensor:
        """See ``SequenceLayer``; the state is a ring, (reach, B, C), in which the newest row replaces the oldest."""
        (ring,) = state
        if not len(ring):
            return self.combine([newest])
        slots = (steps + self.offsets) % len(ring)
        older = ring.index_select(0, slots).unbind()
        ring.index_copy_(0, slots[:1], newest[None])
        return self.combine([*older, newest])

    @abstractmethod
    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        """Compute outputs (N, C') from their taps, (N, C) each, the oldest first."""


class ConvLayer(TapLayer):
    """A causal dilated convolution and its activation, with Glorot's first weights (Glorot and Bengio, 2010, eq. 16).

        y[t] = activation(b + sum_j W[j] x[t - (kernel_size - 1 - j) dilation])

    Args:
        in_channels: of the layer below.
        layer: channels, taps, dilation and activation; of a dense layer one tap.
    """

    def __init__(self, in_channels: int, layer: LayerConfig) -> None:
        assert layer.channels is not None  # the configuration's checks see to it
        kernel_size = layer.kernel_size if layer.kind == "conv" else 1
        super().__init__(layer.channels, layer.kind, kernel_size, layer.dilation, layer.stride)
        self.kept = 1 if layer.activation == "none" else 2  # what the activation needs, too
        self.weight = nn.Parameter(torch.empty(self.kernel_size, self.width, in_channels))  # (taps, C', C)
        self.bias = nn.Parameter(torch.zeros(self.width))
        bound = (6.0 / (self.kernel_size * (in_channels + self.width))) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        self.activation = ACTIVATIONS[layer.activation]()

    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        result: Tensor = self.bias
        for tap, weight in zip(taps, self.weight, strict=True):
            result = torch.addmm(result, tap, weight.t())  # (N, C) x (C, C') -> (N, C'), added to the taps before
        activated: Tensor = self.activation(result)
        return activated

    def matrix_groups(self) -> list[MatrixGroup]:
        """See ``StackLayer``: the taps side by side are one matrix, (C', taps C)."""
        return [MatrixGroup([self.weight], tuple(self.weight.shape), rows=1, columns=(0, 2))]


class PoolLayer(TapLayer):
    """The mean or the maximum of some steps of each channel.

    Args:
        width: channels.
        layer: steps that are pooled, steps between them, and which of the two.
    """

    def __init__(self, width: int, layer: LayerConfig) -> None:
        name = "max pool" if layer.kind == "max_pool" else "average pool"
        super().__init__(width, name, layer.kernel_size, layer.dilation, layer.stride)
        self.is_maximum = layer.kind == "max_pool"
        self.kept = self.kernel_size + 2 if self.is_maximum else 1  # a maximum's gradient needs all taps and the result

    def combine(self, taps: Sequence[Tensor]) -> Tensor:
        together = torch.stack(list(taps))  # (taps, N, C)
        return together.amax(dim=0) if self.is_maximum else together.mean(dim=0)


class RecurrentLayer(SequenceLayer):
    """A recurrent layer, torch's: RNN (Elman, 1990), GRU (Cho et al., 2014) or LSTM (Hochreiter and Schmidhuber, 1997).

        rnn:  h[t] = tanh(LN(W x[t] + b + U h[t - 1] + c))       LN: layer normalization (Ba et al., 2016), if wanted

    Args:
        in_channels: of the layer below.
        layer: width of the state, which of the three, and layer normalization.
    """

    has_memory = True

    def __init__(self, in_channels: int, layer: LayerConfig) -> None:
        assert layer.channels is not None  # the configuration's checks see to it
        super().__init__(layer.channels, LayerFacts(layer.kind, None, None))
        self.kind, classes = layer.kind, {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
        self.cell = classes[layer.kind](in_channels, self.width)
        self.norm = nn.LayerNorm(self.width, layer.layer_norm_epsilon) if layer.layer_norm else None
        self.n_states = 2 if layer.kind == "lstm" else 1  # (1, B, C') each: h, and an LSTM's c
        self.kept = self.n_gates + 3  # the gates, their products, and the state before and after

    @property
    def n_gates(self) -> int:
        """Matrices that are one above the other in each weight."""
        return len(self.cell.weight_hh_l0) // self.width

    def initialize(self) -> None:
        """Give W Glorot's first weights, and make U orthogonal (Saxe et al., 2014); biases of 0, an LSTM's forget 1.

        A forget gate that is open keeps the gradient of long ago (Jozefowicz et al., 2015).
        """
        nn.init.xavier_uniform_(self.cell.weight_ih_l0)
        nn.init.orthogonal_(self.cell.weight_hh_l0)
        nn.init.zeros_(self.cell.bias_ih_l0)
        nn.init.zeros_(self.cell.bias_hh_l0)
        if self.kind == "lstm":  # the gates' order is input, forget, cell, output
            nn.init.ones_(self.cell.bias_ih_l0[self.width : 2 * self.width])

    def forward(self, rows: Tensor, batch: int, state: State | None) -> tuple[Tensor, State]:
        """Map (T * batch, C) rows to (T * batch, C'), from a state; None for zeros."""
        if not len(rows):  # which torch refuses
            return rows.new_zeros(0, self.width), state or (rows.new_zeros(1, batch, self.width),) * self.n_states
        steps = rows.view(-1, batch, rows.shape[1])  # (T, B, C)
        if self.norm is not None:
            return self._normalized(steps, self.norm, state)
        given = state[0] if state is not None and len(state) == 1 else state
        with _without_cudnn_autocast(rows.device):
            h, after = self.cell(steps if rows.device.type == "cpu" else steps.to(self.cell.weight_hh_l0.dtype), given)
        return h.flatten(0, 1), (after,) if isinstance(after, Tensor) else after

    def step(self, newest: Tensor, state: Sequence[Tensor], steps: Tensor) -> Tensor:  # noqa: ARG002
        h, after = self(newest, len(newest), tuple(state))
        for buffer, value in zip(state, after, strict=True):
            buffer.copy_(value)
        rows: Tensor = h
        return rows

    def _normalized(self, rows: Tensor, norm: nn.LayerNorm, state: State | None) -> tuple[Tensor, State]:
        cell = self.cell
        given = nn.functional.linear(rows, cell.weight_ih_l0, cell.bias_ih_l0)  # (T, B, C) -> (T, B, C'), all at once
        h = given.new_zeros(given.shape[1:]) if state is None else state[0][0]  # (B, C')
        states = []
        for x in given:
            h = torch.tanh(norm(x + nn.functional.linear(h, cell.weight_hh_l0, cell.bias_hh_l0)))
            states.append(h)
        return torch.cat(states), (h[None],)

    def matrix_groups(self) -> list[MatrixGroup]:
        """See ``StackLayer``: each gate's part of W and of U is a matrix of its own."""
        weights = [weight for name, weight in self.cell.named_parameters() if name.startswith("weight")]
        return [MatrixGroup([w], (self.n_gates, self.width, w.shape[1]), rows=1, columns=(2,)) for w in weights]


def _without_cudnn_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Turn autocast off on a GPU, where it makes recurrent layers float16 whatever type is asked for."""
    return nullcontext() if device.type == "cpu" else torch.autocast(device.type, enabled=False)


class JoinLayer(StackLayer):
    """Joins the layer below with an earlier one.

    Args:
        width: channels of the result.
        source: the earlier layer's place: 0 is the input, 1 the first layer.
        kind: concatenate their channels (DenseNet, Huang et al., 2017), the earlier one's first, or add them up.
    """

    def __init__(self, width: int, source: int, kind: Literal["concatenate", "add"]) -> None:
        super().__init__(width, LayerFacts(kind, 1, 1))
        self.source, self.kind = source, kind

    def forward(self, earlier: Tensor, below: Tensor) -> Tensor:
        """Join (N, C) and (N', C') rows where both have some: the last min(N, N')."""
        n_rows = min(len(earlier), len(below))
        earlier, below = earlier[len(earlier) - n_rows :], below[len(below) - n_rows :]
        return torch.cat([earlier, below], dim=-1) if self.kind == "concatenate" else earlier + below


def build_layer(layer: LayerConfig, below: int, width: int, source: int) -> StackLayer:
    """Build a layer on one of ``below`` channels; ``width`` and ``source`` are those of a join."""
    if layer.kind == "concatenate" or layer.kind == "add":
        return JoinLayer(width, source, layer.kind)
    builders: dict[str, Callable[[int, LayerConfig], StackLayer]] = {"conv": ConvLayer, "dense": ConvLayer}
    builders |= {"average_pool": PoolLayer, "max_pool": PoolLayer}
    return builders.get(layer.kind, RecurrentLayer)(below, layer)
