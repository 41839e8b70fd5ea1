"""A trained model, ready for use: load a checkpoint, generate and score audio, forecast series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from wavegen.config import DEFAULT_PRESET, Config, load_config
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder, find_checkpoint, run_of
from wavegen.trained.choosing import Choosing
from wavegen.trained.generating import SamplingOptions
from wavegen.trained.model import Label
from wavegen.trained.scoring import Scoring
from wavegen.trained.series import Forecasting
from wavegen.training.progress import Observer

__all__ = ["Label", "SamplingOptions", "TrainedModel", "load", "train"]


class TrainedModel(Choosing, Scoring, Forecasting):
    """A network with a checkpoint's averaged weights: generates, scores, and forecasts.

    Args:
        checkpoint: of a training.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ModelError: the weights do not fit the configuration, or are not finite.
        UsageError: there is no such device.
    """


def load(path: str | Path, device: str = "auto") -> TrainedModel:
    """Load a run's best checkpoint, or a checkpoint file.

    Args:
        path: a run folder, a ``.safetensors`` file, or ``demo``, the model that wavegen ships.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        UsageError: there is nothing to load at the path.
        CheckpointError: the checkpoint is damaged or of another version.
        ModelError: its weights are not finite.
    """
    return TrainedModel(load_checkpoint(find_checkpoint(Path(path))), device)


def train(
    folder: str | Path | None = None,
    config: Config | str | Path = DEFAULT_PRESET,
    *,
    run: str | Path | None = None,
    device: str = "auto",
    init_from: str | Path | None = None,
    observers: Sequence[Observer] = (),
    notice: Callable[[str], None] = print,
) -> TrainedModel:
    """Train a model on a folder of recordings, or of series.

    Args:
        folder: of the recordings; None for the configuration's, or for synthetic series.
        config: a configuration, a preset's name, or a YAML file.
        run: the run folder; ``runs/`` and the folder's name by default.
        device: auto, cpu, cuda or cuda:N.
        init_from: a run or checkpoint to start from.
        observers: are told what happens.
        notice: is told what the user should know.

    Returns:
        The best model of the training.

    Raises:
        ConfigError, UsageError, DataError: something given is wrong; the message says what.
        TrainingError: the loss is not finite again and again.
        ProcessDied: on several processes: another one is gone; the state is saved.
        Interrupted: after Ctrl-C; the state is saved.
    """
    from wavegen.training.process_group import process_group
    from wavegen.training.start import start_run

    settings = config if isinstance(config, Config) else load_config(config)
    if folder is not None:
        settings = settings.with_values("data", folder=str(Path(folder).absolute()))
    run_folder = run_of(settings.data_source or "") if run is None else RunFolder(Path(run))
    source = None if init_from is None else Path(init_from)
    with process_group(device) as group:
        listeners, say = (observers, notice) if group.is_main else ((), _say_nothing)
        trainer = start_run(settings, run_folder, group, listeners, say, init_from=source)
        trainer.fit()
        best = load_checkpoint(find_checkpoint(run_folder.path)) if group.is_main else None
        best = group.broadcast(best)
    assert best is not None
    return TrainedModel(best, device)


def _say_nothing(text: str) -> None:
    """Say nothing: another process does."""
