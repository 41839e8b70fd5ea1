"""Forecasts of series of numbers: the next values themselves, and how far off they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NoReturn

from wavegen.errors import UsageError
from wavegen.model.outputs import OutputKind, Truncation

if TYPE_CHECKING:
    from torch import Tensor, nn

ErrorKind = Literal["squared", "absolute"]


@dataclass(frozen=True)
class Regression:
    """The next values of a series, in place of a distribution: see ``wavegen.model.outputs.Distribution``.

    Args:
        horizon: values that are forecast at every position.
        error: what is small when the forecast is good: the square or the absolute value of the difference.
    """

    horizon: int
    error: ErrorKind = "squared"
    classes: int = 0
    kind: OutputKind = "regression"

    @property
    def n_parameters(self) -> int:
        """The forecast values."""
        return self.horizon

    def initialize(self, layer: nn.Linear) -> None:
        """Leave the first weights as they are, with no bias: values lie around 0."""
        from torch import nn

        nn.init.zeros_(layer.bias)

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean error over the horizon.

        Args:
            parameters: (..., horizon) the forecast values, any float type.
            targets: (..., horizon) the true ones, of the same type or float32.

        Returns:
            (...), in the units of the values, or their squares.
        """
        difference = parameters - targets  # of a forecast in bfloat16 in the targets' float32
        return (difference.square() if self.error == "squared" else difference.abs()).mean(dim=-1)

    def check(self, truncation: Truncation) -> NoReturn:  # noqa: ARG002 (as all distributions have it)
        """Refuse: a forecast is no draw."""
        raise UsageError(
            "temperature, top_k and top_p: not with a model of series, which draws nothing; leave them out"
        )

    def draw(self, parameters: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:  # noqa: ARG002
        self.check(truncation)
