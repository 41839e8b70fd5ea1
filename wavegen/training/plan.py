"""The plan of a training: what ``auto`` and ``minutes`` become, by rule or by measurement, and never change after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.device import available_cores
from wavegen.errors import TrainingError, UsageError
from wavegen.sampling.engines import PRECISIONS
from wavegen.training.compute import BackendName, Compute, ComputePrecision
from wavegen.training.distributed import ALONE, Group
from wavegen.training.memory import free_bytes, training_bytes
from wavegen.training.task import Overhead
from wavegen.training.task_registry import task_type
from wavegen.training.trial import Trial

# `batch_size: auto` and `accumulation: auto`
SHARE_OF_FREE = 0.7  # of the free memory
AUTO_TARGETS = 16384  # in a step: what the recipe of the README was found with
SLICE_ROWS = 32768  # in a slice of the fused backend: its stretches are long enough, and its buffers small

# `backend: auto` and `precision: auto`
BFLOAT16_GAIN = 1.15  # less is not worth its rounding
COMPILE_GAIN = 1.1
WORTH_COMPILING_MINUTES = 15.0  # compiling takes a minute or two
TIMED_STEPS = 8
LARGEST_TRIAL_TARGETS = 16384

# `minutes`
SAFETY = 0.97  # of the minutes: other processes come and go
SHARE_OF_STEPS = 0.85  # of the minutes; the rest is for the start, validations and auditions
LARGEST_SHARE = 0.9  # of what the start leaves
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
    """Decide what a configuration leaves open: by rule where there is one, else by measuring a few steps here.

    Args:
        config: as the user gave it, with what its corpus decides (``wavegen.training.task_registry.with_corpus``).
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
            notice(f"{settings.steps:,} steps: about {settings.steps * step_seconds / 60:,.0f} min here")
    if settings.minutes is None:
        assert settings.steps is not None  # the schema sees to it
        return Plan(config.with_values("training", **compute.settings()), compute, settings.steps)
    fitting = _steps_in(settings.minutes, config, compute.share(group.size), corpus, device)
    steps = min(fitting.steps, settings.steps or fitting.steps)
    notice(f"{settings.minutes:g} minutes: {steps:,} steps ({fitting.reason})")
    lengths = {"validation_seconds": fitting.validation_seconds, "audition_seconds": fitting.audition_seconds}
    complete = config.with_values("training", steps=steps, minutes=None, **lengths, **compute.settings())
    return Plan(complete, compute, steps)


def shortened_warmup(warmup_steps: int, steps: int) -> int:
    """Return the warm-up of a training of so many steps: a tenth of them at most."""
    return min(warmup_steps, int(WARMUP_SHARE * steps))


# --- by rule ----------------------------------------------------------------------------------------------------


