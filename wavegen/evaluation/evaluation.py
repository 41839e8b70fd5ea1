"""Scoring clips: bits/sample of each and of all, beside the trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt

from wavegen.audio.conditions import ClipCondition
from wavegen.audio.quantize import Quantizer
from wavegen.errors import DataError
from wavegen.evaluation.baselines import Baselines
from wavegen.evaluation.baselines import clip_bits as baseline_clip_bits
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.network import Network


class ScoredClip(NamedTuple):
    """A clip to score.

    Attributes:
        name: of the clip.
        classes: (T,); of a series the values as the network sees them.
        condition: of a conditioned model: what the clip is conditioned on.
    """

    name: str
    classes: npt.NDArray[Any]
    condition: ClipCondition | None = None


@dataclass(frozen=True)
class Score:
    """What coding some audio takes.

    Args:
        name: of the clip.
        n_samples: its length.
        bits: by the model, in all.
        baseline_bits: by each trivial baseline, in all.
    """

    name: str
    n_samples: int
    bits: float
    baseline_bits: dict[str, float]

    @property
    def bits_per_sample(self) -> float:
        """The model's figure."""
        return self.bits / self.n_samples

    def as_dict(self, sample_rate_hz: int) -> dict[str, Any]:
        """The figures per sample, for ``--json``."""
        return {
            "name": self.name,
            "seconds": self.n_samples / sample_rate_hz,
            "samples": self.n_samples,
            "bits_per_sample": self.bits_per_sample,
            "baselines": {name: bits / self.n_samples for name, bits in self.baseline_bits.items()},
        }


def score_clips(
    model: Network,
    clips: Sequence[ScoredClip],
    quantizer: Quantizer,
    baselines: Baselines | None,
    heard: Callable[[int], None],
) -> list[Score]:
    """Score each clip.

    Args:
        model: in float32, with the weights to score.
        clips: to score.
        quantizer: the model's companding.
        baselines: fitted on the training split; None leaves their figures out.
        heard: called with the number of samples after each stretch.

    Raises:
        DataError: there is no sample to score.
    """
    if not any(len(classes) for _, classes, _ in clips):
        raise DataError("expected audio to score, found none")
    return [
        Score(
            name,
            len(classes),
            model_bits(model, [classes], quantizer.silence, heard, [condition])[0],
            {} if baselines is None else baseline_clip_bits(baselines, classes, quantizer),
        )
        for name, classes, condition in clips
        if len(classes)
    ]


def total(scores: Sequence[Score]) -> Score:
    """All clips as one: every sample counts the same."""
    return Score(
        "all",
        sum(score.n_samples for score in scores),
        sum(score.bits for score in scores),
        {name: sum(score.baseline_bits[name] for score in scores) for name in scores[0].baseline_bits},
    )
