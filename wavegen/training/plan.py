"""The plan of a training: it replaces ``auto`` and ``minutes`` by values, once, by rule or by measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch

from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.device import on_device
from wavegen.errors import TrainingError
from wavegen.model.building import build_model
from wavegen.sampling.engines import PRECISIONS
from wavegen.text import pluralize
from wavegen.training.backends import build_backend
from wavegen.training.compute import (
    AUTOCAST,
    SHARE_OF_FREE,
    BackendName,
    Compute,
    ComputePrecision,
    check_precision,
    explain_device_errors,
    free_bytes,
    precisions_of,
    resolve_compute,
    training_bytes,
)
from wavegen.training.process_group import ALONE, Group
from wavegen.training.step import Step, build_step
from wavegen.training.task import Overhead, task_type

# `backend: auto`, `precision: auto` and, on a GPU, `batch_size: auto`
BFLOAT16_GAIN = 1.15  # less is not worth its rounding
COMPILE_GAIN = 1.1
COMPILE_SECONDS, COMPILE_SHARE = 60.0, 0.25  # compiling is tried within this share of the planned time
BATCH_GAIN = 1.25  # of doubling a batch: a step of twice the windows learns less than two steps
LARGEST_AUTO_TARGETS = 1 << 17
TIMED_STEPS = 8
LARGEST_TRIAL_TARGETS = 16384
LAUNCHED_STEPS = 16  # on a GPU, before their end is waited for

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
        seconds: that they take on this machine; None where no step was timed.
    """

    config: Config
    compute: Compute
    steps: int
    seconds: float | None = None

    def with_training(self, **values: Any) -> Plan:
        """Return the plan with other values of the section ``training``, none of which is part of ``compute``."""
        config = self.config.with_values("training", **values)
        return replace(self, config=config, steps=values.get("steps", self.steps))


def resolve_plan(
    config: Config, corpus: Corpus[Any], device: torch.device, notice: Callable[[str], None], group: Group = ALONE
) -> Plan:
    """Resolve every ``auto`` and ``minutes`` of a configuration, by rule or by timing a few steps on this machine.

    Args:
        config: as the user gave it, with what its corpus decides (``Task.with_corpus``).
        corpus: to train and validate on.
        device: to train on.
        notice: called with each choice and its reason.
        group: the processes that will share the work; this one measures for all.

    Raises:
        UsageError: the backend or the precision is not for this device.
        TrainingError: the device has too little memory for a step, or lacks an operation.
    """
    settings, compute, step_seconds = config.training, resolve_compute(config, device, group), None
    check_precision(compute.precision, device)
    if device.type == "cpu":
        torch.set_num_threads(compute.threads)
        if settings.backend == "auto" and config.model.dropout:
            notice("backend: torch (the fused backend has no dropout)")
    else:
        compute, step_seconds = _tune(config, compute, group, device, notice)
    if device.type == "cpu" and settings.precision == "auto" and task_type(config).tries_bfloat16:
        precision, reason, step_seconds = _choose_precision(config, compute.share(group.size), device)
        compute = replace(compute, precision=precision)
        notice(f"precision: {precision} ({reason})")
    if settings.minutes is None:
        assert settings.steps is not None  # the schema sees to it
        seconds = step_seconds and settings.steps * step_seconds
        return Plan(config.with_values("training", **compute.settings()), compute, settings.steps, seconds)
    values, reason = _steps_in(settings.minutes, config, compute.share(group.size), corpus, device)
    steps = min(values["steps"], settings.steps or values["steps"])
    notice(f"{settings.minutes:g} min: {pluralize(steps, 'step')} ({reason})")
    complete = config.with_values("training", **{**values, "steps": steps, "minutes": None, **compute.settings()})
    return Plan(complete, compute, steps, 60 * settings.minutes * steps / values["steps"])


def shortened_warmup(warmup_steps: int, steps: int) -> int:
    """Return the warm-up of a training: a tenth of its steps at most."""
    return min(warmup_steps, int(WARMUP_SHARE * steps))


