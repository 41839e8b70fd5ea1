"""Confidence intervals over clips: how far a figure of some clips may be from that of all clips of their kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure over clips, such as bits/sample.

    Args:
        figure: total over clips by total size.
        margin: half the width of its 95% confidence interval; None if there are too few clips.
    """

    figure: float
    margin: float | None

    @property
    def interval(self) -> list[float] | None:
        """Bounds of the 95% confidence interval, for ``--json``."""
        return None if self.margin is None else [self.figure - self.margin, self.figure + self.margin]


def over_clips(totals: Sequence[float], sizes: Sequence[int]) -> Estimate:
    """Estimate a ratio of sums over clips of unequal size, with its 95% confidence interval.

        R = sum b_i / sum n_i,   R +- t s,   s^2 = (k - 1) / k * sum over i of (R_i - R)^2

    over k clips of which clip i has the total b_i and the size n_i; R_i is the ratio without clip i, and t the 97.5%
    point of Student's distribution with k - 1 degrees of freedom. The ratio estimator is Cochran's (1977, "Sampling
    Techniques", 3rd edition, chapter 6), its standard error the jackknife's (Efron and Tibshirani, 1993, "An
    Introduction to the Bootstrap", chapter 11), with Student's t as Tukey proposed (1958, "Bias and confidence in
    not-quite large samples", Annals of Mathematical Statistics 29). Unlike the linearized error it does not shrink
    where one clip is most of the audio.

    It takes the clips for independent draws from all clips of their kind. Where several come from one recording, they
    are not, and the interval is too narrow. It does not cover the spread between trainings of the same model.

    Args:
        totals: of each clip, such as bits, or differences of bits.
        sizes: of each clip, such as samples; 1 or more.

    Returns:
        The ratio; without an interval for fewer than two clips, or where a total is not finite.
    """
    from scipy.special import stdtrit

    b, n = np.asarray(totals, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    clips, whole = len(b), n.sum()
    with np.errstate(invalid="ignore"):  # infinities of both signs
        ratio = float(b.sum() / whole)
    if clips < 2 or not math.isfinite(ratio):
        return Estimate(ratio, None)
    changes = (ratio * n - b) / (whole - n)  # R_i - R
    error = math.sqrt((clips - 1) / clips * np.square(changes).sum())
    return Estimate(ratio, float(stdtrit(clips - 1, (1 + LEVEL) / 2)) * error)


@dataclass(frozen=True)
class Comparison:
    """A model compared with the trivial baselines on the same clips.

    Args:
        model: its figure.
        baselines: their figures, by name.
        minus: the model's minus each baseline's, clip by clip: an interval below 0 means that the model is better on
            clips of this kind, even where the intervals of the two overlap.
    """

    model: Estimate
    baselines: dict[str, Estimate]
    minus: dict[str, Estimate]

    def as_dict(self, key: str) -> dict[str, Any]:
        """Return the intervals and differences as a document for ``--json``; ``key`` names the figure."""
        return {
            "interval_95": self.model.interval,
            "baseline_intervals_95": {name: each.interval for name, each in self.baselines.items()},
            "minus_baselines": {
                name: {key: each.figure, "interval_95": each.interval} for name, each in self.minus.items()
            },
        }


def compare(own: Sequence[float], baselines: Mapping[str, Sequence[float]], sizes: Sequence[int]) -> Comparison:
    """Compare a model with the trivial baselines.

    Args:
        own: the model's total on each clip.
        baselines: each baseline's on the same clips.
        sizes: of the clips.
    """
    return Comparison(
        over_clips(own, sizes),
        {name: over_clips(totals, sizes) for name, totals in baselines.items()},
        {
            name: over_clips([mine - theirs for mine, theirs in zip(own, totals, strict=True)], sizes)
            for name, totals in baselines.items()
        },
    )
