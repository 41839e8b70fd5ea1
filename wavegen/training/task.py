"""The task of training on recordings: windows, bits/sample of held-out clips, auditions.

``SeriesTask`` (``wavegen.series.task``) has the same methods for series of numbers; what series have not (overhead of
auditions, a profile, auditions) is None there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from wavegen.audio.frames import Features
from wavegen.audio.levels import MOST_SECONDS, RecordingProfile
from wavegen.audio.quantize import Decoded, build_quantizer
from wavegen.audio.waveform import quiet_stretches
from wavegen.config import Config
from wavegen.data.conditioning import ClipCondition, Conditioner, build_conditioner, join_segments, stack_tables
from wavegen.data.corpus import Clip, Corpus, Progress, by_content
from wavegen.data.recordings import first_samples, read_recordings, with_conditions
from wavegen.data.windows import Batch, ClipPowers, Order, WindowStream
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, baseline_bits, fit_baselines
from wavegen.evaluation.likelihood import model_bits
from wavegen.evaluation.scores import ScoredClip, loss_unit_of
from wavegen.model.network import Network
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.series.task import SeriesTask

MOST_AUDITIONED = 4  # labels, one behind the other
TIMED_SAMPLES = 200  # of an audition
BEGINNING_SECONDS = 0.05  # of the first moments of a clip that stand on the tape once more
PAUSE_SECONDS = 0.2  # at least, after which sound begins anew
PAUSE_BELOW_DB = 40.0  # the loudest part of its clip


class Overhead(NamedTuple):
    """The time that validations and auditions take in addition to the steps.

    Attributes:
        held_out: what a validation can score, in seconds of audio or points of series.
        scored: what it scores by the configuration.
        scoring_seconds: to score a second of audio, or a point.
        audition_seconds: to generate a second of an audition.
    """

    held_out: float
    scored: float
    scoring_seconds: float
    audition_seconds: float


class AudioTask:
    """Training windows of recordings, scores of those that are held out, and auditions.

    Args:
        config: complete.
        corpus: of recordings.

    Attributes:
        fewest_steps: with fewer, a model learns next to nothing.
        tries_bfloat16: ``training.precision: auto`` measures whether bfloat16 is faster.
        read_corpus: reads the corpus that a configuration names.
        with_corpus: returns a configuration with what its corpus decides, such as the labels.
        last_step_margin: the weights of the last step are kept as the best if no others are better by so much.
        loss_unit: what its losses are called.
        loss_scale: the factor from the loss of a training step to the unit of ``loss_unit``.
    """

    fewest_steps: ClassVar[int] = 200  # with fewer, a model hardly leaves the noise that it begins with
    tries_bfloat16: ClassVar[bool] = True
    last_step_margin: ClassVar[float] = 0.05  # bits/sample; seeds of one setting differ by as much
    loss_scale = 1.0 / math.log(2)  # nats to bits
    read_corpus = staticmethod(read_recordings)
    with_corpus = staticmethod(with_conditions)

    def __init__(self, config: Config, corpus: Corpus[Clip]) -> None:
        self.config, self.settings, self.corpus = config, config.training, corpus
        self.quantizer = build_quantizer(config)
        self.loss_unit = loss_unit_of(config)
        self.sample_rate_hz = config.audio.sample_rate_hz
        self.conditioner = build_conditioner(config)
        self._fitted: Baselines | None = None

    @staticmethod
    def noise(config: Config, network: Network, n_windows: int, window_targets: int) -> Batch:
        """Return a batch of random classes under a random condition, to time steps with; all targets are real."""
        # (B, field - 1 + T) inputs, (B, T) targets
        rng = np.random.default_rng(0)
        n_inputs = network.receptive_field - 1 + window_targets
        inputs = rng.integers(network.classes, size=(n_windows, n_inputs))
        targets = rng.integers(network.classes, size=(n_windows, window_targets))
        condition = noise_condition(config, n_inputs, network)
        rows = None
        if condition is not None:
            table_rows = condition.most_rows(n_inputs, 1)
            rows = stack_tables([join_segments([(condition, 0, n_inputs)], table_rows, n_inputs)] * n_windows)
        return Batch(inputs, targets, np.ones(targets.shape, dtype=np.bool_), rows)

    @staticmethod
    def measure_overhead(config: Config, corpus: Corpus[Clip], network: Network, batch: Batch) -> Overhead:
        """Time a second of scoring, and a second of an audition, for ``training.minutes``.

        Args:
            config: of the training.
            corpus: to validate on.
            network: an untrained one.
            batch: of noise.
        """
        settings, rate = config.training, config.audio.sample_rate_hz
        held_out = sum(clip.n_samples for clip in corpus.validation) / rate
        scored = held_out if settings.validation_seconds is None else min(held_out, settings.validation_seconds)
        return Overhead(
            held_out,
            scored,
            scoring_seconds=_scoring_seconds(config, network, batch),
            # an audition's samples are made one after another: their time is what a second of audio costs
            audition_seconds=_sampling_seconds(config, network) * rate if settings.audition_every else 0.0,
        )

    def windows(self, network: Network) -> WindowStream:
        """Return windows of the recordings, under their conditions."""
        conditioner = _for_training(self.conditioner, network)
        clips = [clip for clip in self.corpus.train if clip.n_samples]  # features of no whole frame leave none
        weight, powers = self.config.quiet_weight, None
        if weight != 1:  # with 1 no sample is read before it is needed
            amplitudes = self.quantizer.decode(np.arange(self.quantizer.classes))
            powers = ClipPowers((clip.classes() for clip in clips), amplitudes)
        has_frames = conditioner.frames is not None  # sound that follows frames does not follow the clip before
        order = Order(
            following=0.0 if has_frames else self.config.data.following,
            labels=[clip.label if conditioner.labels else None for clip in clips],
            beginnings=0.0 if has_frames else self.config.data.beginnings,
            beginning=round(BEGINNING_SECONDS * self.sample_rate_hz),
            after_pauses=lambda clip: self._after_pauses(clips[clip]),
            quiet_weight=weight,
            powers=powers,
        )
        return WindowStream(
            clips,
            network.receptive_field,
            self.settings.window_targets,
            network.padding(self.quantizer.silence),
            self.settings.seed,
            conditioner.of_recording if conditioner.is_needed else None,
            order,
        )

    def _after_pauses(self, clip: Clip) -> list[int]:
        """Return where in a clip sound begins after a pause."""
        stretches = quiet_stretches(Decoded(clip.classes(), self.quantizer), self.sample_rate_hz, PAUSE_BELOW_DB)
        return [stop for start, stop in stretches if stop - start >= PAUSE_SECONDS * self.sample_rate_hz]

    def trained_on(self, n_targets: int) -> dict[str, float]:
        """Return the hours of audio in a number of targets, for ``metrics.jsonl``."""
        return {"hours_of_audio": n_targets / self.sample_rate_hz / 3600}

    def validation_clips(self, seconds: float | None) -> list[ScoredClip]:
        """Return held-out clips up to a total of ``seconds``, all without a limit.

        The last one is cut short, and conditioned as a whole.
        """
        limit = None if seconds is None else max(1, round(seconds * self.sample_rate_hz))
        clips = by_content(self.corpus.validation)
        return [
            ScoredClip(clip.name, classes, self.conditioner.of_recording(clip) if self.conditioner.is_needed else None)
            for clip, classes in zip(clips, first_samples(clips, limit), strict=False)
        ]

    def validation_length(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """Return the seconds of these clips, and of all that is held out, for ``metrics.jsonl``."""
        n_held_out = sum(clip.n_samples for clip in self.corpus.validation)
        lengths = {"held_out_seconds": sum(map(self.n_predictions, clips)), "all_held_out_seconds": n_held_out}
        return {name: n_samples / self.sample_rate_hz for name, n_samples in lengths.items()}

    def n_predictions(self, clip: ScoredClip) -> int:
        """Return the number of samples, each of which is predicted."""
        return len(clip.classes)

    def summed_losses(
        self, network: Network, clips: Sequence[ScoredClip], scored: Callable[[int], None]
    ) -> list[float]:
        """Return the bits of each clip, summed over its predictions.

        Args:
            network: with the weights to score.
            clips: to score.
            scored: called with the number of predictions after each part.
        """
        classes, conditions = [clip.classes for clip in clips], [clip.condition for clip in clips]
        return model_bits(network, classes, self.quantizer.silence, scored, conditions)

    def baselines(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """Return bits/sample of each trivial baseline on clips; they are fitted on the training split."""
        if self._fitted is None:
            self._fitted = fit_baselines(first_samples(self.corpus.train, FITTED_SAMPLES), self.quantizer.classes)
        return baseline_bits(self._fitted, [clip.classes for clip in clips], self.quantizer)

    def recording_profile(self) -> dict[str, Any] | None:
        """Measure the profile that checkpoints keep: of half an hour of the training clips, and of each label's."""
        profile = self._profile_of(self.corpus.train)
        if profile is None:
            return None
        for label in self.conditioner.labels:
            clips = [clip for clip in self.corpus.train if clip.label == label]
            if (of_label := self._profile_of(clips)) is not None:
                profile.labels[label] = of_label
        return profile.as_dict()

    def _profile_of(self, clips: Sequence[Clip]) -> RecordingProfile | None:
        rate = self.sample_rate_hz
        classes = first_samples(by_content(clips), round(MOST_SECONDS * rate))
        # decoded classes and not the recordings: the best that a model of these classes could generate
        return RecordingProfile.of([Decoded(clip, self.quantizer) for clip in classes], rate)

    def audition(self, network: Network, seconds: float, seed: int, progress: Progress) -> npt.NDArray[np.float32]:
        """Generate from silence: the first labels one behind the other, or the frames of a held-out recording.

        Args:
            network: with the weights to generate with.
            seconds: of an audition.
            seed: of the draws; the same at every audition, so that they compare.
            progress: called with (samples made, samples in all).

        Returns:
            (T,) at the corpus's rate.
        """
        rate = self.sample_rate_hz
        if self.conditioner.frames is not None:
            clip = by_content(self.corpus.validation or self.corpus.train)[0]
            conditions, seconds = [self.conditioner.of_recording(clip)], min(seconds, clip.n_samples / rate)
        else:
            labels = [{label: 1.0} for label in self.conditioner.labels[:MOST_AUDITIONED]]
            conditions = [one for label in labels if (one := self.conditioner.to_generate(label)) is not None]
        count = max(1, len(conditions))
        n_samples = max(1, round(seconds * rate / count))
        # the labels side by side, as streams that share each weight
        sampler = Sampler(build_engine("auto", network, n_streams=count), self.quantizer)
        blocks: list[npt.NDArray[np.float32]] = []
        truncation = Truncation(self.config.temperature)
        for block in sampler.stream(Request(n_samples, count, seed, truncation, conditions=conditions or None)):
            blocks.append(block)
            progress(sum(block.size for block in blocks), n_samples * count)
        # (count, T) -> (count T,): the clips one behind the other
        return np.concatenate(blocks, axis=1).reshape(-1)


