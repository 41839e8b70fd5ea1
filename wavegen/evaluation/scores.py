"""Scores: the unit of a model's losses, and bits/sample of clips with intervals, and those of trivial baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import StoredFrames
from wavegen.audio.quantize import Quantizer, build_quantizer
from wavegen.config import Config
from wavegen.data.conditioning import ClipCondition
from wavegen.errors import DataError
from wavegen.evaluation.baselines import Baselines
from wavegen.evaluation.baselines import clip_bits as baseline_clip_bits
from wavegen.text import guide

if TYPE_CHECKING:
    from wavegen.model.network import Network

LEVEL = 0.95  # of confidence intervals
LEAST_GAIN = 0.01  # bits/sample that the right frames save in a model that follows them
FEWEST_SECONDS = 30.0  # of held-out audio: a loss on less changes more from clip to clip than from model to model
FEWEST_CLIPS = 5  # whose mean lies within 1.2 of their standard deviations; that of two within 9


@dataclass(frozen=True)
class LossUnit:
    """The unit of a loss. Less is better.

    Attributes:
        name: stored in files.
        full_name: printed after a number; names the classes unless they are the usual 256 mu-law ones.
        data: the kind of data that a model with this loss is trained on.
    """

    name: str
    full_name: str
    data: str

    @property
    def is_bits(self) -> bool:
        """True for the loss of an audio model."""
        return self.name == BITS.name

    def format(self, loss: float | None) -> str:
        """Return a loss with its significant digits."""
        if loss is None:
            return "-"
        return f"{loss:.3f}" if self.is_bits else f"{loss:.4g}"


BITS = LossUnit("bits/sample", "bits/sample", "audio")
SQUARED_ERROR = LossUnit("squared error", "squared error", "series")
ABSOLUTE_ERROR = LossUnit("absolute error", "absolute error", "series")
LOSS_UNITS = {unit.name: unit for unit in (BITS, SQUARED_ERROR, ABSOLUTE_ERROR)}


def loss_unit_of(config: Config) -> LossUnit:
    """Return the unit of the losses of a configuration's output."""
    if config.output.kind != "regression":
        return replace(BITS, full_name=build_quantizer(config).unit)
    return SQUARED_ERROR if config.output.error == "squared" else ABSOLUTE_ERROR


def loss_unit_in(entry: Mapping[str, Any]) -> LossUnit:
    """Return the unit of the losses in a line of ``metrics.jsonl``; the line does not store the classes."""
    return LOSS_UNITS[entry.get("loss_unit", BITS.name)]


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

    def less(theirs: Sequence[float]) -> Estimate:
        return over_clips([mine - other for mine, other in zip(own, theirs, strict=True)], sizes)

    figures = {name: over_clips(totals, sizes) for name, totals in baselines.items()}
    return Comparison(over_clips(own, sizes), figures, {name: less(totals) for name, totals in baselines.items()})


class ScoredClip(NamedTuple):
    """A clip to score.

    Attributes:
        name: of the clip.
        classes: (T,); of a series the values as the network sees them.
        condition: of a conditioned model: what the clip is conditioned on.
        label: of a model with labels: the clip's, or a mix of several.
        trained_on: whether the training used it; None where that is not known.
    """

    name: str
    classes: npt.NDArray[Any]
    condition: ClipCondition | None = None
    label: str | None = None
    trained_on: bool | None = None


def with_shuffled_frames(clips: Sequence[Any]) -> list[Any] | None:
    """Return clips conditioned on the frames of others; None where they are not conditioned on frames.

    The frames of all clips, end to end, are rotated by half of their number.

    Args:
        clips: as ``ScoredClip``, of one model.
    """
    frames = [] if not clips or getattr(clips[0], "condition", None) is None else [c.condition.frames for c in clips]
    if not frames or frames[0] is None:
        return None
    everything = np.concatenate([each[:] for each in frames])  # (F of all clips, D)
    ends = np.cumsum([len(each) for each in frames])
    parts = np.split(np.roll(everything, len(everything) // 2, axis=0), ends[:-1])
    return [
        clip._replace(condition=replace(clip.condition, frames=StoredFrames(part, own.n_samples)))
        for clip, own, part in zip(clips, frames, parts, strict=True)
    ]


def describe_gain(bits: float) -> str:
    """Describe the bits/sample that the right frames save; where they are next to none, a warning."""
    saved = f"the right frames save {bits:.3f} bits/sample against shuffled ones"
    if bits >= LEAST_GAIN:
        return saved
    return f"{saved}: the model ignores them; train longer, and see whether they fit the sound ({guide('features')})"


@dataclass(frozen=True)
class Score:
    """The bits that coding a clip takes, with the model and with each baseline.

    Args:
        name: of the clip.
        n_samples: its length.
        bits: by the model, in all.
        baseline_bits: by each trivial baseline, in all.
        label: as ``ScoredClip``.
        trained_on: as ``ScoredClip``.
    """

    name: str
    n_samples: int
    bits: float
    baseline_bits: dict[str, float]
    label: str | None = None
    trained_on: bool | None = None

    @property
    def bits_per_sample(self) -> float:
        """Bits/sample of the model."""
        return self.bits / self.n_samples

    def as_dict(self, sample_rate_hz: int) -> dict[str, Any]:
        """Return the score as a document for ``--json``."""
        return {
            "name": self.name,
            "seconds": self.n_samples / sample_rate_hz,
            "samples": self.n_samples,
            "bits": self.bits,
            "bits_per_sample": self.bits_per_sample,
            "baselines": {name: bits / self.n_samples for name, bits in self.baseline_bits.items()},
        }


def score_clips(
    model: Network,
    clips: Sequence[ScoredClip],
    quantizer: Quantizer,
    baselines: Baselines | None,
    scored: Callable[[int], None],
) -> list[Score]:
    """Score each clip.

    Args:
        model: in float32, with the weights to score.
        clips: to score.
        quantizer: the model's companding.
        baselines: fitted on the training split; None leaves their figures out.
        scored: called with the number of samples after each stretch.

    Raises:
        DataError: there is no sample to score.
    """
    from wavegen.evaluation.likelihood import model_bits

    if not any(len(clip.classes) for clip in clips):
        raise DataError("expected audio to score, found none")
    scores = []
    for clip in (clip for clip in clips if len(clip.classes)):
        (bits,) = model_bits(model, [clip.classes], quantizer.silence, scored, [clip.condition])
        of_baselines = {} if baselines is None else baseline_clip_bits(baselines, clip.classes, quantizer)
        scores.append(Score(clip.name, len(clip.classes), bits, of_baselines, clip.label, clip.trained_on))
    return scores


def total(scores: Sequence[Score]) -> Score:
    """All clips as one: every sample counts the same."""
    return Score(
        "all",
        sum(score.n_samples for score in scores),
        sum(score.bits for score in scores),
        {name: sum(score.baseline_bits[name] for score in scores) for name in scores[0].baseline_bits},
    )


def comparison(scores: Sequence[Score]) -> Comparison:
    """Bits/sample of all clips, with 95% confidence intervals over clips."""
    return compare(
        [score.bits for score in scores],
        {name: [score.baseline_bits[name] for score in scores] for name in scores[0].baseline_bits},
        [score.n_samples for score in scores],
    )


def by_label(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Group scores by label, sorted; clips without a label are left out."""
    labels = sorted({score.label for score in scores if score.label is not None})
    return {label: [score for score in scores if score.label == label] for label in labels}
