"""A run: its training's progress, losses, checkpoints and auditions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from wavegen.config import Config, parse_frozen
from wavegen.errors import CheckpointError, UsageError
from wavegen.evaluation.loss_unit import loss_unit_of
from wavegen.inspect.checkpoint import DataFacts, TrainingState, training_state
from wavegen.inspect.config import NetworkFacts, inspect_network
from wavegen.inspect.facts import Facts
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.history import History, Validation, read_history
from wavegen.runs.run_folder import RunFolder


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint of a run: its path in the run's folder, and its step where that is known without reading it."""

    file: str
    step: int | None
    bytes: int


@dataclass(frozen=True, kw_only=True)
class RunFacts(TrainingState, Facts):
    """A run.

    Attributes:
        recent_train_loss, recent_steps: the mean of the last steps with a finite loss, and how many they are.
        targets_per_second, timed_steps: the median of the last steps, and how many they are.
        baselines: the trivial baselines on what every validation scores, the highest first.
        newest_checkpoint_step: None before the first checkpoint.
        damaged_checkpoints: the errors of checkpoints newer than the newest intact one.
        auditions: paths in the run's folder.
        data: None before the first checkpoint.
    """

    kind = "run"
    path: str
    recent_train_loss: float | None
    recent_steps: int
    targets_per_second: float | None
    timed_steps: int
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
    config = parse_frozen(run.config_file.read_text(encoding="utf-8", errors="replace"), str(run.config_file))
    checkpoint, damaged = _load_newest(run)
    history = read_history(path)
    # The metrics of a killed run continue after its newest checkpoint.
    is_ahead = checkpoint is None or checkpoint.step <= history.step
    state = _state(history, config) if checkpoint is None or is_ahead else training_state(checkpoint)
    return RunFacts(
        path=str(path),
        recent_train_loss=fmean(history.recent) if history.recent else None,
        recent_steps=len(history.recent),
        targets_per_second=history.recent_speed,
        timed_steps=len(history.recent_speeds),
        baselines=history.baselines,
        newest_checkpoint_step=None if checkpoint is None else checkpoint.step,
        damaged_checkpoints=damaged,
        validations=history.validations,
        checkpoints=_list_checkpoints(run, state.best_step),
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


def _list_checkpoints(run: RunFolder, best_step: int | None) -> list[CheckpointFile]:
    best = [(best_step, run.best_checkpoint)] if run.best_checkpoint.is_file() else []
    listed = [*run.numbered_checkpoints(), *best]
    return [CheckpointFile(f"checkpoints/{file.name}", step, file.stat().st_size) for step, file in listed]
