"""A comparison of runs: losses, durations, speeds, and differences of configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavegen.errors import UsageError
from wavegen.inspect.facts import Facts
from wavegen.inspect.run import RunFacts, inspect_run
from wavegen.text import printable

# What bits/sample depend on besides the model: they compare only where these agree.
MEASURE = ("sample_rate_hz", "classes", "quantization", "horizon")
PREPARATION = ("remove_dc", "trim_db", "pause_seconds", "level", "max_gain_db")  # of the section audio


@dataclass(frozen=True, kw_only=True)
class ComparisonFacts(Facts):
    """Several runs.

    Attributes:
        names: the shortest that are distinct, in the order of ``runs``.
        losses_comparable: whether their held-out losses compare.
        not_comparable_because: the reasons why they do not.
        differences: the keys in which the configurations differ, each with the value of every run.
    """

    kind = "comparison"
    names: list[str]
    runs: list[RunFacts]
    losses_comparable: bool
    not_comparable_because: list[str]
    differences: dict[str, list[Any]]


def compare_runs(paths: Sequence[Path]) -> ComparisonFacts:
    """Inspect runs and compare them.

    Args:
        paths: of two runs or more.

    Raises:
        ConfigError: a run's configuration is wrong.
        UsageError: some are of audio and some of series, or of series with another error.
    """
    runs = [inspect_run(path) for path in paths]
    kinds = {run.loss_unit.name: run.loss_unit for run in runs}
    if len(kinds) > 1:
        found = " and ".join(sorted(loss_unit.full_name for loss_unit in kinds.values()))
        raise UsageError(f"expected runs of one kind to compare, found some measured in {found}; give them apart")
    reasons = _reasons(runs)
    return ComparisonFacts(
        names=short_names(paths),
        runs=runs,
        losses_comparable=not reasons,
        not_comparable_because=reasons,
        differences=_differences([run.config.model_dump() for run in runs]),
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return the last parts of paths, as many as make them distinct; equal paths are numbered."""
    parts = [path.absolute().parts for path in paths]
    deepest = max(map(len, parts))
    for n in range(1, deepest + 1):
        names = [printable("/".join(each[-n:])) for each in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _reasons(runs: Sequence[RunFacts]) -> list[str]:
    """Return the reasons why the held-out losses of runs do not compare; empty if they do."""
    reasons = [f"they differ in {key}" for key in MEASURE if len({getattr(run.network, key) for run in runs}) > 1]
    audio = [run.config.audio for run in runs]
    reasons += [f"they differ in audio.{key}" for key in PREPARATION if len({getattr(each, key) for each in audio}) > 1]
    held_out = {run.data and run.data.held_out_hash for run in runs}
    if len(held_out) > 1 or held_out == {None}:
        reasons.append("they were not validated on the same clips")
    elif len({_validated_minutes(run) for run in runs}) > 1:
        reasons.append("they were validated on unequal parts of the same clips")
    return [reason.replace("sample_rate_hz", "sample rate") for reason in reasons]


def _validated_minutes(run: RunFacts) -> float | None:
    """Return the minutes of audio that a validation scores; None for series, which are all scored."""
    held_out = None if run.data is None else run.data.validation.minutes
    seconds = run.config.training.validation_seconds
    return held_out if held_out is None or seconds is None else min(held_out, seconds / 60)


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    found = {}
    for section, pairs in configs[0].items():
        for key in pairs:
            values = [config[section].get(key) for config in configs]
            if any(value != values[0] for value in values):
                found[f"{section}.{key}"] = values
    return found
