"""Score clips: bits/sample of each clip and of all together, for the model and the trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.data.conditioning import ClipCondition
from wavegen.errors import DataError
from wavegen.evaluation.baselines import Baselines
from wavegen.evaluation.baselines import clip_bits as baseline_clip_bits
from wavegen.evaluation.interval import Comparison, compare

if TYPE_CHECKING:
    from wavegen.model.network import Network


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
    return [
        Score(
            clip.name,
            len(clip.classes),
            model_bits(model, [clip.classes], quantizer.silence, scored, [clip.condition])[0],
            {} if baselines is None else baseline_clip_bits(baselines, clip.classes, quantizer),
            clip.label,
            clip.trained_on,
        )
        for clip in clips
        if len(clip.classes)
    ]


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
