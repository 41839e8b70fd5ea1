"""The plan of a training: it replaces ``auto`` and ``minutes`` by values, once, by rule or by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.errors import TrainingError
from wavegen.model.building import build_model
from wavegen.sampling.engines import PRECISIONS
from wavegen.text import pluralize
from wavegen.training.audio_task import Overhead
from wavegen.training.backends import Backend, build_backend
from wavegen.training.compute import BackendName, Compute, ComputePrecision, resolve_compute
from wavegen.training.distributed import ALONE, Group
from wavegen.training.optimizer import Optimizer, clip_gradients
from wavegen.training.task import task_type

# `backend: auto` and `precision: auto`
BFLOAT16_GAIN = 1.15  # less is not worth its rounding
COMPILE_GAIN = 1.1
WORTH_COMPILING_MINUTES = 15.0  # compiling takes a minute or two
TIMED_STEPS = 8
LARGEST_TRIAL_TARGETS = 16384

# `minutes`
SAFETY = 0.97  # of the minutes: other processes come and go
SHARE_OF_STEPS = 0.85  # of the minutes; the rest is for the start, validations and auditions
LARGEST_SHARE = 0.9  # of the minutes that remain after the start
SMALLEST_PART = 0.02  # to which validations and auditions are shortened for that
WARMUP_SHARE = 0.1  # of the steps, at most
STARTUP_SECONDS = 8.0  # imports, scan and calibration, on this project's reference machine


@dataclass(frozen=True)
class Plan:
    """All decisions of a training; nothing in it is ``auto``.

    Attributes:
        config: complete: what the run's ``config.yaml`` and its checkpoints hold.
        compute: how each step is computed.
        steps: of the whole training.
    """

    config: Config
    compute: Compute
    steps: int

    def with_training(self, **values: Any) -> Plan:
        """Return the plan with other values of the section ``training``, none of which is part of ``compute``."""
        return replace(
            self, config=self.config.with_values("training", **values), steps=values.get("steps", self.steps)
        )


def resolve_plan(
    config: Config, corpus: Corpus[Any], device: torch.device, notice: Callable[[str], None], group: Group = ALONE
) -> Plan:
    """Resolve every ``auto`` and ``minutes`` of a configuration, by rule or by timing a few steps on this machine.

    Args:
        config: as the user gave it, with what its corpus decides (``wavegen.training.task.with_corpus``).
        corpus: to train and validate on.
        device: to train on.
        notice: called with each choice and its reason.
        group: the processes that will share the work; this one measures for all.

    Raises:
        UsageError: the backend is not for this device.
    """
    settings, compute = config.training, resolve_compute(config, device, group)
    if device.type == "cpu":
        torch.set_num_threads(compute.threads)
        if settings.backend == "auto" and config.model.dropout:
            notice("backend: torch (the fused backend has no dropout)")
    elif settings.backend == "auto":
        backend, reason = _choose_backend(config, compute.share(group.size), device)
        compute = replace(compute, backend=backend)
        notice(f"backend: {backend} ({reason})")
    if settings.precision == "auto" and task_type(config).tries_bfloat16:
        precision, reason, step_seconds = _choose_precision(config, compute.share(group.size), device)
        compute = replace(compute, precision=precision)
        notice(f"precision: {precision} ({reason})")
        if settings.steps and settings.minutes is None and settings.steps * step_seconds >= 60:
            notice(f"{pluralize(settings.steps, 'step')}: about {settings.steps * step_seconds / 60:,.0f} min here")
    if settings.minutes is None:
        assert settings.steps is not None  # the schema sees to it
        return Plan(config.with_values("training", **compute.settings()), compute, settings.steps)
    values, reason = _steps_in(settings.minutes, config, compute.share(group.size), corpus, device)
    steps = min(values["steps"], settings.steps or values["steps"])
    notice(f"{settings.minutes:g} min: {pluralize(steps, 'step')} ({reason})")
    complete = config.with_values("training", **{**values, "steps": steps, "minutes": None, **compute.settings()})
    return Plan(complete, compute, steps)


def shortened_warmup(warmup_steps: int, steps: int) -> int:
    """Return the warm-up of a training: a tenth of its steps at most."""
    return min(warmup_steps, int(WARMUP_SHARE * steps))


def _choose_backend(config: Config, compute: Compute, device: torch.device) -> tuple[BackendName, str]:
    """Measure whether ``torch.compile`` pays, on a device without the fused backend."""
    plain = Trial(config, compute, device).step_seconds(compute.precision, TIMED_STEPS)
    planned = config.training.minutes or plain * (config.training.steps or 0) / 60
    if planned < WORTH_COMPILING_MINUTES:
        return "torch", f"compiling does not pay in a training of {planned:.0f} min"
    try:
        trial = Trial(config, replace(compute, backend="compile"), device)
        compiled = trial.step_seconds(compute.precision, TIMED_STEPS)
    except TrainingError as error:
        return "torch", str(error)
    faster = f"compiled it is {plain / compiled:.2f} times as fast here"
    return ("compile" if plain / compiled >= COMPILE_GAIN else "torch"), faster


def _choose_precision(config: Config, compute: Compute, device: torch.device) -> tuple[ComputePrecision, str, float]:
    """Return the faster precision, how much faster it is, and the seconds of a step in it."""
    trial = Trial(config, compute, device, LARGEST_TRIAL_TARGETS)
    seconds: dict[ComputePrecision, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(3):  # in turn, and the best of each: other processes only ever make it slower
        for name, times in seconds.items():
            times.append(trial.step_seconds(name, steps=1))
    gain = min(seconds["float32"]) / min(seconds["bfloat16"])
    precision: ComputePrecision = "bfloat16" if gain >= BFLOAT16_GAIN else "float32"
    step_seconds = min(seconds[precision]) * config.training.window_targets * compute.batch_size
    return precision, f"bfloat16 is {gain:.1f} times as fast as float32 here", step_seconds / trial.n_targets


def _steps_in(
    minutes: float, config: Config, compute: Compute, corpus: Corpus[Any], device: torch.device
) -> tuple[dict[str, Any], str]:
    """Compute the steps that fit into some minutes, together with their validations and auditions.

    Where these would take more than ``1 - SHARE_OF_STEPS`` of the time, they are shortened.

    Returns:
        Keys of the section ``training`` with their values: the steps, and the audio to score and to audition each time;
        and what was measured, for the user.
    """
    settings = config.training
    trial = Trial(config, compute, device)
    step = trial.step_seconds(compute.precision, TIMED_STEPS)
    overhead = task_type(config).measure_overhead(config, corpus, trial.model, trial.batch)
    can_shorten = overhead is not None
    if overhead is None:  # every validation scores all that is held out, as fast as it trains at the least
        n_points = sum(clip.n_samples for clip in corpus.validation)
        overhead = Overhead(n_points, n_points, step / trial.n_targets, 0.0)
    # the last validation measures each lower precision besides, and the best checkpoint's where that is an earlier one
    last_validations = 2 * len(PRECISIONS) if config.model.kind == "wavenet" else 1
    last_validations += config.frames is not None  # once more, with shuffled frames
    whole, part = minutes * 60 * SAFETY, 1.0
    wanted = min(SHARE_OF_STEPS * whole, LARGEST_SHARE * (whole - STARTUP_SECONDS))  # of a minute the start is much
    while True:
        # whole = start + last validations + audition + steps (step + validation / validate_every + ...)
        validated = _shortened(overhead.scored, part, 1.0)
        auditioned = _shortened(settings.audition_seconds, part, 0.5)
        validation, audition = validated * overhead.scoring_seconds, auditioned * overhead.audition_seconds
        fixed = STARTUP_SECONDS + last_validations * validation + audition
        per_step = step + validation / settings.validate_every
        if settings.audition_every:
            per_step += audition / settings.audition_every
        steps = max(1, int((whole - fixed) / per_step))
        if not can_shorten or steps * step >= wanted or part < SMALLEST_PART:
            break
        part /= 2
    shortened = part < 1 and overhead.held_out > 0
    values = {
        "steps": steps,
        "validation_seconds": validated if shortened else settings.validation_seconds,
        "audition_seconds": auditioned,
    }
    return values, f"{step * 1000:.0f} ms a step, {fixed:.0f} s for the start, the last validation and audition"


def _shortened(seconds: float, part: float, shortest: float) -> float:
    """Return a shorter, rounded length of audio, not below a sensible minimum; a shorter length stays."""
    return seconds if part == 1 else min(seconds, max(shortest, round(part * seconds, 1)))


class Trial:
    """A copy of a training, run on noise to time its steps, and then discarded.

    Args:
        config: of the training.
        compute: how its steps are computed, by one process.
        device: to train on.
        most_targets: of its batch, which otherwise is the training's.
    """

    def __init__(self, config: Config, compute: Compute, device: torch.device, most_targets: int = 1 << 62) -> None:
        self.config, self.compute = config, compute
        with torch.random.fork_rng(devices=[]):  # the training's own weights are drawn as if there had been no trial
            self.model = build_model(config).to(device)
        window = min(config.training.window_targets, most_targets)
        n_windows = max(1, min(compute.batch_size, most_targets // window))
        self.batch = task_type(config).noise(config, self.model, n_windows, window)
        self.n_targets = self.batch.is_real.size
        self._backends: dict[ComputePrecision, Backend] = {}

    def step_seconds(self, precision: ComputePrecision, steps: int) -> float:
        """Return the median time of a step, after one that warms up when it is the precision's first."""
        warm = precision in self._backends
        if not warm:
            compute = replace(self.compute, precision=precision)
            self._backends[precision] = build_backend(self.config, compute, self.model)
        optimizer = Optimizer(self.model, self.config.training)
        seconds = []
        for _ in range(steps if warm else 1 + steps):
            began = time.perf_counter()
            # note: the loss and the norm are numbers, so a GPU is waited for in each step
            _, gradients = self._backends[precision].gradients(self.batch, self.n_targets)
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            clip_gradients(self.model.parameters(), 1.0)
            optimizer.step(factor=1e-3)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds if warm else seconds[1:]))
