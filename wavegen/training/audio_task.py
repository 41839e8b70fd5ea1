"""Training on recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.levels import MOST_SECONDS, RecordingProfile
from wavegen.audio.quantize import Quantizer
from wavegen.config import Config
from wavegen.data.conditioning import ClipCondition, build_conditioner
from wavegen.data.corpus import Clip, Corpus, by_content
from wavegen.data.recordings import first_samples
from wavegen.data.windows import WindowStream
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, baseline_bits, fit_baselines
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.evaluation.likelihood import model_bits
from wavegen.evaluation.measure import measure_of, unit_of_loss
from wavegen.model.network import Network
from wavegen.training.audition import audition

MOST_AUDITIONED = 4  # labels, one behind the other


class AudioTask:
    """Recordings as ``wavegen.training.task.Task``; the measure is bits/sample.

    Args:
        config: frozen.
        corpus: of recordings.
        quantizer: the model's companding.
    """

    def __init__(self, config: Config, corpus: Corpus[Clip], quantizer: Quantizer) -> None:
        self.settings, self.corpus, self.quantizer = config.training, corpus, quantizer
        self.measure, self.loss_scale = measure_of(config), unit_of_loss(config)
        self.sample_rate_hz, self.following = config.audio.sample_rate_hz, config.data.following
        self.conditioner = build_conditioner(config)
        self._fitted: Baselines | None = None

    def windows(self, network: Network) -> WindowStream[Clip]:
        """Windows of the recordings, under their conditions."""
        return WindowStream(
            self.corpus.train,
            network.receptive_field,
            self.settings.window_targets,
            network.padding(self.quantizer.silence),
            self.settings.seed,
            self._condition_of if self.conditioner.is_needed else None,
            # what a vocoder makes follows its spectrogram, not the clip before
            0.0 if self.conditioner.mel is not None else self.following,
            [clip.label if self.conditioner.labels else None for clip in self.corpus.train],
        )

    def amount(self, targets: int) -> dict[str, float]:
        """Return the hours of audio."""
        return {"hours_of_audio": targets / self.sample_rate_hz / 3600}

    def held_out(self, seconds: float | None) -> list[ScoredClip]:
        """The clips; one that is cut short is conditioned as a whole."""
        limit = None if seconds is None else max(1, round(seconds * self.sample_rate_hz))
        clips = by_content(self.corpus.validation)
        return [
            ScoredClip(clip.name, classes, self._condition_of(clip) if self.conditioner.is_needed else None)
            for clip, classes in zip(clips, first_samples(clips, limit), strict=False)
        ]

    def length(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """In seconds: of these clips, and of all that is held out."""
        n_held_out = sum(clip.n_samples for clip in self.corpus.validation)
        lengths = {"held_out_seconds": sum(map(self.n_predictions, clips)), "all_held_out_seconds": n_held_out}
        return {name: n_samples / self.sample_rate_hz for name, n_samples in lengths.items()}

    def n_predictions(self, clip: ScoredClip) -> int:
        """One for each sample."""
        return len(clip.classes)

    def costs(self, network: Network, clips: Sequence[ScoredClip], heard: Callable[[int], None]) -> list[float]:
        """In bits."""
        classes, conditions = [clip.classes for clip in clips], [clip.condition for clip in clips]
        return model_bits(network, classes, self.quantizer.silence, heard, conditions)

    def baselines(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """In bits/sample of the same clips."""
        if self._fitted is None:
            self._fitted = fit_baselines(first_samples(self.corpus.train, FITTED_SAMPLES), self.quantizer.classes)
        return baseline_bits(self._fitted, [clip.classes for clip in clips], self.quantizer)

    def profile(self) -> dict[str, Any] | None:
        """Measure half an hour of the training clips, as decoded from their classes."""
        rate = self.sample_rate_hz
        clips = first_samples(by_content(self.corpus.train), round(MOST_SECONDS * rate))
        profile = RecordingProfile.of([self.quantizer.decode(clip) for clip in clips], rate)
        return None if profile is None else profile.as_dict()

    def audition(
        self, network: Network, seconds: float, seed: int, progress: Callable[[int, int], None]
    ) -> npt.NDArray[np.float32]:
        """The first labels one behind the other, or what a vocoder makes of a held-out recording."""
        rate = self.sample_rate_hz
        conditions: list[ClipCondition] = []
        if self.conditioner.mel is not None:
            clip = by_content(self.corpus.validation or self.corpus.train)[0]
            conditions, seconds = [self._condition_of(clip)], min(seconds, clip.n_samples / rate)
        else:
            labels = [{label: 1.0} for label in self.conditioner.labels[:MOST_AUDITIONED]]
            conditions = [one for label in labels if (one := self.conditioner.to_generate(label, None)) is not None]
        return audition(network, self.quantizer, rate, seconds, seed, progress, conditions)

    def _condition_of(self, clip: Clip) -> ClipCondition:
        condition = self.conditioner.of_clip(clip.classes(), clip.label)
        assert condition is not None
        return condition
