"""What ``auto`` and ``minutes`` become: measured once, at the first start, and frozen in the run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.data.reading import build_quantizer
from wavegen.data.windows import Batch
from wavegen.device import available_cores
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.outputs import softmax_loss
from wavegen.model.wavenet import build_model
from wavegen.sampling.engines import PRECISIONS, build_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.training.trainer import autocast, build_optimizer

BFLOAT16_GAIN = 1.15  # less is not worth its rounding
TIMED_STEPS = 8
LARGEST_TRIAL_TARGETS = 16384
SAFETY = 0.97  # of the minutes: other processes come and go
STARTUP_SECONDS = 8.0  # imports, scan and calibration, on this project's reference machine


def freeze(config: Config, corpus: Corpus, device: torch.device, notice: Callable[[str], None]) -> Config:
    """Replace every ``auto``, and ``minutes`` by steps.

    Args:
        config: as the user gave it.
        corpus: what will be trained and validated on.
        device: to train on.
        notice: is told what was chosen and why.

    Returns:
        A configuration that decides the training completely.
    """
    settings = config.training
    if settings.threads == "auto":
        config = config.with_values("training", threads=available_cores())
    torch.set_num_threads(int(config.training.threads))
    if settings.precision == "auto":
        precision, reason = _choose_precision(config, device)
        config = config.with_values("training", precision=precision)
        notice(f"precision: {precision} ({reason})")
    if settings.minutes is not None:
        steps, reason = _steps_in(settings.minutes, config, corpus, device)
        config = config.with_values("training", steps=steps, minutes=None)
        notice(f"{settings.minutes:g} minutes: {steps:,} steps ({reason})")
    return config


def _choose_precision(config: Config, device: torch.device) -> tuple[str, str]:
    settings = config.training
    window = min(settings.window_targets, LARGEST_TRIAL_TARGETS)
    trial = Trial(config, device, max(1, min(settings.batch_size, LARGEST_TRIAL_TARGETS // window)), window)
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
    trial = Trial(config, device, settings.batch_size, settings.window_targets)
    step = trial.step_seconds(settings.precision, TIMED_STEPS)
    rate = corpus.sample_rate_hz
    held_out = sum(clip.n_samples for clip in corpus.validation) / rate
    heard = held_out if settings.validation_seconds is None else min(held_out, settings.validation_seconds)
    sound_second = trial.scoring_seconds(rate)
    audition = trial.sampling_seconds() * settings.audition_seconds * rate if settings.audition_every else 0.0
    # the last validation hears all, and scores what was heard on the way in each lower precision besides
    fixed = STARTUP_SECONDS + (held_out + len(PRECISIONS) * heard) * sound_second + audition
    per_step = step + heard * sound_second / settings.validate_every
    if settings.audition_every:
        per_step += audition / settings.audition_every
    steps = max(1, int((minutes * 60 * SAFETY - fixed) / per_step))
    return steps, f"{step * 1000:.0f} ms a step, {fixed:.0f} s for the start, the last validation and audition"


class Trial:
    """A throw-away copy of the training, to take times from; what it learns is forgotten."""

    def __init__(self, config: Config, device: torch.device, batch_size: int, window_targets: int) -> None:
        with torch.random.fork_rng(devices=[]):
            self.model = build_model(config).to(device)
        self.device, self.batch_size, self.window_targets = device, batch_size, window_targets
        self.quantizer = build_quantizer(config)
        self.batch = self._noise()

    def step_seconds(self, precision: str, steps: int) -> float:
        """The median time of a step after one that warms up."""
        optimizer = build_optimizer(self.model, weight_decay=0.01)
        inputs = torch.from_numpy(self.batch.inputs).to(self.device)
        targets = torch.from_numpy(self.batch.targets).to(self.device)
        seconds = []
        for _ in range(1 + steps):
            began = time.perf_counter()
            with autocast(self.device, precision):
                logits = self.model(inputs)
            loss = softmax_loss(logits, targets).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimizer.step()
            float(loss.detach())  # waits for the device
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds[1:]))

    def scoring_seconds(self, rate: int) -> float:
        """The time to score one second of audio."""
        noise = self.batch.inputs[0][:rate]
        model_bits(self.model, [noise], self.quantizer.silence)
        began = time.perf_counter()
        model_bits(self.model, [noise], self.quantizer.silence)
        return (time.perf_counter() - began) * rate / len(noise)

    def sampling_seconds(self) -> float:
        """The time to generate one sample."""
        sampler = Sampler(build_engine("auto", self.model), self.quantizer)
        chunks = sampler.stream(Request(n_samples=400), chunk=200)
        next(chunks)
        began = time.perf_counter()
        next(chunks)
        return (time.perf_counter() - began) / 200

    def _noise(self) -> Batch:
        rng = np.random.default_rng(0)
        length = self.model.receptive_field - 1 + self.window_targets
        inputs = rng.integers(self.model.classes, size=(self.batch_size, length))
        targets = rng.integers(self.model.classes, size=(self.batch_size, self.window_targets))
        return Batch(inputs, targets, np.ones(targets.shape, dtype=np.bool_))
