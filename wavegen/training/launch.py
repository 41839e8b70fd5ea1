"""Starting a training, and going on with one: from a configuration and a folder to a trainer that is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wavegen.config import Config, differences
from wavegen.data.corpus import Corpus, manifest_differences
from wavegen.data.reading import build_quantizer, read_corpus
from wavegen.errors import ModelError, UsageError
from wavegen.model.shapes import parameter_shapes
from wavegen.model.wavenet import build_model, load_weights
from wavegen.training.checkpoint import Arrays, Checkpoint, load_checkpoint
from wavegen.training.freeze import freeze
from wavegen.training.observer import Observer
from wavegen.training.run_folder import RunFolder, find_checkpoint
from wavegen.training.trainer import Trainer

Notice = Callable[[str], None]
DataProgress = Callable[[int, int], None]

# What may differ between a run and the wish to go on with it, without being asked twice: another length is the
# ordinary case, and how often things are looked at or kept changes nothing in the training.
HARMLESS = {
    f"training.{key}"
    for key in (
        "steps",
        "minutes",
        "validate_every",
        "validation_seconds",
        "checkpoint_every",
        "keep_last",
        "audition_every",
        "audition_seconds",
    )
}


def start(
    config: Config, corpus: Corpus, run: RunFolder, device: torch.device, observers: Sequence[Observer], notice: Notice
) -> Trainer:
    """Begin a training: freeze its configuration and make its run folder.

    Raises:
        UsageError: the run folder has something in it.
    """
    config = freeze(config, corpus, device, notice)
    torch.manual_seed(config.training.seed)
    model = build_model(config).to(device)
    run.create(config.to_yaml())
    return Trainer(config, corpus, model, build_quantizer(config), run, observers)


def new_run(
    config: Config,
    run: RunFolder,
    device: torch.device,
    observers: Sequence[Observer],
    notice: Notice,
    progress: DataProgress | None = None,
    init_from: Path | None = None,
) -> Trainer:
    """Begin a training from a configuration alone; everything that can be wrong is looked at before a file is made.

    Args:
        config: names the folder of recordings, among the rest.
        run: a folder that does not exist yet.
        device: to train on.
        observers: are told what happens.
        notice: is told what the user should know.
        progress: of reading the corpus.
        init_from: a run or a checkpoint whose averaged weights to start from, where names and shapes match.

    Raises:
        UsageError: the run folder has something in it, or there is no such folder or checkpoint.
        CheckpointError: the checkpoint to start from is damaged.
        ModelError: nothing in it matches.
        DataError: there is nothing to train on.
    """
    run.check_new()
    weights = {} if init_from is None else _matching_weights(init_from, config, notice)
    corpus = read_corpus(config, progress)
    trainer = start(config, corpus, run, device, observers, notice)
    if weights:
        own = {name: parameter.detach().cpu().numpy() for name, parameter in trainer.model.named_parameters()}
        for model in (trainer.model, trainer.average):
            load_weights(model, {**own, **weights})
    return trainer


def _matching_weights(path: Path, config: Config, notice: Notice) -> Arrays:
    """Another training's averaged weights, where they fit this configuration; says what does not."""
    checkpoint = load_checkpoint(find_checkpoint(path))
    shapes = parameter_shapes(config)
    fits = {name: array for name, array in checkpoint.average.items() if shapes.get(name) == array.shape}
    if not fits:
        raise ModelError(f"{path}: none of its weights has the shape that this configuration asks for")
    if checkpoint.config.quantization != config.quantization:
        notice(f"{path} was trained with other classes: {checkpoint.config.quantization}")
    fresh = sorted(shapes.keys() - fits.keys())
    notice(
        f"initialized {len(fits)} of {len(shapes)} tensors from {path}"
        + (f"; fresh: {', '.join(fresh)}" if fresh else "")
    )
    return fits


def resume(
    run: RunFolder,
    requested: Callable[[Config], Config],
    accept_changes: bool,
    device: torch.device,
    observers: Sequence[Observer],
    notice: Notice,
    progress: DataProgress | None = None,
) -> Trainer:
    """Go on with a run from its newest whole checkpoint.

    Args:
        run: the run's folder.
        requested: what the call asks for, given what was frozen.
        accept_changes: go on although the configuration or the folder differs from what was frozen.
        device: to train on.
        observers: are told what happens.
        notice: is told what the user should know.
        progress: of reading the corpus.

    Raises:
        UsageError: there is nothing to resume, or something differs; the message lists what.
        CheckpointError: no checkpoint is whole.
    """
    checkpoint, damaged = run.load_newest()
    for sentence in damaged:
        notice(sentence)
    frozen = checkpoint.config
    config = requested(frozen).as_frozen(frozen)
    if config.training.steps is not None and config.training.steps < checkpoint.step:
        raise UsageError(
            f"{run.path}: is already at step {checkpoint.step:,}; expected more steps than that, "
            f"found {config.training.steps:,}"
        )
    changes = [line for line in differences(frozen, config) if line.partition(":")[0] not in HARMLESS]
    if any(line.startswith(("model.", "quantization.", "output.", "audio.sample_rate_hz")) for line in changes):
        raise UsageError(
            f"{run.path}: these keys cannot change within a run: {'; '.join(changes)}; "
            "start a new run, with --init-from to keep what was learnt"
        )
    corpus = read_corpus(config, progress)
    changes += manifest_differences(checkpoint.manifest, corpus.manifest())
    if changes and not accept_changes:
        raise UsageError(
            f"{run.path}: differs from what was frozen when it started: {'; '.join(changes)}; "
            "go on all the same with --accept-changes, or start a new run"
        )
    for change in changes:
        notice(f"changed: {change}")
    return _restored(checkpoint, config, corpus, run, device, observers, notice)


def _restored(
    checkpoint: Checkpoint,
    config: Config,
    corpus: Corpus,
    run: RunFolder,
    device: torch.device,
    observers: Sequence[Observer],
    notice: Notice,
) -> Trainer:
    if config.training.backend == "fused" and device.type != "cpu":
        notice(f"training.backend: fused runs on a CPU; on {device.type} it is chosen anew")
        config = config.with_values("training", backend="auto", accumulation="auto")
    config = freeze(config, corpus, device, notice)
    if config != checkpoint.config:
        run.write_config(config.to_yaml())
    trainer = Trainer(config, corpus, build_model(config).to(device), build_quantizer(config), run, observers)
    trainer.restore(checkpoint)
    run.cut_metrics(checkpoint.step)
    notice(f"resumed at step {checkpoint.step:,} of {trainer.total_steps:,}")
    return trainer
