"""Mixtures of distributions on a line, of which each class is an interval.

Nothing here imports torch before it computes: see ``wavegen.model.outputs``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from wavegen.config.schema import OutputKind
from wavegen.errors import ParameterError
from wavegen.model.outputs import Truncation, at_least_float32

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN_UNIT = 0.005  # of a mixture's means, so that a step of the optimizer moves them by little (docs/recipe.md)
LOWEST_FIRST_SCALE, HIGHEST_FIRST_SCALE = -8.0, -2.0
SMALLEST_UNIFORM = 2.0**-53  # the remainder of a uniform number is clamped between this and 1 - this


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

    kind: ClassVar[OutputKind]
    shape: ClassVar[str]  # name of one component
    is_precise: ClassVar[bool] = True

    classes: int
    components: int = 10

    @property
    def n_parameters(self) -> int:
        return 3 * self.components

    @property
    def scale_limits(self) -> tuple[float, float]:
        """The smallest and the largest log-scale: a twentieth of a bin, where all is in one; ten times the range."""
        return math.log(2.0 / self.classes) - 3.0, 3.0

    @property
    def draw_constants(self) -> tuple[float, float, float]:
        """The unit of the means, the smallest and the largest log-scale."""
        return MEAN_UNIT, *self.scale_limits

    def describe(self) -> str:
        one = f"one {self.shape} distribution"
        return one if self.components == 1 else f"mixture of {self.components} {self.shape} distributions"

    def initialize(self, layer: nn.Linear) -> None:
        """See ``Distribution``: all means 0, and log-scales evenly spread, for quiet sounds and loud ones.

        They reach from a bin's width, or ``LOWEST_FIRST_SCALE`` if that is more, to ``HIGHEST_FIRST_SCALE``.
        """
        import torch
        from torch import nn

        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
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