def resolve_compute(config: Config, device: torch.device, group: Group = ALONE) -> Compute:
    """Decide by rule how steps are computed; ``precision: auto`` is float32 until it is measured.

    Args:
        config: of the training.
        device: to train on.
        group: the processes that share each step.

    Raises:
        UsageError: the backend is not for this device.
    """
    settings = config.training
    if settings.backend == "fused" and device.type != "cpu":
        raise UsageError(
            f"training.backend: fused runs on a CPU, not on {device.type}; choose auto, torch or compile, "
            "or --device cpu"
        )
    # the fused backend is for WaveNets that predict distributions, and has no dropout
    is_fused = device.type == "cpu" and config.model.kind == "wavenet" and config.output.kind != "regression"
    is_fused = is_fused and not config.model.dropout
    backend: BackendName = settings.backend if settings.backend != "auto" else "fused" if is_fused else "torch"
    cores = max(1, available_cores() // group.local_size)
    compute = Compute(
        backend=backend,
        precision="bfloat16" if settings.precision == "bfloat16" else "float32",
        threads=cores if settings.threads == "auto" else settings.threads,
        batch_size=1,
        accumulation=1,
        side_by_side=runs_side_by_side(config, backend, device),
    )
    if settings.batch_size != "auto":
        return _in_slices(replace(compute, batch_size=settings.batch_size), config, group)
    # as many windows as make up AUTO_TARGETS, halved until a step fits into the memory
    free = SHARE_OF_FREE * free_bytes(device) / (1 if device.type == "cuda" else group.local_size)
    size = max(1, AUTO_TARGETS // settings.window_targets)
    while True:
        fitting = _in_slices(replace(compute, batch_size=size), config, group)
        if size == 1 or training_bytes(config, replace(fitting, precision="float32")) <= free:
            return fitting
        size //= 2


def runs_side_by_side(config: Config, backend: str, device: torch.device) -> bool:
    """Whether slices of a batch are computed side by side, each by one thread: by ``fused``, and of recurrent networks.

    A recurrent network's steps are too small for several threads to share.
    """
    is_recurrent = config.model.has_memory and backend == "torch" and device.type == "cpu"
    return backend == "fused" or is_recurrent


def _in_slices(compute: Compute, config: Config, group: Group) -> Compute:
    """Cut the batch: as configured, or into equal slices, one for each thread that computes one, and none too large."""
    settings, batch = config.training, compute.batch_size
    if settings.accumulation != "auto":
        return replace(compute, accumulation=min(settings.accumulation, batch))
    if not compute.side_by_side:
        return compute
    wanted = group.size * compute.threads
    if compute.backend == "fused":
        reach = (config.model.kernel_size - 1) * sum(config.model.dilations)  # receptive field - 1
        wanted = max(wanted, -(-batch * (reach + settings.window_targets) // SLICE_ROWS))
    slices = min((n for n in range(1, batch + 1) if batch % n == 0 and n >= wanted), default=batch)
    return replace(compute, accumulation=slices)


# --- by measurement ---------------------------------------------------------------------------------------------


def _choose_backend(config: Config, compute: Compute, device: torch.device) -> tuple[BackendName, str]:
    """Decide whether ``torch.compile`` pays, on a device without the fused backend."""
    plain = Trial(config, compute, device).step_seconds(compute.precision, TIMED_STEPS)
    planned = config.training.minutes or plain * (config.training.steps or 0) / 60
    if planned < WORTH_COMPILING_MINUTES:
        return "torch", f"compiling does not pay in a training of {planned:.0f} minutes"
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


@dataclass(frozen=True)
class _FittingSteps:
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


def _steps_in(
    minutes: float, config: Config, compute: Compute, corpus: Corpus[Any], device: torch.device
) -> _FittingSteps:
    """Fit steps into some minutes, beside the validations and auditions that come with them.

    Where these would take more than ``1 - SHARE_OF_STEPS`` of the time, they are shortened.
    """
    settings = config.training
    trial = Trial(config, compute, device)
    step = trial.step_seconds(compute.precision, TIMED_STEPS)
    measured = task_type(config).measure_overhead(config, corpus, trial.model, trial.batch)
    if measured is None:
        n_held_out = sum(item.n_samples for item in corpus.validation)
        overhead = Overhead(n_held_out, n_held_out, scoring_seconds=step / trial.n_targets, audition_seconds=0.0)
    else:
        overhead = measured
    # the last validation measures each lower precision besides, and the best checkpoint's where that is an earlier one
    last_validations = 2 * len(PRECISIONS) if config.model.kind == "wavenet" else 1
    whole, part = minutes * 60 * SAFETY, 1.0
    wanted = min(SHARE_OF_STEPS * whole, LARGEST_SHARE * (whole - STARTUP_SECONDS))  # of a minute the start is much
    while True:
        # whole = start + last validations + audition + steps (step + validation / validate_every + ...)
        validated, auditioned = _shortened(overhead.scored, part, 1.0), _shortened(settings.audition_seconds, part, 0.5)
        validation, audition = validated * overhead.scoring_seconds, auditioned * overhead.audition_seconds
        fixed = STARTUP_SECONDS + last_validations * validation + audition
        per_step = step + validation / settings.validate_every
        if settings.audition_every:
            per_step += audition / settings.audition_every
        steps = max(1, int((whole - fixed) / per_step))
        if measured is None or steps * step >= wanted or part < SMALLEST_PART:
            break
        part /= 2
    return _FittingSteps(
        steps,
        settings.validation_seconds if part == 1 or not overhead.held_out else validated,
        auditioned,
        f"{step * 1000:.0f} ms a step, {fixed:.0f} s for the start, the last validation and audition",
    )


def _shortened(seconds: float, part: float, shortest: float) -> float:
    """Return a part of some seconds of audio, rounded, no shorter than sensible; what is shorter already stays."""
    return seconds if part == 1 else min(seconds, max(shortest, round(part * seconds, 1)))
