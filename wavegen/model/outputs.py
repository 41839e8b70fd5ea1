"""The output of a network: the distribution of a sample, its loss and its draw from a uniform number; or a forecast.

Nothing here imports torch before it computes: an engine that does without takes the description alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import OutputKind
from wavegen.errors import ModelError, ParameterError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

ClassArray = npt.NDArray[np.int64]
MOST_CLASSES = 1 << 16  # of any model


@dataclass(frozen=True)
class Truncation:
    """The truncation of a distribution before a draw: temperature first, then top-k, then top-p.

    Args:
        temperature: logits are divided by it, and a mixture's scales are multiplied by it; 0 takes the likeliest class,
            or the mean of the likeliest component.
        top_k: only the k likeliest classes; None keeps all.
        top_p: only the likeliest classes that together reach this probability; None keeps all.

    Among equals the lower class is kept first.

    Raises:
        ParameterError: a value is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ParameterError("temperature", f"expected a number, 0 or more, found {self.temperature:g}")
        if self.top_k is not None and not 1 <= self.top_k <= MOST_CLASSES:
            found = f"expected a whole number, 1 or more, up to {MOST_CLASSES}, found {self.top_k}"
            raise ParameterError("top_k", found)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ParameterError("top_p", f"expected a number above 0 and at most 1, found {self.top_p:g}")


class Distribution(Protocol):
    """An output distribution: a probability for each class of the next sample, from the last layer's outputs.

    A class is one of equal bins of [-1, 1] on the companded scale, the outermost ones open.
    """

    @property
    def kind(self) -> OutputKind:
        """Its name in the configuration."""

    @property
    def classes(self) -> int:
        """Levels of a sample."""

    @property
    def n_parameters(self) -> int:
        """Numbers that describe one distribution: columns of the last layer."""

    @property
    def is_precise(self) -> bool:
        """Whether the last layer computes in float32 always and has biases: means and scales need both."""

    @property
    def draw_constants(self) -> tuple[float, float, float]:
        """Three numbers that a compiled draw needs; zeros where it needs none."""

    def describe(self) -> str:
        """Return it in words, as `wavegen inspect` shows it."""

    def initialize(self, layer: nn.Linear) -> None:
        """Give the last layer its first weights, with which the prediction does not depend on the past."""

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log-likelihood of each target.

        Args:
            parameters: (..., n_parameters), any float type; the sum is taken in float32 or better.
            targets: (...) integer classes.

        Returns:
            (...) nats.
        """

    def check(self, truncation: Truncation) -> None:
        """Make sure that draws can be truncated so.

        Raises:
            UsageError: they cannot.
        """

    def draw(self, parameters: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:
        """Draw one class from each distribution.

        Args:
            parameters: (B, n_parameters) finite.
            uniforms: (B,) float64 in [0, 1).
            truncation: what is done to the distribution first.

        Returns:
            (B,) int64 classes.

        Raises:
            UsageError: as ``check``.
        """


@dataclass(frozen=True)
class Softmax:
    """A probability for each class (WaveNet, section 2.2).

        p(c) = exp(logits[c]) / sum over all classes i of exp(logits[i])

    Args:
        classes: number of levels.
    """

    classes: int
    kind: ClassVar[OutputKind] = "softmax"
    is_precise: ClassVar[bool] = False
    draw_constants: ClassVar = (0.0, 0.0, 0.0)

    @property
    def n_parameters(self) -> int:
        return self.classes

    def describe(self) -> str:
        return "softmax"

    def initialize(self, layer: nn.Linear) -> None:
        from torch import nn

        nn.init.zeros_(layer.weight)  # so that an untrained model's loss is log2(classes) bits, not more
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional as F

        flat = at_least_float32(parameters).reshape(-1, self.classes)
        return F.cross_entropy(flat, targets.reshape(-1), reduction="none").view(targets.shape)

    def check(self, truncation: Truncation) -> None:
        pass  # every one has a meaning

    def draw(self, parameters: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:
        """See ``Distribution``: by inverting the cumulative distribution, in class order.

        The first class whose cumulative probability exceeds the uniform number; a uniform number beyond the last
        kept class's takes that class.
        """
        import torch

        if truncation.temperature == 0:
            return parameters.argmax(dim=-1)
        # the difference first: then the smallest temperature gives -inf, and not inf - inf
        logits = parameters.double()
        scaled = (logits - logits.amax(dim=-1, keepdim=True)) / truncation.temperature
        if truncation.top_k is not None or truncation.top_p is not None:
            scaled = scaled.masked_fill(~_kept(scaled, truncation), float("-inf"))
        # F(c) = sum_{i <= c} exp(l[i] - max l), not normalized: u is scaled instead
        cdf = scaled.exp().cumsum(dim=-1)  # (B, classes), not normalized
        total = cdf[:, -1:]
        drawn = torch.searchsorted(cdf, uniforms[:, None] * total, right=True)
        last_kept = (cdf < total).sum(dim=-1)
        return torch.minimum(drawn[:, 0], last_kept)


def _kept(scaled: Tensor, truncation: Truncation) -> Tensor:
    """Return which classes top-k, then top-p leave, (B, classes) bool."""
    import torch

    # (B, classes): the likeliest first, among equals the lower class
    order = scaled.argsort(dim=-1, descending=True, stable=True)
    ranked = scaled.gather(-1, order)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if truncation.top_k is not None:
        keep[:, truncation.top_k :] = False
    if truncation.top_p is not None:
        p = ranked.masked_fill(~keep, float("-inf")).softmax(dim=-1)
        # a class stays while those before it have not reached top_p together
        keep &= p.cumsum(dim=-1) - p < truncation.top_p
    # from ranks back to classes
    return torch.zeros_like(keep).scatter(-1, order, keep)


def at_least_float32(parameters: Tensor) -> Tensor:
    """Convert to float32 unless the type is wider: losses are summed in float32 or better."""
    import torch

    return parameters if parameters.dtype == torch.float64 else parameters.float()


def not_finite() -> ModelError:
    """Return the error of an engine whose distribution is not finite."""
    return ModelError("the model's outputs are not finite: its weights are damaged, or its training diverged")


def output_has_bias(bias: bool, distribution: Distribution) -> bool:
    """Return whether the output layer has biases."""
    return bias or distribution.is_precise


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
    classes: ClassVar[int] = 0
    kind: ClassVar[OutputKind] = "regression"
    is_precise: ClassVar[bool] = True
    draw_constants: ClassVar = (0.0, 0.0, 0.0)

    @property
    def n_parameters(self) -> int:
        """The forecast values."""
        return self.horizon

    def describe(self) -> str:
        values = f"{self.horizon} values" if self.horizon > 1 else "value"
        return f"the next {values}, by {self.error} error"

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
        raise UsageError("temperature, top_k and top_p: not with a model of series; leave them out")

    def draw(self, parameters: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:  # noqa: ARG002
        self.check(truncation)
