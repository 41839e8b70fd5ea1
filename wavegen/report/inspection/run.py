"""A run: where its training stands, its curve, its checkpoints and auditions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from wavegen.config import parse_frozen
from wavegen.errors import CheckpointError, UsageError
from wavegen.evaluation.measure import Measure, measure_in, measure_of
from wavegen.report.inspection.checkpoint import (
    data_facts,
    data_table,
    figures_in_words,
    held_out_table,
    step_in_words,
    training_state,
)
from wavegen.report.inspection.config import network_facts, network_table, unit
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.tables import ROWS, Table, facts, file_size, heard_in_words, minutes
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.history import History, read_history
from wavegen.runs.run_folder import RunFolder
from wavegen.text import printable


def inspect_run(path: Path) -> Inspection:
    """Read a run's configuration, metrics and newest checkpoint that is whole; it need not have one yet.

    Raises:
        ConfigError: its configuration is wrong.
    """
    run = RunFolder(path)
    config = parse_frozen(run.config_file.read_text(encoding="utf-8", errors="replace"), str(run.config_file))
    checkpoint, damaged = _load_newest(run)
    history = read_history(path)
    # The metrics of a run that was killed go on after its newest checkpoint.
    if checkpoint is not None and checkpoint.step > history.step:
        state = training_state(checkpoint)
    else:
        state = _state(history, measure_of(config), config.training.steps)
    network, recent = network_facts(config), history.recent
    measure = measure_of(config)
    data = None if checkpoint is None else data_facts(checkpoint)
    values = {
        "kind": "run",
        "path": str(path),
        **state,
        "recent_steps": len(recent),
        f"recent_train_{measure.fact}": fmean(recent) if recent else None,
        "targets_per_second": history.recent_speed,
        "timed_steps": len(history.recent_speeds),
        f"baselines_{measure.fact}": history.baselines,
        "newest_checkpoint_step": None if checkpoint is None else checkpoint.step,
        "damaged_checkpoints": damaged,
        "validations": history.validations,
        "checkpoints": _list_checkpoints(run, state["best_step"]),
        "auditions": sorted(f"auditions/{file.name}" for file in run.auditions.glob("*.wav")),
        "network": network,
        "data": data,
        "config": config.model_dump(),
    }
    tables = [_summary_table(values), network_table(network)]
    if data is not None:
        tables.append(data_table(data))
    if history.validations:
        tables.append(_curve_table(measure, history.validations, state["best_step"]))
    if state["last_validation"]:
        tables.append(held_out_table(state["last_validation"], measure))
    if values["checkpoints"]:
        tables.append(_checkpoints_table(values["checkpoints"]))
    return Inspection("run", values, tables)


def _state(history: History, measure: Measure, total_steps: int | None) -> dict[str, Any]:
    """The same facts as `training_state` takes from a checkpoint."""
    best = history.best
    return {
        "step": history.step,
        "total_steps": total_steps,
        measure.heard: history.heard[-1] if history.steps else 0.0,
        "minutes_trained": history.seconds[-1] / 60 if history.steps else 0.0,
        "skipped_steps": history.skipped,
        f"best_{measure.fact}": best and best[measure.fact],
        "best_step": best and best["step"],
        "last_validation": history.validations[-1] if history.validations else None,
    }


def _load_newest(run: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, if there is one, and what is wrong with newer ones."""
    try:
        return run.load_newest()
    except UsageError:
        return None, []
    except CheckpointError as error:
        return None, [str(error)]


def _list_checkpoints(run: RunFolder, best_step: int | None) -> list[dict[str, Any]]:
    best = [(best_step, run.best_checkpoint)] if run.best_checkpoint.is_file() else []
    listed = [*run.numbered_checkpoints(), *best]
    return [{"file": f"checkpoints/{file.name}", "step": step, "bytes": file.stat().st_size} for step, file in listed]


def _summary_table(values: dict[str, Any]) -> Table:
    measure = measure_in(values, unit(values["network"]))
    step, saved, recent = values["step"], values["newest_checkpoint_step"], values[f"recent_train_{measure.fact}"]
    speed, auditions, damaged = values["targets_per_second"], values["auditions"], values["damaged_checkpoints"]
    timed, steps = ("step" if n == 1 else f"{n} steps" for n in (values["timed_steps"], values["recent_steps"]))
    saved_in_words = "none yet" if saved is None else f"step {saved:,}; --resume goes on from there"
    heard = f"{len(auditions)}, the last is {auditions[-1]}" if auditions else "none yet"
    return facts(
        printable(values["path"]),
        step=step_in_words(step, values["total_steps"]),
        heard=heard_in_words(measure, values[measure.heard]),
        trained=minutes(60 * values["minutes_trained"]),
        speed=None if speed is None else f"{speed:,.0f} targets/s, median of the last {timed}",
        train=None if recent is None else f"{measure.text(recent)} {measure.unit}, mean of the last {steps}",
        **figures_in_words(values, measure),
        skipped_steps=values["skipped_steps"] or None,
        checkpoint=None if saved == step else saved_in_words,
        damaged="\n".join(map(printable, damaged)) or None,
        auditions=heard if measure.is_bits else None,
    )


def _curve_table(measure: Measure, validations: Sequence[dict[str, Any]], best_step: int | None) -> Table:
    rows = []
    for each in _spread(validations, best_step):
        rows.append(
            (
                f"{each['step']:,}",
                measure.text(each[f"train_{measure.fact}"]),
                measure.text(each[measure.fact]),
                heard_in_words(measure, each[measure.heard]).removesuffix(" of audio"),
                "best" if each["step"] == best_step else "",
            )
        )
    n_all = len(validations)
    some = "validations" if len(rows) == n_all else f"{len(rows)} of {n_all} validations"
    return Table(f"{some} ({measure.unit})", ("step", "train", "held-out", "heard", ""), rows)


def _spread(validations: Sequence[dict[str, Any]], best_step: int | None) -> list[dict[str, Any]]:
    """At most so many validations as the table has rows, evenly spread, with the first, the last and the best."""
    last = len(validations) - 1
    if last < ROWS:
        return list(validations)
    chosen = {round(i * last / (ROWS - 2)) for i in range(ROWS - 1)}
    chosen |= {i for i, each in enumerate(validations) if each["step"] == best_step}
    return [validations[i] for i in sorted(chosen)]


def _checkpoints_table(checkpoints: Sequence[dict[str, Any]]) -> Table:
    rows = [
        (Path(each["file"]).name, "-" if each["step"] is None else f"{each['step']:,}", file_size(each["bytes"]))
        for each in checkpoints
    ]
    return Table("checkpoints", ("file", "step", "size"), rows)
