"""What ``auto`` and ``minutes`` become: measured once, at the first start, and frozen in the run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from wavegen.audio.conditions import ClipCondition, rows_of_stretches, stacked
from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.data.reading import build_conditioner, build_quantizer
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
STARTUP_SECONDS = 8.0  # imports, scan and calibration, on this project's reference machine


def freeze(
    config: Config, corpus: Corpus, device: torch.device, notice: Callable[[str], None], group: Group = ALONE
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
        precision, reason = _choose_precision(_share(config, group), device)
        config = config.with_values("training", precision=precision)
        notice(f"precision: {precision} ({reason})")
    if settings.minutes is not None:
        steps, reason = _steps_in(settings.minutes, _share(config, group), corpus, device)
        config = config.with_values("training", steps=steps, minutes=None)
        notice(f"{settings.minutes:g} minutes: {steps:,} steps ({reason})")
    return config


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


def _choose_precision(config: Config, device: torch.device) -> tuple[str, str]:
    trial = Trial(config, device, LARGEST_TRIAL_TARGETS)
    seconds: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(3):  # in turn, and the best of each: other processes only ever make it slower
        for name, times in seconds.items():
            times.append(trial.step_seconds(name, steps=1))
    gain = min(seconds["float32"]) / min(seconds["bfloat16"])
    precision = "bfloat16" if gain >= BFLOAT16_GAIN else "float32"
    return precision, f"bfloat16 is {gain:.1f} times as fast as float32 here"


def _steps_in(minutes: float, config: Config, corpus: Corpus, device: torch.device) -> tuple[int, str]:
    """How many steps fit, beside the validations and auditions that come with them."""
    settings = config.training
    trial = Trial(config, device)
    step = trial.step_seconds(settings.precision, TIMED_STEPS)
    rate = corpus.sample_rate_hz
    held_out = sum(clip.n_samples for clip in corpus.validation) / rate
    heard = held_out if settings.validation_seconds is None else min(held_out, settings.validation_seconds)
    if config.is_series:  # every validation scores all, as fast as it trains at the least
        heard, sound_second, audition = held_out, step / trial.n_targets, 0.0
    else:
        sound_second = trial.scoring_seconds(rate)
        audition = trial.sampling_seconds() * settings.audition_seconds * rate if settings.audition_every else 0.0
    # the last validation hears all besides what was heard on the way, and that in each lower precision that there is
    precisions = len(PRECISIONS) if config.model.kind == "wavenet" else 1
    fixed = STARTUP_SECONDS + (held_out + precisions * heard) * sound_second + audition
    per_step = step + heard * sound_second / settings.validate_every
    if settings.audition_every:
        per_step += audition / settings.audition_every
    steps = max(1, int((minutes * 60 * SAFETY - fixed) / per_step))
    return steps, f"{step * 1000:.0f} ms a step, {fixed:.0f} s for the start, the last validation and audition"


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
            rows = stacked([rows_of_stretches([(condition, 0, steps)], condition.most_rows(steps, 1), steps)] * size)
        return Batch(inputs, targets, np.ones(targets.shape, dtype=np.bool_), rows)


def noise_condition(config: Config, n_samples: int) -> ClipCondition | None:
    """What a clip of noise is conditioned on; None in a model without conditions."""
    conditioner = build_conditioner(config)
    noise = np.random.default_rng(1).integers(config.quantization.classes, size=n_samples)
    return conditioner.of_clip(noise, conditioner.labels[0] if conditioner.labels else None)
