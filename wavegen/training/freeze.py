"""What ``auto`` and ``minutes`` become: measured once, at the first start, and frozen in the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wavegen.audio.quantize import build_quantizer
from wavegen.config import Config
from wavegen.data.conditioning import ClipCondition, build_conditioner, join_segments, stack_tables
from wavegen.data.corpus import Corpus
from wavegen.data.windows import Batch
from wavegen.errors import TrainingError
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.building import build_model
from wavegen.sampling.engines import PRECISIONS, build_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.training.backends import Backend, build_backend
from wavegen.training.distributed import ALONE, Group
from wavegen.training.optimizer import Optimizer, clip_gradients
from wavegen.training.settling import settle

BFLOAT16_GAIN = 1.15  # less is not worth its rounding
COMPILE_GAIN = 1.1
WORTH_COMPILING_MINUTES = 15.0  # compiling takes a minute or two
TIMED_STEPS = 8
LARGEST_TRIAL_TARGETS = 16384
SAFETY = 0.97  # of the minutes: other processes come and go
SHARE_OF_STEPS = 0.85  # of the minutes; the rest is for the start, validations and auditions
LARGEST_SHARE = 0.9  # of what the start leaves
SMALLEST_PART = 0.02  # to which validations and auditions are shortened for that
WARMUP_SHARE = 0.1  # of the steps, at most
STARTUP_SECONDS = 8.0  # imports, scan and calibration, on this project's reference machine


def freeze(
    config: Config, corpus: Corpus[Any], device: torch.device, notice: Callable[[str], None], group: Group = ALONE
) -> Config:
    """Replace every ``auto``, and ``minutes`` by steps.

    Args:
        config: as the user gave it.
        corpus: what will be trained and validated on.
        device: to train on.
        notice: is told what was chosen and why.
        group: the processes that will share the work; this one measures for all.

    Returns:
        A configuration that decides the training completely.
    """
    settings = config.training
    config = settle(config, device, group)
    if device.type == "cpu":
        torch.set_num_threads(int(config.training.threads))
        if settings.backend == "auto" and config.model.dropout:
            notice("backend: torch (the fused backend has no dropout)")
    elif settings.backend == "auto":
        backend, reason = _choose_backend(_share(config, group), device)
        config = config.with_values("training", backend=backend)
        notice(f"backend: {backend} ({reason})")
    if settings.precision == "auto" and config.is_series:
        config = config.with_values("training", precision="float32")
    elif settings.precision == "auto":
        precision, reason, step_seconds = _choose_precision(_share(config, group), device)
        config = config.with_values("training", precision=precision)
        notice(f"precision: {precision} ({reason})")
        if settings.steps and settings.minutes is None and settings.steps * step_seconds >= 60:
            notice(f"{settings.steps:,} steps: about {settings.steps * step_seconds / 60:,.0f} min here")
    if settings.minutes is not None:
        fitting = _steps_in(settings.minutes, _share(config, group), corpus, device)
        steps = min(fitting.steps, settings.steps or fitting.steps)
        lengths = {"validation_seconds": fitting.validation_seconds, "audition_seconds": fitting.audition_seconds}
        config = config.with_values("training", steps=steps, minutes=None, **lengths)
        notice(f"{settings.minutes:g} minutes: {steps:,} steps ({fitting.reason})")
    return config


def fit_schedule(config: Config) -> Config:
    """Shorten the warm-up of a new training to a share of its steps.

    Args:
        config: whose steps are known.
    """
    training = config.training
    longest = int(WARMUP_SHARE * int(training.steps or 0))
    return config.with_values("training", warmup_steps=min(training.warmup_steps, longest))


def _share(config: Config, group: Group) -> Config:
    """What one process does of each step."""
    training = config.training
    size, slices = (-(-int(number) // group.size) for number in (training.batch_size, training.accumulation))
    return config.with_values("training", batch_size=size, accumulation=slices)


def _choose_backend(config: Config, device: torch.device) -> tuple[str, str]:
    """Whether ``torch.compile`` pays on a device where the fused backend is not to be had."""
    precision = "bfloat16" if config.training.precision == "bfloat16" else "float32"
    plain = Trial(config, device).step_seconds(precision, TIMED_STEPS)
    planned = config.training.minutes or plain * int(config.training.steps or 0) / 60
    if planned < WORTH_COMPILING_MINUTES:
        return "torch", f"compiling does not pay in a training of {planned:.0f} minutes"
    try:
        trial = Trial(config.with_values("training", backend="compile"), device)
        compiled = trial.step_seconds(precision, TIMED_STEPS)
    except TrainingError as error:
        return "torch", str(error)
    faster = f"compiled it is {plain / compiled:.2f} times as fast here"
    return ("compile" if plain / compiled >= COMPILE_GAIN else "torch"), faster


def _choose_precision(config: Config, device: torch.device) -> tuple[str, str, float]:
    """Return the faster precision, how much faster it is, and the seconds of a step in it."""
    trial = Trial(config, device, LARGEST_TRIAL_TARGETS)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(3):  # in turn, and the best of each: other processes only ever make it slower
        for name, times in seconds.items():
            times.append(trial.step_seconds(name, steps=1))
    gain = min(seconds["float32"]) / min(seconds["bfloat16"])
    precision = "bfloat16" if gain >= BFLOAT16_GAIN else "float32"
    step_seconds = min(seconds[precision]) * config.training.window_targets * int(config.training.batch_size)
    return precision, f"bfloat16 is {gain:.1f} times as fast as float32 here", step_seconds / trial.n_targets


@dataclass(frozen=True)
class FittingSteps:
    """Steps that fit into some minutes.

    Attributes:
        steps: their number.
        validation_seconds: held-out audio to score at each validation.
        audition_seconds: length of an audition.
        reason: what was measured, for the user.
    """

    steps: int
    validation_seconds: float | None
    audition_seconds: float
    reason: str


def _steps_in(minutes: float, config: Config, corpus: Corpus[Any], device: torch.device) -> FittingSteps:
    """Fit steps into some minutes, beside the validations and auditions that come with them.

    Where these would take more than ``1 - SHARE_OF_STEPS`` of the time, they are shortened.
    """
    settings = config.training
    trial = Trial(config, device)
    step = trial.step_seconds(settings.precision, TIMED_STEPS)
    rate = 1 if config.is_series else config.audio.sample_rate_hz
    held_out = sum(clip.n_samples for clip in corpus.validation) / rate
    heard = held_out if settings.validation_seconds is None else min(held_out, settings.validation_seconds)
    if config.is_series:  # every validation scores all, as fast as it trains at the least
        heard, sound_second, sampled_second = held_out, step / trial.n_targets, 0.0
    else:
        sound_second = trial.scoring_seconds(rate)
        sampled_second = trial.sampling_seconds() * rate if settings.audition_every else 0.0
    # the last validation measures each lower precision besides, and the best checkpoint's where that is an earlier one
    scored = 2 * len(PRECISIONS) if config.model.kind == "wavenet" else 1
    whole, part = minutes * 60 * SAFETY, 1.0
    wanted = min(SHARE_OF_STEPS * whole, LARGEST_SHARE * (whole - STARTUP_SECONDS))  # of a minute the start is much
    while True:
        validated, auditioned = _shortened(heard, part, 1.0), _shortened(settings.audition_seconds, part, 0.5)
        validation, audition = validated * sound_second, auditioned * sampled_second
        fixed = STARTUP_SECONDS + scored * validation + audition
        per_step = step + validation / settings.validate_every
        if settings.audition_every:
            per_step += audition / settings.audition_every
        steps = max(1, int((whole - fixed) / per_step))
        if config.is_series or steps * step >= wanted or part < SMALLEST_PART:
            break
        part /= 2
    return FittingSteps(
        steps,
        settings.validation_seconds if part == 1 or not held_out else validated,
        auditioned,
        f"{step * 1000:.0f} ms a step, {fixed:.0f} s for the start, the last validation and audition",
    )


def _shortened(seconds: float, part: float, shortest: float) -> float:
    """A part of some seconds of audio, rounded, but no shorter than sensible; what is shorter already stays."""
    return seconds if part == 1 else min(seconds, max(shortest, round(part * seconds, 1)))


class Trial:
    """A throw-away copy of the training, to take times from; what it learns is forgotten.

    Args:
        config: settled.
        device: to train on.
        most_targets: of its batch, which otherwise is the training's.
    """

    def __init__(self, config: Config, device: torch.device, most_targets: int | None = None) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            self.model = build_model(config).to(device)
        self.quantizer = build_quantizer(config)
        self.batch = self._noise(most_targets or 1 << 62)
        self.n_targets = self.batch.is_real.size
        self._backends: dict[str, Backend] = {}

    def step_seconds(self, precision: str, steps: int) -> float:
        """The median time of a step, after one that warms up when it is the precision's first."""
        warm = precision in self._backends
        if not warm:
            self._backends[precision] = build_backend(
                self.config.with_values("training", precision=precision), self.model
            )
        optimizer = Optimizer(self.model, self.config.training)
        seconds = []
        for _ in range(steps if warm else 1 + steps):
            began = time.perf_counter()
            _, gradients = self._backends[precision].gradients(self.batch, self.n_targets)
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            clip_gradients(self.model.parameters(), 1.0)
            optimizer.step(factor=1e-3)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds if warm else seconds[1:]))

    def scoring_seconds(self, rate: int) -> float:
        """The time to score one second of much audio: the stretches of several clips keep all threads busy."""
        clips = [self.batch.inputs[0][:rate]] * (2 * torch.get_num_threads())
        conditions = [noise_condition(self.config, len(clip)) for clip in clips]
        model_bits(self.model, clips[:1], self.quantizer.silence, None, conditions[:1])
        began = time.perf_counter()
        model_bits(self.model, clips, self.quantizer.silence, None, conditions)
        return (time.perf_counter() - began) * rate / sum(map(len, clips))

    def sampling_seconds(self) -> float:
        """The time to generate one sample."""
        sampler = Sampler(build_engine("auto", self.model), self.quantizer)
        condition = noise_condition(self.config, 400)
        request = Request(n_samples=400, conditions=None if condition is None else [condition])
        chunks = sampler.stream(request, chunk=200)
        next(chunks)
        began = time.perf_counter()
        next(chunks)
        return (time.perf_counter() - began) / 200

    def _noise(self, most_targets: int) -> Batch:
        settings = self.config.training
        window = min(settings.window_targets, most_targets)
        size = max(1, min(int(settings.batch_size), most_targets // window))
        rng = np.random.default_rng(0)
        shape = (size, self.model.receptive_field - 1 + window)
        if self.config.is_series:
            values = rng.standard_normal((*shape, self.config.output.horizon), dtype=np.float32)
            return Batch(values[:, :, 0], values[:, -window:], np.ones((size, window), dtype=np.bool_))
        inputs = rng.integers(self.model.classes, size=shape)
        targets = rng.integers(self.model.classes, size=(size, window))
        condition, steps = noise_condition(self.config, inputs.shape[1]), inputs.shape[1]
        rows = None
        if condition is not None:
            rows = stack_tables([join_segments([(condition, 0, steps)], condition.most_rows(steps, 1), steps)] * size)
        return Batch(inputs, targets, np.ones(targets.shape, dtype=np.bool_), rows)


def noise_condition(config: Config, n_samples: int) -> ClipCondition | None:
    """What a clip of noise is conditioned on; None in a model without conditions."""
    conditioner = build_conditioner(config)
    noise = np.random.default_rng(1).integers(config.quantization.classes, size=n_samples)
    return conditioner.of_clip(noise, conditioner.labels[0] if conditioner.labels else None)
