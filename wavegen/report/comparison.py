"""Several runs side by side: how good, how long, how fast, and what was set otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wavegen.errors import UsageError
from wavegen.evaluation.measure import Measure, measure_in
from wavegen.report.inspection.config import as_yaml, receptive_field, resolution
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.inspection.run import inspect_run
from wavegen.report.tables import Table, heard_in_words, minutes
from wavegen.text import printable

FIGURES = (
    "step",
    "total_steps",
    "best_step",
    "minutes_trained",
    "targets_per_second",
    "skipped_steps",
    "network",
    "data",
)
# What bits/sample depend on besides the model: they compare only where these agree.
MEASURE = ("sample_rate_hz", "classes", "quantization", "horizon")
PREPARATION = ("remove_dc", "trim_db", "pause_seconds", "level", "max_gain_db")  # of the section audio


def compare_runs(paths: Sequence[Path]) -> Inspection:
    """Inspect runs and put them side by side.

    Args:
        paths: of two runs or more.

    Raises:
        ConfigError: a run's configuration is wrong.
        UsageError: some are of sound and some of series, or of series with another error.
    """
    inspected = [inspect_run(path).facts for path in paths]
    names = short_names(paths)
    measures = {measure_in(facts) for facts in inspected}
    if len(measures) > 1:
        found = " and ".join(sorted(measure.unit for measure in measures))
        raise UsageError(f"expected runs of one kind to compare, found some measured in {found}; give them apart")
    measure = measures.pop()
    figures = (*FIGURES, f"best_{measure.fact}", f"baselines_{measure.fact}", measure.heard)
    runs = [
        {"name": name, "path": facts["path"], **{key: facts[key] for key in figures}}
        for name, facts in zip(names, inspected, strict=True)
    ]
    obstacles = _obstacles(inspected)
    values = {
        "kind": "comparison",
        "runs": runs,
        "bits_comparable": not obstacles,
        "bits_not_comparable_because": obstacles,
        "differences": _differences([facts["config"] for facts in inspected]),
    }
    tables = [_figures_table(measure, runs, obstacles), _differences_table(names, values)]
    return Inspection("comparison", values, tables)


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart; the same path twice is numbered."""
    parts = [path.absolute().parts for path in paths]
    deepest = max(map(len, parts))
    for n in range(1, deepest + 1):
        names = [printable("/".join(each[-n:])) for each in parts]
        if len(set(names)) == len(set(parts)):
            break
    return [f"{name} ({names[: i + 1].count(name)})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _obstacles(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Why the bits/sample of runs cannot be compared; nothing if they can.

    Args:
        runs: facts of each, as `inspect_run` finds them.
    """
    reasons = [f"they differ in {key}" for key in MEASURE if len({run["network"][key] for run in runs}) > 1]
    audio = [run["config"]["audio"] for run in runs]
    reasons += [f"they differ in audio.{key}" for key in PREPARATION if len({each[key] for each in audio}) > 1]
    held_out = {run["data"] and run["data"]["held_out_hash"] for run in runs}
    if len(held_out) > 1 or held_out == {None}:
        reasons.append("they were not validated on the same clips")
    elif len({_validated_minutes(run) for run in runs}) > 1:
        reasons.append("they were validated on unequal parts of the same clips")
    return [reason.replace("sample_rate_hz", "sample rate") for reason in reasons]


def _validated_minutes(run: dict[str, Any]) -> float | None:
    """How much audio every validation of a run hears; None of series, where each hears all."""
    held_out: float | None = run["data"].get("validation_minutes")
    seconds = run["config"]["training"]["validation_seconds"]
    return held_out if held_out is None or seconds is None else min(held_out, seconds / 60)


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which configurations differ, each with the value of every run."""
    found = {}
    for section, pairs in configs[0].items():
        for key in pairs:
            values = [config[section].get(key) for config in configs]
            if any(value != values[0] for value in values):
                found[f"{section}.{key}"] = values
    return found


def _figures_table(measure: Measure, runs: Sequence[dict[str, Any]], obstacles: Sequence[str]) -> Table:
    best = min((figure for run in runs if (figure := run[f"best_{measure.fact}"]) is not None), default=None)
    mark = len(runs) > 1 and not obstacles

    def best_figure(run: dict[str, Any]) -> str:
        figure = run[f"best_{measure.fact}"]
        return measure.text(figure) + (" best" if mark and figure is not None and figure == best else "")

    def baseline(run: dict[str, Any]) -> str:
        return measure.text(min(run[f"baselines_{measure.fact}"].values(), default=None))

    def count(key: str) -> Callable[[dict[str, Any]], str]:
        return lambda run: "-" if run[key] is None else f"{run[key]:,.0f}"

    in_classes = ("in classes", lambda run: resolution(run["network"]).partition(" classes")[0])
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        (f"best held-out {measure.unit}", best_figure),
        *([in_classes] if measure.is_bits else []),
        ("at step", count("best_step")),
        ("best baseline", baseline),
        ("steps", count("step")),
        ("of", count("total_steps")),
        ("heard", lambda run: heard_in_words(measure, run[measure.heard]).removesuffix(" of audio")),
        ("trained", lambda run: minutes(60 * run["minutes_trained"])),
        ("targets/s", count("targets_per_second")),
        ("parameters", lambda run: f"{run['network']['parameters']:,}"),
        ("receptive field", lambda run: receptive_field(run["network"])),
        ("multiply-adds a sample", lambda run: f"{run['network']['multiply_adds_per_sample']:,}"),
    ]
    return Table(
        f"{len(runs)} runs",
        ("", *(run["name"] for run in runs)),
        [(name, *(show(run) for run in runs)) for name, show in rows],
        f"{measure.unit} do not compare: {'; '.join(obstacles)}" if obstacles else "",
    )


def _differences_table(names: Sequence[str], values: dict[str, Any]) -> Table:
    differences = values["differences"]
    if not differences:
        return Table("configuration", (), [("", "the same in all")])
    rows = [(key, *(as_yaml(value) for value in row)) for key, row in differences.items()]
    return Table("configuration, where it differs", ("key", *names), rows)
