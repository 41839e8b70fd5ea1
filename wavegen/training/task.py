"""What a training is about: recordings, or series of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import build_quantizer
from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.data.recordings import read_recordings, with_labels
from wavegen.data.windows import Batch
from wavegen.evaluation.measure import Measure
from wavegen.model.network import Network

Scored = TypeVar("Scored")  # a held-out clip, or series, as the task scores it


class Windows(Protocol):
    """The endless stream of training windows."""

    def batch(self, first: int, count: int) -> Batch:
        """Return windows first .. first + count - 1 of the stream as one batch."""

    def n_targets(self, first: int, count: int) -> int:
        """Return how many targets of these windows are real."""


class Task(Protocol[Scored]):
    """What to train on, how to score what is held out, and what there is to listen to.

    Attributes:
        measure: what its losses are called.
        loss_scale: the factor from the loss of a training step to the unit of ``measure``.
    """

    measure: Measure
    loss_scale: float

    def windows(self, network: Network) -> Windows:
        """The windows to train on."""

    def amount(self, targets: int) -> dict[str, float]:
        """Return how much has been trained on, as a line of ``metrics.jsonl`` has it."""

    def held_out(self, seconds: float | None) -> list[Scored]:
        """Held-out clips until so many seconds are together, the last one cut short; without a limit all of them."""

    def length(self, clips: Sequence[Scored]) -> dict[str, float]:
        """How much held-out clips are, as a line of ``metrics.jsonl`` has it."""

    def n_predictions(self, clip: Scored) -> int:
        """How many predictions a clip scores."""

    def costs(self, network: Network, clips: Sequence[Scored], heard: Callable[[int], None]) -> list[float]:
        """What each clip costs, summed over its predictions, in the unit of the measure.

        Args:
            network: with the weights to score.
            clips: to score.
            heard: called with the number of predictions after each part.
        """

    def baselines(self, clips: Sequence[Scored]) -> dict[str, float]:
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


def build_task(config: Config, corpus: Corpus[Any]) -> Task[Any]:
    """Build the task of a frozen configuration on its corpus."""
    if config.is_series:
        from wavegen.series.task import SeriesTask

        return SeriesTask(config, corpus)
    from wavegen.training.audio_task import AudioTask

    return AudioTask(config, corpus, build_quantizer(config))


def read_corpus(config: Config, progress: Callable[[int, int], None] | None = None) -> Corpus[Any]:
    """Read the corpus that a configuration names: recordings, or series of numbers.

    Args:
        config: with ``data.folder``, or with synthetic series.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the configuration names no folder, or there is none.
        DataError: it holds nothing to train on.
    """
    if config.is_series:
        from wavegen.series import corpus

        return corpus.read_corpus(config, progress)
    return read_recordings(config, progress)


def with_corpus(config: Config, corpus: Corpus[Any]) -> Config:
    """Return the configuration with what its corpus decides: the labels, or the offset and scale of series.

    Raises:
        DataError: the corpus has a label that is not among those given, or too many.
    """
    if config.is_series:
        from wavegen.series.corpus import with_normalization

        return with_normalization(config, corpus)
    return with_labels(config, corpus)
