"""The protocol of what a model is trained on, the kinds of it, and the one place that chooses between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.data.corpus import Corpus, Progress
from wavegen.data.windows import Batch
from wavegen.evaluation import LossUnit
from wavegen.model.network import Network
from wavegen.series.task import SeriesTask
from wavegen.training.audio_task import AudioTask, Overhead

Scored = TypeVar("Scored")  # a held-out clip, or series, as the task scores it


class Windows(Protocol):
    """The endless stream of training windows."""

    def batch(self, first: int, count: int) -> Batch:
        """Return windows first .. first + count - 1 of the stream as one batch."""

    def n_targets(self, first: int, count: int) -> int:
        """Return the number of real targets in these windows."""


class Task(Protocol[Scored]):
    """A training task: training windows, scores of held-out data, and auditions.

    Attributes:
        fewest_steps: with fewer, a model learns next to nothing.
        tries_bfloat16: ``training.precision: auto`` measures whether bfloat16 is faster.
        loss_unit: what its losses are called.
        loss_scale: the factor from the loss of a training step to the unit of ``loss_unit``.
    """

    fewest_steps: ClassVar[int]
    tries_bfloat16: ClassVar[bool]
    loss_unit: LossUnit
    loss_scale: float

    @staticmethod
    def noise(config: Config, network: Network, n_windows: int, window_targets: int) -> Batch:
        """Return a batch of noise, to time steps with; all targets are real."""

    @staticmethod
    def measure_overhead(config: Config, corpus: Corpus[Any], network: Network, batch: Batch) -> Overhead | None:
        """Measure the time of validations and auditions on this machine, for ``training.minutes``.

        Args:
            config: of the training.
            corpus: to validate on.
            network: an untrained one.
            batch: of noise.

        Returns:
            None where a validation always scores all that is held out, at the speed of training, without auditions.
        """

    def windows(self, network: Network) -> Windows:
        """Return the windows to train on."""

    def trained_on(self, n_targets: int) -> dict[str, float]:
        """Return the amount of data in a number of targets, as a line of ``metrics.jsonl`` has it."""

    def validation_clips(self, seconds: float | None) -> list[Scored]:
        """Return held-out clips up to a total of ``seconds``, the last one cut short; without a limit all."""

    def validation_length(self, clips: Sequence[Scored]) -> dict[str, float]:
        """Return the amount of held-out data, as a line of ``metrics.jsonl`` has it."""

    def n_predictions(self, clip: Scored) -> int:
        """Return the number of predictions in a clip."""

    def summed_losses(self, network: Network, clips: Sequence[Scored], scored: Callable[[int], None]) -> list[float]:
        """Score clips.

        Args:
            network: with the weights to score.
            clips: to score.
            scored: called with the number of predictions after each part.

        Returns:
            The loss of each clip, summed over its predictions, in the unit of ``loss_unit``.
        """

    def baselines(self, clips: Sequence[Scored]) -> dict[str, float]:
        """Return the mean loss of each trivial baseline on clips; they are fitted on the training split."""

    def recording_profile(self) -> dict[str, Any] | None:
        """Measure the profile of the training clips that checkpoints keep; None where there is no sound."""

    def audition(
        self, network: Network, seconds: float, seed: int, progress: Progress
    ) -> npt.NDArray[np.float32] | None:
        """Generate an audition, (T,) at the corpus's rate; None for tasks without sound.

        Args:
            network: with the weights to generate with.
            seconds: of an audition.
            seed: of the draws; the same at every audition, so that they compare.
            progress: called with (samples made, samples in all).
        """


def task_type(config: Config) -> type[AudioTask] | type[SeriesTask]:
    """Return the kind of task that a configuration describes.

    Its ``read_corpus`` reads the corpus that a configuration names, and its ``with_corpus`` returns the configuration
    with what its corpus decides: the labels, or the offset and scale of series.
    """
    return SeriesTask if config.is_series else AudioTask


def build_task(config: Config, corpus: Corpus[Any]) -> Task[Any]:
    """Build the task of a complete configuration on its corpus."""
    return task_type(config)(config, corpus)
