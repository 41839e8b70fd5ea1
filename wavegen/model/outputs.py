"""The output of a network: the distribution of a sample, its loss and its draw from a uniform number; or a forecast.

Nothing here imports torch before it computes: an engine that does without takes the description alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import OutputKind
from wavegen.errors import ModelError, ParameterError, UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

ClassArray = npt.NDArray[np.int64]
MOST_CLASSES = 1 << 16  # of any model
MEAN_UNIT = 0.005  # of a mixture's means, so that a step of the optimizer moves them by little (docs/recipe.md)
LOWEST_FIRST_SCALE, HIGHEST_FIRST_SCALE = -8.0, -2.0
SMALLEST_UNIFORM = 2.0**-53  # the remainder of a uniform number is clamped between this and 1 - this


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


class Distribution(ABC):
    """An output distribution: a probability for each class of the next sample, from the last layer's outputs.

    A class is one of equal bins of [-1, 1] on the companded scale, the outermost ones open.
    """

    kind: ClassVar[OutputKind]  # its name in the configuration
    is_precise: ClassVar[bool] = True  # the last layer computes in float32 always and has biases: means and scales do
    classes: int  # levels of a sample

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Numbers that describe one distribution: columns of the last layer."""

    @abstractmethod
    def describe(self) -> str:
        """Return it in words, as `wavegen inspect` shows it."""

    def initialize(self, layer: nn.Linear) -> None:
        """Give the last layer its first weights, with which the prediction does not depend on the past."""
        from torch import nn

        nn.init.zeros_(layer.weight)  # so that an untrained softmax's loss is log2(classes) bits, not more
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    @abstractmethod
    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """Compute the negative log-likelihood of each target.

        Args:
            parameters: (..., n_parameters), any float type; the sum is taken in float32 or better.
            targets: (...) integer classes.

        Returns:
            (...) nats.
        """

    @abstractmethod
    def check(self, truncation: Truncation) -> None:
        """Make sure that draws can be truncated so.

        Raises:
            UsageError: they cannot.
        """

    @abstractmethod
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
class Softmax(Distribution):
    """A probability for each class (WaveNet, section 2.2).

        p(c) = exp(logits[c]) / sum over all classes i of exp(logits[i])

    Args:
        classes: number of levels.
    """

    classes: int
    kind = "softmax"
    is_precise = False

    @property
    def n_parameters(self) -> int:
        return self.classes

    def describe(self) -> str:
        return "softmax"

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


