"""The output distribution of a sample: its loss, and how one uniform number becomes one class.

Nothing here imports torch before it computes: an engine that does without takes the description alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from wavegen.errors import UsageError
from wavegen.model.truncation import Truncation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from wavegen.config import Config

OutputKind = Literal["softmax", "logistic_mixture", "gaussian_mixture", "regression"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("softmax", "logistic_mixture", "gaussian_mixture")  # of sound

MEAN_UNIT = 0.005  # of a mixture's means, so that a step of the optimizer moves them by little (README, "The recipe")
LOWEST_FIRST_SCALE, HIGHEST_FIRST_SCALE = -8.0, -2.0
SMALLEST_UNIFORM = 2.0**-53  # what is left of a uniform number is kept between this and 1 - this


class Distribution(Protocol):
    """What the network's last layer describes: a probability for each class of the next sample."""

    @property
    def kind(self) -> OutputKind:
        """Its name in the configuration."""

    @property
    def classes(self) -> int:
        """Levels of a sample."""

    @property
    def n_parameters(self) -> int:
        """Numbers that describe one distribution: columns of the last layer."""

    def initialize(self, layer: nn.Linear) -> None:
        """Give the last layer its first weights, with which the prediction does not depend on the past."""

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        """The negative log-likelihood of each target.

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


def build_distribution(config: Config) -> Distribution:
    """The output distribution that a configuration names."""
    output, classes = config.output, config.quantization.classes
    if output.kind == "softmax":
        return Softmax(classes)
    if output.kind == "regression":
        from wavegen.model.regression import Regression

        return Regression(output.horizon, output.error)
    mixture = LogisticMixture if output.kind == "logistic_mixture" else GaussianMixture
    return mixture(classes, output.components)


@dataclass(frozen=True)
class Softmax:
    """A probability for each class (WaveNet, section 2.2).

        p(c) = exp(logits[c]) / sum over all classes i of exp(logits[i])

    Args:
        classes: number of levels.
    """

    classes: int
    kind: OutputKind = "softmax"

    @property
    def n_parameters(self) -> int:
        return self.classes

    def initialize(self, layer: nn.Linear) -> None:
        from torch import nn

        nn.init.zeros_(layer.weight)  # so that an untrained model says log2(classes) bits, not more
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional as F

        flat = _at_least_float32(parameters).reshape(-1, self.classes)
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
        cdf = scaled.exp().cumsum(dim=-1)  # (B, classes), not normalized
        total = cdf[:, -1:]
        drawn = torch.searchsorted(cdf, uniforms[:, None] * total, right=True)
        last_kept = (cdf < total).sum(dim=-1)
        return torch.minimum(drawn[:, 0], last_kept)


def _kept(scaled: Tensor, truncation: Truncation) -> Tensor:
    """Which classes top-k, then top-p leave: (B, classes) bool."""
    import torch

    order = scaled.argsort(dim=-1, descending=True, stable=True)
    ranked = scaled.gather(-1, order)
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if truncation.top_k is not None:
        keep[:, truncation.top_k :] = False
    if truncation.top_p is not None:
        p = ranked.masked_fill(~keep, float("-inf")).softmax(dim=-1)
        keep &= p.cumsum(dim=-1) - p < truncation.top_p
    return torch.zeros_like(keep).scatter(-1, order, keep)


@dataclass(frozen=True)
class Mixture(ABC):
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

    classes: int
    components: int = 10

    @property
    def n_parameters(self) -> int:
        return 3 * self.components

    @property
    def scale_limits(self) -> tuple[float, float]:
        """The smallest and the largest log-scale: a twentieth of a bin, where all is in one; ten times the range."""
        return math.log(2.0 / self.classes) - 3.0, 3.0

    def initialize(self, layer: nn.Linear) -> None:
        """See ``Distribution``: all means 0, scales from a bin's width to the range, as the sums of many sounds are."""
        import torch
        from torch import nn

        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        with torch.no_grad():
            lowest = max(self.scale_limits[0] + 3.0, LOWEST_FIRST_SCALE)
            layer.bias[2 * self.components :] = torch.linspace(lowest, HIGHEST_FIRST_SCALE, self.components)

    def loss(self, parameters: Tensor, targets: Tensor) -> Tensor:
        logits, means, log_scales = self._split(_at_least_float32(parameters))
        bottom, top = (targets == 0)[..., None], (targets == self.classes - 1)[..., None]
        middle = ((2 * targets + (1 - self.classes)).to(means.dtype) / self.classes)[..., None]  # of the target's bin
        inverse = (-log_scales).exp()
        log_mass = self._log_mass((middle - means) * inverse, inverse / self.classes, bottom, top)
        return logits.logsumexp(dim=-1) - (logits + log_mass).logsumexp(dim=-1)

    def check(self, truncation: Truncation) -> None:
        for option, value in (("--top-k", truncation.top_k), ("--top-p", truncation.top_p)):
            if value is not None:
                raise UsageError(
                    f"{option}: not with this model, whose output is a {self.kind.replace('_', ' ')}: it ranks no "
                    "classes; give a lower --temperature instead"
                )

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
            p = ((logits - logits.amax(dim=-1, keepdim=True)) / truncation.temperature).exp()
            cdf = p.cumsum(dim=-1)  # (B, components), not normalized
            target = uniforms[:, None] * cdf[:, -1:]
            last_possible = (cdf < cdf[:, -1:]).sum(dim=-1, keepdim=True)
            k = (cdf <= target).sum(dim=-1, keepdim=True).minimum(last_possible)
            own = p.gather(-1, k)
            left = ((target - (cdf.gather(-1, k) - own)) / own).clamp(SMALLEST_UNIFORM, 1.0 - SMALLEST_UNIFORM)
            scale = log_scales.gather(-1, k).exp() * truncation.temperature
            place = means.gather(-1, k) + scale * self._quantile(left)
        classes = ((place[:, 0] + 1.0) * (0.5 * self.classes)).floor()
        return classes.clamp(0, self.classes - 1).long()

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales, (..., components) each."""
        logits, means, log_scales = parameters.chunk(3, dim=-1)
        return logits, means * MEAN_UNIT, log_scales.clamp(*self.scale_limits)

    @property
    @abstractmethod
    def kind(self) -> OutputKind:
        """Its name in the configuration."""

    @abstractmethod
    def _log_mass(self, x: Tensor, half: Tensor, bottom: Tensor, top: Tensor) -> Tensor:
        """The logarithm of the probability that each component gives a bin.

        Args:
            x: (..., components) the bin's middle, in scales from the mean.
            half: (..., components) half the bin's width in scales.
            bottom: (..., 1) whether it is the lowest bin, which has no lower bound.
            top: (..., 1) whether it is the highest.
        """

    @abstractmethod
    def _quantile(self, p: Tensor) -> Tensor:
        """The inverse of F."""


@dataclass(frozen=True)
class LogisticMixture(Mixture):
    """A mixture of logistic distributions: F(x) = 1 / (1 + exp(-x)).

    PixelCNN++ (Salimans et al., 2017, section 2.1), for audio Parallel WaveNet (van den Oord et al., 2017, section 2).
    """

    @property
    def kind(self) -> OutputKind:
        return "logistic_mixture"

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

    @property
    def kind(self) -> OutputKind:
        return "gaussian_mixture"

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


def _at_least_float32(parameters: Tensor) -> Tensor:
    import torch

    return parameters if parameters.dtype == torch.float64 else parameters.float()
