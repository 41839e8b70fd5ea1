"""Several runs side by side: how good, how long, how fast, and what was set otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wavegen.audio.finding import printable
from wavegen.report.inspection.checkpoint import bits_text
from wavegen.report.inspection.config import receptive_field, resolution
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.inspection.run import inspect_run
from wavegen.report.tables import Table, minutes

FIGURES = (
    "step",
    "total_steps",
    "best_bits_per_sample",
    "best_step",
    "baselines_bits_per_sample",
    "hours_heard",
    "minutes_trained",
    "targets_per_second",
    "skipped_steps",
    "network",
    "data",
)
# What bits/sample depend on besides the model: they compare only where these agree.
MEASURE = ("sample_rate_hz", "classes", "quantization")


def compare_runs(paths: Sequence[Path]) -> Inspection:
    """Inspect runs and put them side by side.

    Args:
        paths: of two runs or more.

    Raises:
        ConfigError: a run's configuration is wrong.
    """
    inspected = [inspect_run(path).facts for path in paths]
    names = short_names(paths)
    runs = [
        {"name": name, "path": facts["path"], **{key: facts[key] for key in FIGURES}}
        for name, facts in zip(names, inspected, strict=True)
    ]
    obstacles = _obstacles(runs)
    values = {
        "kind": "comparison",
        "runs": runs,
        "bits_comparable": not obstacles,
        "bits_not_comparable_because": obstacles,
        "differences": _differences([facts["config"] for facts in inspected]),
    }
    return Inspection("comparison", values, [_figures_table(runs, obstacles), _differences_table(names, values)])


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
    """Why the bits/sample of runs cannot be compared; nothing if they can."""
    reasons = [f"they differ in {key}" for key in MEASURE if len({run["network"][key] for run in runs}) > 1]
    held_out = {run["data"] and run["data"]["held_out_hash"] for run in runs}
    if len(held_out) > 1 or held_out == {None}:
        reasons.append("they were not validated on the same clips")
    return [reason.replace("sample_rate_hz", "sample rate") for reason in reasons]


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The keys in which configurations differ, each with the value of every run."""
    found = {}
    for section, pairs in configs[0].items():
        for key in pairs:
            values = [config[section].get(key) for config in configs]
            if any(value != values[0] for value in values):
                found[f"{section}.{key}"] = values
    return found


def _figures_table(runs: Sequence[dict[str, Any]], obstacles: Sequence[str]) -> Table:
    best = min((bits for run in runs if (bits := run["best_bits_per_sample"]) is not None), default=None)
    mark = len(runs) > 1 and not obstacles

    def best_bits(run: dict[str, Any]) -> str:
        bits = run["best_bits_per_sample"]
        return bits_text(bits) + (" best" if mark and bits is not None and bits == best else "")

    def baseline(run: dict[str, Any]) -> str:
        return bits_text(min(run["baselines_bits_per_sample"].values(), default=None))

    def count(key: str) -> Callable[[dict[str, Any]], str]:
        return lambda run: "-" if run[key] is None else f"{run[key]:,.0f}"

    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("best held-out bits/sample", best_bits),
        ("in classes", lambda run: resolution(run["network"]).partition(" classes")[0]),
        ("at step", count("best_step")),
        ("best baseline", baseline),
        ("steps", count("step")),
        ("of", count("total_steps")),
        ("heard", lambda run: minutes(3600 * run["hours_heard"])),
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
        f"bits/sample do not compare: {'; '.join(obstacles)}" if obstacles else "",
    )


def _differences_table(names: Sequence[str], values: dict[str, Any]) -> Table:
    differences = values["differences"]
    if not differences:
        return Table("configuration", (), [("", "the same in all")])
    rows = [(key, *(_as_yaml(value) for value in row)) for key, row in differences.items()]
    return Table("configuration, where it differs", ("key", *names), rows)


def _as_yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