@dataclass(frozen=True)
class Mixture(Distribution):
    """A mixture of distributions on a line, of which each class is an interval.

        P(c) = sum over components k of softmax(logits)[k] (F((b[c+1] - m[k]) / s[k]) - F((b[c] - m[k]) / s[k]))

    [-1, 1] is divided into as many equal bins as there are classes, b[c] = 2 c / classes - 1, and the outermost are
    open, b[0] = -inf and b[classes] = inf, so that all probabilities sum to 1 (PixelCNN++, Salimans et al., 2017,
    section 2.1).

    The parameters are all logits, then all means in units of ``MEAN_UNIT``, then all log-scales.

    Args:
        classes: number of levels.
        components: of the mixture.
    """

    shape: ClassVar[str]  # name of one component
    classes: int
    components: int = 10

    @property
    def n_parameters(self) -> int:
        return 3 * self.components

    @property
    def scale_limits(self) -> tuple[float, float]:
        """The smallest and the largest log-scale: a twentieth of a bin, where all is in one; ten times the range."""
        return math.log(2.0 / self.classes) - 3.0, 3.0

    def describe(self) -> str:
        one = f"one {self.shape} distribution"
        return one if self.components == 1 else f"mixture of {self.components} {self.shape} distributions"

    def initialize(self, layer: nn.Linear) -> None:
        """See ``Distribution``: all means 0, and log-scales evenly spread, for quiet sounds and loud ones.

        They reach from a bin's width, or ``LOWEST_FIRST_SCALE`` if that is more, to ``HIGHEST_FIRST_SCALE``.
        """
        import torch

        super().initialize(layer)
        with torch.no_grad():
            lowest = max(self.scale_limits[0] + 3.0, LOWEST_FIRST_SCALE)
            # downwards: a single component takes the highest, for a narrow one finds most of a recording impossible
            scales = torch.linspace(HIGHEST_FIRST_SCALE, lowest, self.components)
            layer.bias[2 * self.components :] = scales.flip(0)

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        logits, means, log_scales = self._split(at_least_float32(parameters))
        bottom, top = (targets == 0)[..., None], (targets == self.classes - 1)[..., None]
        middle = ((2 * targets + (1 - self.classes)).to(means.dtype) / self.classes)[..., None]  # of the target's bin
        inverse = (-log_scales).exp()
        # (..., components): log of each component's mass in the target's bin
        log_mass = self._log_mass((middle - means) * inverse, inverse / self.classes, bottom, top)
        # -log sum_k softmax(logits)[k] mass[k], as a difference of two log-sums: no mass underflows
        return logits.logsumexp(dim=-1) - (logits + log_mass).logsumexp(dim=-1)

    def check(self, truncation: Truncation) -> None:
        for name, value in (("top_k", truncation.top_k), ("top_p", truncation.top_p)):
            if value is not None:
                why = f"whose output ({self.describe()}) ranks no classes; lower the temperature instead"
                raise ParameterError(name, f"not with this model, {why}")

    def draw(self, parameters: Tensor, uniforms: Tensor, truncation: Truncation) -> Tensor:
        """See ``Distribution``: the uniform number chooses a component, what is left of it the place within.

        The temperature T divides the logits and multiplies the scales; 0 takes the mean of the likeliest component.
        The component is the first whose cumulative probability exceeds the uniform number u; (u - that of those
        before) / its own is uniform again, and the inverse of F makes it a place. The class is the one it lies in.
        """
        self.check(truncation)
        logits, means, log_scales = self._split(parameters.double())
        if truncation.temperature == 0:
            place = means.gather(-1, logits.argmax(dim=-1, keepdim=True))
        else:
            # (B, components), each component's share, not normalized
            p = ((logits - logits.amax(dim=-1, keepdim=True)) / truncation.temperature).exp()
            cdf = p.cumsum(dim=-1)  # (B, components), not normalized
            # u times the whole: (B, 1)
            target = uniforms[:, None] * cdf[:, -1:]
            last_possible = (cdf < cdf[:, -1:]).sum(dim=-1, keepdim=True)
            k = (cdf <= target).sum(dim=-1, keepdim=True).minimum(last_possible)
            # the remainder of u within the component is uniform again
            own = p.gather(-1, k)
            left = ((target - (cdf.gather(-1, k) - own)) / own).clamp(SMALLEST_UNIFORM, 1.0 - SMALLEST_UNIFORM)
            scale = log_scales.gather(-1, k).exp() * truncation.temperature
            place = means.gather(-1, k) + scale * self._quantile(left)
        # [-1, 1] -> [0, classes): the bin that the place lies in
        classes = ((place[:, 0] + 1.0) * (0.5 * self.classes)).floor()
        return classes.clamp(0, self.classes - 1).long()

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales, (..., components) each."""
        # (..., 3 components) -> three of (..., components)
        logits, means, log_scales = parameters.chunk(3, dim=-1)
        return logits, means * MEAN_UNIT, log_scales.clamp(*self.scale_limits)

    @abstractmethod
    def _log_mass(self, x: Tensor, half: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """Compute the logarithm of each component's probability of a bin.

        Gradients pass through both branches of a ``torch.where``: each must be finite everywhere.

        Args:
            x: (..., components) the bin's middle, in scales from the mean.
            half: (..., components) half the bin's width in scales: at least e^-3 / classes, at most about 10.
            bottom: (..., 1) whether it is the lowest bin, which has no lower bound.
            top: (..., 1) whether it is the highest.
        """

    @abstractmethod
    def _quantile(self, p: Tensor) -> Tensor:
        """Compute the inverse of F for a mean of 0 and a scale of 1; F is symmetric about its mean.

        Args:
            p: (B, 1) float64, from 2^-53 to 1 - 2^-53.
        """


@dataclass(frozen=True)
class LogisticMixture(Mixture):
    """A mixture of logistic distributions: F(x) = 1 / (1 + exp(-x)).

    PixelCNN++ (Salimans et al., 2017, section 2.1), for audio Parallel WaveNet (van den Oord et al., 2017, section 2).
    """

    kind = "logistic_mixture"
    shape = "logistic"

    def _log_mass(self, x: Tensor, half: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """See ``Mixture``; with this product no difference of nearly equal numbers is ever taken.

        F(u) - F(v) = F(u) F(-v) (1 - exp(v - u))
        """
        import torch
        from torch.nn import functional as F

        below_upper = torch.where(top, 0.0, F.logsigmoid(x + half))
        above_lower = torch.where(bottom, 0.0, F.logsigmoid(half - x))
        between = torch.where(bottom | top, 0.0, (-torch.expm1(-2.0 * half)).log())
        return below_upper + above_lower + between

    def _quantile(self, p: Tensor) -> Tensor:
        return p.log() - (-p).log1p()


@dataclass(frozen=True)
class GaussianMixture(Mixture):
    """A mixture of normal distributions; with one component a Gaussian (ClariNet, Ping et al., 2018, section 3.1)."""

    kind = "gaussian_mixture"
    shape = "Gaussian"

    def _log_mass(self, x: Tensor, half: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """See ``Mixture``: a bin is mirrored into the lower tail, where no digit of F is lost.

        log(F(u) - F(v)) = log F(u) + log(1 - exp(log F(v) - log F(u)))
        """
        import torch

        # Bins are narrow: in float32 the difference of two such logarithms would be noise.
        wide, half = x.double(), half.double()
        mirrored = -wide.abs()
        upper = torch.special.log_ndtr(torch.where(bottom, wide, torch.where(top, -wide, mirrored)) + half)
        lower = torch.special.log_ndtr(mirrored - half)
        ratio = torch.where(bottom | top, -math.inf, lower - upper)
        log_mass: Tensor = upper + (-torch.expm1(ratio)).log()
        return log_mass.to(x.dtype)

    def _quantile(self, p: Tensor) -> Tensor:
        import torch

        quantile: Tensor = torch.special.ndtri(p)
        return quantile


@dataclass(frozen=True)
class Regression(Distribution):
    """The next values of a series, in place of a distribution.

    Args:
        horizon: values that are forecast at every position.
        error: what is small when the forecast is good: the square or the absolute value of the difference.
    """

    horizon: int
    error: Literal["squared", "absolute"] = "squared"
    kind = "regression"
    classes = 0

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
