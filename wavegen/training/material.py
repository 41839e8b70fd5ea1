"""What a training is about: recordings, or series of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Quantizer
from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.data.windows import WindowStream
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.model.network import Network
from wavegen.training.series import Series
from wavegen.training.sound import Sound


class Material(Protocol):
    """What to train on, how to score what is held out, and what there is to hear."""

    def windows(self, network: Network) -> WindowStream[Any]:
        """The windows to train on."""

    def amount(self, targets: int) -> float:
        """How much so many targets are, in the unit of ``Measure.heard``."""

    def held_out(self, seconds: float | None) -> list[ScoredClip]:
        """Held-out clips until so many seconds are together, the last one cut short; without a limit all of them."""

    def length(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """How much held-out clips are, as a line of ``metrics.jsonl`` has it."""

    def n_predictions(self, clip: ScoredClip) -> int:
        """How many predictions a clip scores."""

    def costs(self, network: Network, clips: Sequence[ScoredClip], heard: Callable[[int], None]) -> list[float]:
        """What each clip costs, summed over its predictions, in the unit of the measure.

        Args:
            network: with the weights to score.
            clips: to score.
            heard: called with the number of predictions after each part.
        """

    def baselines(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """What a prediction costs by each trivial baseline, fitted on the training split."""

    def profile(self) -> dict[str, Any] | None:
        """Measure the profile of the training clips that checkpoints keep; None where there is no sound."""

    def audition(
        self, network: Network, seconds: float, seed: int, progress: Callable[[int, int], None]
    ) -> npt.NDArray[np.float32] | None:
        """What a network sounds like, (T,) at the corpus's rate; None where there is nothing to hear.

        Args:
            network: with the weights to hear.
            seconds: of an audition.
            seed: of the draws; the same at every audition, so that they compare.
            progress: called with (samples made, samples in all).
        """


def build_material(config: Config, corpus: Corpus, quantizer: Quantizer) -> Material:
    """What a frozen configuration and its corpus give to train on."""
    return Series(config, corpus) if config.is_series else Sound(config, corpus, quantizer)