Task = AudioTask | SeriesTask


def task_type(config: Config) -> type[AudioTask] | type[SeriesTask]:
    """Return the kind of task that a configuration describes."""
    return SeriesTask if config.is_series else AudioTask


def _for_training(conditioner: Conditioner, network: Network) -> Conditioner:
    """Return the conditioning of training windows; a GPU computes mel frames itself."""
    return conditioner if next(network.parameters()).device.type == "cpu" else conditioner.on_gpu()


def noise_condition(config: Config, n_samples: int, trained: Network | None = None) -> ClipCondition | None:
    """Return the condition of a clip of noise, to sample or to train on; None in a model without conditions."""
    conditioner = build_conditioner(config)
    if trained is not None:
        conditioner = _for_training(conditioner, trained)
    noise = np.random.default_rng(1).integers(config.quantization.classes, size=n_samples)
    frames = None
    if isinstance(source := conditioner.frames, Features):
        frames = source.of_clip(np.tile(source.mean, (-(-n_samples // source.hop_length), 1)), n_samples, "noise")
    return conditioner.of_clip(noise, conditioner.labels[0] if conditioner.labels else None, frames)


def _scoring_seconds(config: Config, network: Network, batch: Batch) -> float:
    """Return the time to score one second of much audio: the stretches of several clips keep all threads busy."""
    rate, silence = config.audio.sample_rate_hz, build_quantizer(config).silence
    clips = [batch.inputs[0][:rate]] * (2 * torch.get_num_threads())
    conditions = [noise_condition(config, len(clip)) for clip in clips]
    model_bits(network, clips[:1], silence, None, conditions[:1])  # allocates, and has libraries choose their kernels
    began = time.perf_counter()
    model_bits(network, clips, silence, None, conditions)
    return (time.perf_counter() - began) * rate / sum(map(len, clips))


def _sampling_seconds(config: Config, network: Network) -> float:
    """Return the time to generate one sample; the first half warms up."""
    sampler = Sampler(build_engine("auto", network), build_quantizer(config))
    condition = noise_condition(config, 2 * TIMED_SAMPLES)
    request = Request(n_samples=2 * TIMED_SAMPLES, conditions=None if condition is None else [condition])
    chunks = sampler.stream(request, chunk=TIMED_SAMPLES)
    next(chunks)  # compiles
    began = time.perf_counter()
    next(chunks)
    return (time.perf_counter() - began) / TIMED_SAMPLES
