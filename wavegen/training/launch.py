"""Starting a training, and going on with one: from a configuration and a folder to a trainer that is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from wavegen.config import Config, differences
from wavegen.data.corpus import Corpus, manifest_differences
from wavegen.data.reading import build_quantizer, read_corpus
from wavegen.errors import ModelError, UsageError
from wavegen.model.wavenet import build_model, load_weights
from wavegen.training.checkpoint import Checkpoint, load_checkpoint
from wavegen.training.freeze import freeze
from wavegen.training.observer import Observer
from wavegen.training.run_folder import RunFolder, find_checkpoint
from wavegen.training.trainer import Trainer

Notice = Callable[[str], None]
DataProgress = Callable[[int, int], None]

# What may differ between a run and the wish to go on with it, without being asked twice: a longer or shorter
# schedule is the ordinary case, and how often things are looked at or kept changes nothing in the training.
HARMLESS = (
    "validate_every",
    "validation_seconds",
    "checkpoint_every",
    "keep_last",
    "audition_every",
    "audition_seconds",
)


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


def init_from(trainer: Trainer, path: Path, notice: Notice) -> None:
    """Start from another training's averaged weights, where names and shapes match; say what does not.

    Raises:
        UsageError, CheckpointError: there is no such checkpoint.
        ModelError: nothing in it matches.
    """
    checkpoint = load_checkpoint(find_checkpoint(path))
    if checkpoint.config.quantization != trainer.config.quantization:
        notice(f"{path} was trained with other classes: {checkpoint.config.quantization}")
    own = {name: parameter.detach().cpu().numpy() for name, parameter in trainer.model.named_parameters()}
    fits = {name: array for name, array in checkpoint.average.items() if name in own and own[name].shape == array.shape}
    if not fits:
        raise ModelError(f"{path}: none of its weights has the shape that this configuration asks for")
    for model in (trainer.model, trainer.average):
        load_weights(model, {**own, **fits})
    kept = f"{len(fits)} of {len(own)} tensors"
    fresh = sorted(own.keys() - fits.keys())
    notice(f"initialized {kept} from {path}" + (f"; fresh: {', '.join(fresh)}" if fresh else ""))


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
    config = requested(frozen)
    changes = [line for line in differences(frozen, config) if not _is_harmless(line)]
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
    if config != checkpoint.config:
        config = freeze(config, corpus, device, notice)
        run.write_config(config.to_yaml())
    torch.set_num_threads(int(config.training.threads))
    trainer = Trainer(config, corpus, build_model(config).to(device), build_quantizer(config), run, observers)
    trainer.restore(checkpoint)
    run.cut_metrics(checkpoint.step)
    notice(f"resumed at step {checkpoint.step:,} of {trainer.total_steps:,}")
    return trainer


def _is_harmless(change: str) -> bool:
    key = change.partition(":")[0]
    return key in {f"training.{name}" for name in HARMLESS} or key in ("training.steps", "training.minutes")
