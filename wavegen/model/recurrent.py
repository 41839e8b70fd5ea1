"""Recurrent networks, to compare with: what do convolutions buy on the same data in equal time?"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from wavegen.model.conditioning import Condition
from wavegen.model.network import Network
from wavegen.model.outputs import Distribution

State = tuple[Tensor, ...]  # (layers, B, channels): the hidden state, and an LSTM's cell state


class Recurrent(Network):
    """Predicts each sample from a state that has heard all samples before it, through a last 1x1 layer.

    The layers are torch's: GRU (Cho et al., 2014) or LSTM (Hochreiter and Schmidhuber, 1997).

    A training window begins with an empty state, ``context`` samples before its first target. In scoring and sampling
    the state goes on from a clip's start, before which it heard as much silence.

    Args:
        classes: levels of the input; 0 where it is a series of values.
        entry: what a class becomes before it enters the lowest layer.
        width: channels that it has then.
        kind: of the layers.
        channels: of each layer's state.
        n_layers: one above the other.
        context: samples that a window holds before its first target.
        distribution: of a sample, whose parameters the network puts out.
    """

    def __init__(
        self,
        *,
        classes: int,
        entry: nn.Module,
        width: int,
        kind: Literal["gru", "lstm"],
        channels: int,
        n_layers: int,
        context: int,
        distribution: Distribution,
    ) -> None:
        super().__init__(classes, distribution)
        self.input = entry
        self.recurrent = (nn.GRU if kind == "gru" else nn.LSTM)(width, channels, n_layers)
        for name, parameter in self.recurrent.named_parameters():
            if name.startswith("weight"):
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
        self.output = nn.Linear(channels, distribution.n_parameters)
        nn.init.xavier_uniform_(self.output.weight)
        distribution.initialize(self.output)
        self.context = context

    @property
    def receptive_field(self) -> int:
        """See ``Network``."""
        return self.context

    @property
    def has_memory(self) -> bool:
        """See ``Network``."""
        return True

    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:  # noqa: ARG002
        """See ``Network``; the state is empty before the first input."""
        self.check_length(inputs.shape[1])
        return self.advance(inputs, None, self.context - 1)[0]

    def advance(self, inputs: Tensor, state: State | None, unwanted: int = 0) -> tuple[Tensor, State]:
        """Go on from a state.

        Args:
            inputs: (B, T).
            state: after the inputs before these; None for an empty one.
            unwanted: so many of the first predictions are not needed.

        Returns:
            (B, T - unwanted, n_parameters) and the state after the last input.
        """
        batch, steps = inputs.shape
        rows = self.input(inputs.t().reshape(-1)).to(self.output.weight.dtype).view(steps, batch, -1)
        given = state[0] if state is not None and len(state) == 1 else state
        h, after = self.recurrent(rows, given)
        parameters: Tensor = self.output(h[unwanted:]).transpose(0, 1)
        return parameters, (after,) if isinstance(after, Tensor) else after