def _tune(
    config: Config, compute: Compute, group: Group, device: torch.device, notice: Callable[[str], None]
) -> tuple[Compute, float | None]:
    """Choose batch, backend and precision of a GPU together, by timing the step that will be trained with.

    Returns:
        The choice, and the seconds of a step; None where there was nothing to choose.
    """
    settings, began = config.training, time.perf_counter()
    precisions: tuple[ComputePrecision, ...] = (compute.precision,)
    if settings.precision == "auto" and task_type(config).tries_bfloat16:
        precisions = precisions_of(device)
    backends: tuple[BackendName, ...] = ("torch", "compile") if settings.backend == "auto" else (compute.backend,)
    if device.type != "cuda" or (len(precisions) == len(backends) == 1 and settings.batch_size != "auto"):
        return compute, None

    def rate(candidate: Compute) -> float:
        trial = Trial(config, candidate.share(group.size), device)
        return group.size * trial.n_targets / trial.step_seconds(candidate.precision, TIMED_STEPS)

    if settings.batch_size == "auto":
        compute = _largest_useful_batch(config, replace(compute, precision=precisions[-1]), device, rate)
    rates: dict[Compute, float] = {}
    for backend, precision in product(backends, precisions[::-1]):
        candidate = replace(compute, backend=backend, precision=precision)
        if backend == "compile" and rates and settings.backend == "auto":
            steps = settings.steps or 0
            planned = (settings.minutes or 0.0) * 60 or steps * _targets(config, compute) / max(rates.values())
            if time.perf_counter() - began + COMPILE_SECONDS > COMPILE_SHARE * planned:
                break
        try:
            rates[candidate] = rate(candidate)
        except TrainingError as error:
            if not rates or backend != "compile":
                raise
            notice(f"backend: compile is left out ({error})")
            break

    def worth(candidate: Compute) -> float:
        gain = BFLOAT16_GAIN if candidate.precision in AUTOCAST and len(precisions) > 1 else 1.0
        return rates[candidate] / gain / (COMPILE_GAIN if candidate.backend == "compile" else 1.0)

    chosen = max(rates, key=worth)
    measured = ", ".join(f"{c.backend} {c.precision} {n:,.0f}" for c, n in rates.items())
    notice(f"{chosen.backend}, {chosen.precision}, {chosen.batch_size} windows a step (targets/s: {measured})")
    return chosen, _targets(config, chosen) / rates[chosen]


def _targets(config: Config, compute: Compute) -> int:
    return compute.batch_size * config.training.window_targets


def _largest_useful_batch(
    config: Config, compute: Compute, device: torch.device, rate: Callable[[Compute], float]
) -> Compute:
    """Double a batch as long as that makes a GPU faster, and fits."""
    speed = rate(compute)
    while 2 * _targets(config, compute) <= LARGEST_AUTO_TARGETS:
        larger = replace(compute, batch_size=2 * compute.batch_size)
        if training_bytes(config, larger) > SHARE_OF_FREE * free_bytes(device):
            break
        try:
            faster = rate(larger)
        except TrainingError:  # out of memory: the estimate was too low
            break
        if faster < BATCH_GAIN * speed:
            break
        compute, speed = larger, faster
    return compute


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
    # the last validation measures each lower precision besides
    last_validations = len(PRECISIONS) if config.model.kind == "wavenet" else 1
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
        self.config, self.compute, self.device = config, compute, device
        with torch.random.fork_rng(devices=[]):  # the training's own weights are drawn as if there had been no trial
            self.model = build_model(config).to(device)
        window = min(config.training.window_targets, most_targets)
        n_windows = max(1, min(compute.batch_size, most_targets // window))
        self.batch = task_type(config).noise(config, self.model, n_windows, window)
        self.n_targets = self.batch.is_real.size
        self._steps: dict[ComputePrecision, Step] = {}

    def step_seconds(self, precision: ComputePrecision, steps: int) -> float:
        """Return the median time of a step, after some that warm up when they are the precision's first.

        Raises:
            TrainingError: there is no memory left, or the device lacks an operation.
        """
        device, in_a_row = self.device, 1 if self.device.type == "cpu" else LAUNCHED_STEPS
        with on_device(device), explain_device_errors(device, "trial step"):
            if precision not in self._steps:
                compute = replace(self.compute, precision=precision)
                backend = build_backend(self.config, compute, self.model)
                self._steps[precision] = build_step(self.model, backend, self.config.training, notice=lambda _: None)
                self._seconds(precision, in_a_row)
            return float(np.median([self._seconds(precision, in_a_row) for _ in range(steps)]))

    def _seconds(self, precision: ComputePrecision, in_a_row: int) -> float:
        """Return the mean time of steps that are launched one after another."""
        began = time.perf_counter()
        launched = [self._steps[precision](self.batch, self.n_targets, 1e-3) for _ in range(in_a_row)]
        for read in launched:
            read()
        return (time.perf_counter() - began) / in_a_row
