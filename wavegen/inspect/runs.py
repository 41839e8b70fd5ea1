"""Runs: progress, losses, checkpoints and auditions of one, and a comparison of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median
from typing import Any

from wavegen.config import Config, parse_frozen
from wavegen.errors import CheckpointError, ConfigError, UsageError
from wavegen.evaluation.scores import loss_unit_of
from wavegen.inspect.models import DataFacts, NetworkFacts, TrainingState, inspect_network, training_state
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.run_folder import History, RunFolder, Validation, read_history
from wavegen.text import printable

# Keys that losses depend on besides the model: they compare only where these agree.
MEASURED_IN = ("audio.", "quantization.", "output.horizon")


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint of a run: its path in the run's folder, and its step where that is known without reading it."""

    file: str
    step: int | None
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RunFacts(TrainingState):
    """A run.

    Attributes:
        recent_train_loss: the mean of the last steps with a finite loss.
        targets_per_second: the median of the last steps.
        baselines: the trivial baselines on what every validation scores, the highest first.
        newest_checkpoint_step: None before the first checkpoint.
        damaged_checkpoints: the errors of checkpoints newer than the newest intact one.
        auditions: paths in the run's folder.
        data: None before the first checkpoint.
    """

    kind = "run"
    path: str
    recent_train_loss: float | None
    targets_per_second: float | None
    baselines: dict[str, float]
    newest_checkpoint_step: int | None
    damaged_checkpoints: list[str]
    validations: list[Validation]
    checkpoints: list[CheckpointFile]
    auditions: list[str]
    network: NetworkFacts
    data: DataFacts | None
    config: Config

    @cached_property
    def history(self) -> History:
        """Every step, read from the run's folder."""
        return read_history(Path(self.path))


def inspect_run(path: Path) -> RunFacts:
    """Read a run's configuration, metrics and newest whole checkpoint; it need not have one yet.

    Raises:
        ConfigError: its configuration is wrong.
    """
    run = RunFolder(path)
    config = _read_config(run)
    checkpoint, damaged = _load_newest(run)
    history = read_history(path)
    # The metrics of a killed run continue after its newest checkpoint.
    is_ahead = checkpoint is None or checkpoint.step <= history.step
    state = _state(history, config) if checkpoint is None or is_ahead else training_state(checkpoint)
    best = [(state.best_step, run.best_checkpoint)] if run.best_checkpoint.is_file() else []
    files = [*run.numbered_checkpoints(), *best]
    return RunFacts(
        path=str(path),
        recent_train_loss=fmean(history.recent) if history.recent else None,
        targets_per_second=median(history.recent_speeds) if history.recent_speeds else None,
        baselines=history.baselines,
        newest_checkpoint_step=None if checkpoint is None else checkpoint.step,
        damaged_checkpoints=damaged,
        validations=history.validations,
        checkpoints=[CheckpointFile(f"checkpoints/{file.name}", step, file.stat().st_size) for step, file in files],
        auditions=sorted(f"auditions/{file.name}" for file in run.auditions.glob("*.wav")),
        network=inspect_network(config),
        data=None if checkpoint is None else DataFacts.of(checkpoint),
        config=config,
        **vars(state),
    )


def _state(history: History, config: Config) -> TrainingState:
    """Read how far a training is from its metrics, as ``training_state`` does from a checkpoint."""
    best = history.best
    return TrainingState(
        step=history.step,
        total_steps=config.training.steps,
        seen=history.seen[-1] if history.seen else 0.0,
        minutes_trained=history.minutes_trained,
        skipped_steps=history.skipped,
        best_loss=None if best is None else best.loss,
        best_step=None if best is None else best.step,
        last_validation=history.validations[-1] if history.validations else None,
        loss_unit=loss_unit_of(config),
    )


def _load_newest(run: RunFolder) -> tuple[Checkpoint | None, list[str]]:
    """Load the newest intact checkpoint, if there is one, and report the errors of newer ones."""
    try:
        return run.load_newest()
    except UsageError:
        return None, []
    except CheckpointError as error:
        return None, [str(error)]


@dataclass(frozen=True, kw_only=True)
class RunSummary(TrainingState):
    """A run among others, by its configuration and metrics; the last validation's baselines compare with its loss."""

    name: str
    data: list[str]


@dataclass(frozen=True, kw_only=True)
class RunListFacts:
    """The runs in a folder.

    Attributes:
        unreadable: why others cannot be shown, by their names.
    """

    kind = "runs"
    path: str
    runs: list[RunSummary]
    unreadable: dict[str, str]


def list_runs(folder: Path, paths: Sequence[Path]) -> RunListFacts:
    """Summarize the runs of a folder; no checkpoint is read."""
    runs, unreadable = [], {}
    for path in paths:
        try:
            config = _read_config(RunFolder(path))
            state = _state(read_history(path), config)
        except (ConfigError, OSError) as error:
            unreadable[path.name] = str(error)
            continue
        runs.append(RunSummary(name=path.name, data=config.data_sources, **vars(state)))
    return RunListFacts(path=str(folder), runs=runs, unreadable=unreadable)


def _read_config(run: RunFolder) -> Config:
    text = run.config_file.read_text(encoding="utf-8", errors="replace")
    return parse_frozen(text, str(run.config_file))


@dataclass(frozen=True, kw_only=True)
class ComparisonFacts:
    """Several runs.

    Attributes:
        names: of the folders, in the order of ``runs``; the paths as they were given where two folders have one name.
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
    runs, names = [inspect_run(path) for path in paths], [printable(path.absolute().name) for path in paths]
    kinds = {run.loss_unit.name: run.loss_unit for run in runs}
    if len(kinds) > 1:
        found = " and ".join(sorted(loss_unit.full_name for loss_unit in kinds.values()))
        raise UsageError(f"expected runs of one kind to compare, found some measured in {found}; give them apart")
    differences = _differences([run.config.model_dump() for run in runs])
    reasons = _reasons(runs, differences)
    return ComparisonFacts(
        names=names if len(set(names)) == len(names) else list(map(printable, paths)),
        runs=runs,
        losses_comparable=not reasons,
        not_comparable_because=reasons,
        differences=differences,
    )


def _reasons(runs: Sequence[RunFacts], differences: Mapping[str, object]) -> list[str]:
    """Return the reasons why the held-out losses of runs do not compare; empty if they do."""
    reasons = [f"they differ in {key}" for key in differences if key.startswith(MEASURED_IN)]
    held_out = {run.data and run.data.held_out_hash for run in runs}
    if len(held_out) > 1 or held_out == {None}:
        reasons.append("they were not validated on the same clips")
    elif len({_validated_minutes(run) for run in runs}) > 1:
        reasons.append("they were validated on unequal parts of the same clips")
    return reasons


def _validated_minutes(run: RunFacts) -> float | None:
    """Return the minutes of audio that a validation scores; None for series, which are all scored."""
    held_out = None if run.data is None else run.data.validation.minutes
    seconds = run.config.training.validation_seconds
    return held_out if held_out is None or seconds is None else min(held_out, seconds / 60)


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    keys = [(section, key) for section, pairs in configs[0].items() for key in pairs]
    values = {f"{section}.{key}": [config[section].get(key) for config in configs] for section, key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}
