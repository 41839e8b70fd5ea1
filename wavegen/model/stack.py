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
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from wavegen.config.schema import LayerConfig
from wavegen.model.conditioning import Condition
from wavegen.model.network import LayerFacts, MatrixGroup, Network, SliceShape, State
from wavegen.model.outputs import Distribution
from wavegen.model.stack_layers import ConvLayer, JoinLayer, RecurrentLayer, SequenceLayer, build_layer
from wavegen.text import pluralize

NOTHING = -1  # the class that stands before a clip's start
PRIME_STEPS = 4096  # of the past go through recurrent layers at a time


class Stack(Network):
    """Predicts each sample from the layers' outputs at the step before it, through a last 1x1 layer.

    Args:
        classes: levels of the input; 0 where it is a series of values.
        entry: what a class becomes before it enters the lowest layer.
        width: channels that it has then.
        layers: the lowest first; valid.
        context: with recurrent layers: steps from their empty state to a window's first prediction.
        distribution: of a sample, whose parameters the network puts out.
        output_layer: a last 1x1 layer; False if the uppermost layer puts out the parameters.
        positions: as ``Network``, by the layers' strides.
    """

    kind = "stack"

    def __init__(
        self,
        *,
        classes: int,
        entry: nn.Module,
        width: int,
        layers: Sequence[LayerConfig],
        context: int,
        distribution: Distribution,
        output_layer: bool,
        positions: slice,
    ) -> None:
        super().__init__(classes, distribution)
        self.input, self.positions = entry, positions
        self.layers = nn.ModuleList()
        widths, places = [width], {"input": 0}
        for i, layer in enumerate(layers, start=1):
            source = places.get(layer.source or "", 0)
            self.layers.append(build_layer(layer, widths[-1], layer.width(widths[-1], widths[source]), source))
            widths.append(layer.width(widths[-1], widths[source]))
            if layer.name is not None:
                places[layer.name] = i
        for built in self.stack_layers:
            if isinstance(built, RecurrentLayer):
                built.initialize()
        self.output: nn.Module = nn.Identity()
        if output_layer:
            self.output = nn.Linear(widths[-1], distribution.n_parameters)
            nn.init.xavier_uniform_(self.output.weight)
            distribution.initialize(self.output)
        self.warm_up = context - 1 if self.has_memory else 0  # first predictions after an empty state: not used

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
        return [layer.facts() for layer in self.stack_layers]

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
        return of_output + rows * 4 * sum(layer.kept_numbers() for layer in self.stack_layers)

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
