"""Starting a training, and going on with one: from a configuration and a folder to a trainer that is ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from wavegen.config import Config, differences
from wavegen.data.corpus import Corpus, manifest_differences
from wavegen.errors import UsageError
from wavegen.model.building import build_model
from wavegen.model.network import load_weights
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint
from wavegen.runs.run_folder import RunFolder, find_checkpoint
from wavegen.training.distributed import Group
from wavegen.training.fine_tuning import check_source, weights_from
from wavegen.training.freeze import fit_schedule, freeze
from wavegen.training.observer import Observer
from wavegen.training.settling import runs_in_slices
from wavegen.training.task_registry import read_corpus, with_corpus
from wavegen.training.trainer import Trainer

Notice = Callable[[str], None]
DataProgress = Callable[[int, int], None]

FEWEST_STEPS = 200  # of sound; with fewer, a model hardly leaves the noise that it begins with

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
        "timeout_seconds",
    )
}
# What decides a network's shape, or what goes into it and comes out.
OF_THE_NETWORK = ("model.", "quantization.", "output.", "mel.", "data.label", "audio.sample_rate_hz")


def _begin(
    config: Config,
    corpus: Corpus[Any],
    run: RunFolder,
    group: Group,
    observers: Sequence[Observer],
    notice: Notice,
    source: Checkpoint | None = None,
) -> Trainer:
    """Begin a training: freeze its configuration and make its run folder.

    Args:
        config: as the user gave it.
        corpus: what to train and validate on.
        run: does not exist yet.
        group: the processes that share the work.
        observers: are told what happens.
        notice: is told what the user should know.
        source: whose averaged weights to start from; None for fresh ones.

    Raises:
        UsageError: the run folder has something in it.
    """
    config = fit_schedule(_frozen(group.all_or_none(lambda: with_corpus(config, corpus)), corpus, group, notice))
    if not config.is_series and int(config.training.steps or 0) < FEWEST_STEPS:
        notice(
            f"{config.training.steps:,} steps are too few to learn much: expect noise; give more --minutes or --steps"
        )
    torch.manual_seed(config.training.seed)
    model = build_model(config)
    own = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    load_weights(model, group.broadcast(own if source is None else weights_from(source, own, config)))
    group.all_or_none(lambda: run.create(config.to_yaml()) if group.is_main else None)
    group.mark_started()
    group.set_timeout(config.training.timeout_seconds)
    return Trainer(config, corpus, model.to(group.device), run, observers, group)


def _frozen(config: Config, corpus: Corpus[Any], group: Group, notice: Notice) -> Config:
    """The configuration with everything decided, by rank 0 for all."""
    assert group.device is not None
    device = group.device
    frozen = group.all_or_none(lambda: freeze(config, corpus, device, notice, group) if group.is_main else None)
    return group.broadcast(frozen) or config


def _shared_corpus(config: Config, group: Group, progress: DataProgress | None) -> Corpus[Any]:
    """The recordings, decoded by one process of each machine, the same for all."""
    corpus = group.first_on_each_machine(lambda: read_corpus(config, progress))
    group.check_same("recordings", repr(corpus.manifest()))
    return corpus


def start_run(
    config: Config,
    run: RunFolder,
    group: Group,
    observers: Sequence[Observer],
    notice: Notice,
    progress: DataProgress | None = None,
    init_from: Path | None = None,
) -> Trainer:
    """Begin a training from a configuration alone; everything that can be wrong is looked at before a file is made.

    Args:
        config: names the folder of recordings, among the rest.
        run: a folder that does not exist yet.
        group: the processes that share the work.
        observers: are told what happens.
        notice: is told what the user should know.
        progress: of reading the corpus.
        init_from: a run or a checkpoint whose averaged weights to start from; of its conditions what matches.

    Raises:
        UsageError: the run folder has something in it, or there is no such folder or checkpoint.
        CheckpointError: the checkpoint to start from is damaged.
        ModelError: its network has another shape.
        DataError: there is nothing to train on.
    """

    def look() -> Checkpoint | None:
        run.check_new()
        return None if init_from is None else load_checkpoint(find_checkpoint(init_from))

    source = group.all_or_none(lambda: look() if group.is_main else None)
    corpus = _shared_corpus(config, group, progress)
    config = group.all_or_none(lambda: with_corpus(config, corpus))
    group.all_or_none(lambda: None if source is None else check_source(f"{init_from}", source, config, notice))
    return _begin(config, corpus, run, group, observers, notice, source)


def resume_run(
    run: RunFolder,
    requested: Callable[[Config], Config],
    accept_changes: bool,
    group: Group,
    observers: Sequence[Observer],
    notice: Notice,
    progress: DataProgress | None = None,
) -> Trainer:
    """Go on with a run from its newest whole checkpoint.

    Args:
        run: the run's folder.
        requested: what the call asks for, given what was frozen.
        accept_changes: go on although the configuration or the folder differs from what was frozen.
        group: the processes that share the work.
        observers: are told what happens.
        notice: is told what the user should know.
        progress: of reading the corpus.

    Raises:
        UsageError: there is nothing to resume, or something differs; the message lists what.
        CheckpointError: no checkpoint is whole.
    """
    newest = group.broadcast(group.all_or_none(lambda: run.load_newest() if group.is_main else None))
    assert newest is not None
    checkpoint, damaged = newest
    for sentence in damaged:
        notice(sentence)
    config, changes = group.all_or_none(lambda: _requested_changes(run, checkpoint, requested))
    corpus = _shared_corpus(config, group, progress)
    changes += manifest_differences(checkpoint.manifest, corpus.manifest())
    group.all_or_none(lambda: None if accept_changes else _raise_on_changes(run, changes))
    config = group.all_or_none(lambda: with_corpus(config, corpus))
    for change in changes:
        notice(f"changed: {change}")
    return _restored(checkpoint, config, corpus, run, group, observers, notice)


def _raise_on_changes(run: RunFolder, changes: list[str]) -> None:
    if changes:
        raise UsageError(
            f"{run.path}: differs from what was frozen when it started: {'; '.join(changes)}; "
            "go on all the same with --accept-changes, or start a new run"
        )


def _requested_changes(
    run: RunFolder, checkpoint: Checkpoint, requested: Callable[[Config], Config]
) -> tuple[Config, list[str]]:
    """The configuration to go on with, and what in it is not as it was frozen."""
    frozen = checkpoint.config
    config = requested(frozen).as_frozen(frozen)
    warmup = frozen.training.warmup_steps
    shortened = fit_schedule(config.with_values("training", steps=frozen.training.steps)).training.warmup_steps
    if shortened == warmup or (config.training.warmup_steps > warmup and checkpoint.step >= warmup):
        # the start shortened the same request, or the warm-up is over
        config = config.with_values("training", warmup_steps=warmup)
    _check_steps(run, config, checkpoint)
    changes = [line for line in differences(frozen, config) if line.partition(":")[0] not in HARMLESS]
    if impossible := [line for line in changes if line.startswith(OF_THE_NETWORK)]:
        raise UsageError(
            f"{run.path}: these keys cannot change within a run: {'; '.join(impossible)}; "
            "start a new run, with --init-from to keep what was learnt"
        )
    return config, changes


def _check_steps(run: RunFolder, config: Config, checkpoint: Checkpoint) -> None:
    """Make sure that a training does not end before the step that it goes on from."""
    steps = config.training.steps
    if steps is not None and steps < checkpoint.step:
        raise UsageError(
            f"{run.path}: is already at step {checkpoint.step:,}; expected more steps than that, found {steps:,}"
        )


def _restored(
    checkpoint: Checkpoint,
    config: Config,
    corpus: Corpus[Any],
    run: RunFolder,
    group: Group,
    observers: Sequence[Observer],
    notice: Notice,
) -> Trainer:
    assert group.device is not None
    device = group.device
    if checkpoint.metrics.get("processes", 1) != group.size:
        frozen = checkpoint.config.training
        keys = ("threads", "accumulation") if runs_in_slices(checkpoint.config, device) else ()
        kept = {key: getattr(frozen, key) for key in keys}
        anew = [key for key, value in kept.items() if getattr(config.training, key) == value]
        notice(f"on {group.size} processes now{': chosen anew: ' if anew else ''}{' and '.join(anew)}")
        config = config.with_values("training", **dict.fromkeys(anew, "auto"))
    if config.training.backend == "fused" and device.type != "cpu":
        notice(f"training.backend: fused runs on a CPU; on {device.type} it is chosen anew")
        config = config.with_values("training", backend="auto", accumulation="auto")
    most_steps, is_additional = config.training.steps, config.training.minutes is not None
    if is_additional:  # minutes on top of what was trained; --steps is the total all the same
        config = config.with_values("training", steps=None)
    config = _frozen(config, corpus, group, notice)
    if is_additional:
        steps, frozen = checkpoint.step + int(config.training.steps or 0), checkpoint.config.training
        # what is validated on stays: figures before and after compare
        kept = {key: getattr(frozen, key) for key in ("validation_seconds", "audition_seconds")}
        config = config.with_values("training", steps=min(steps, most_steps or steps), **kept)
    group.all_or_none(lambda: _check_steps(run, config, checkpoint))  # minutes have become steps
    group.all_or_none(lambda: run.prepare(config.to_yaml(), checkpoint.step) if group.is_main else None)
    group.mark_started()
    group.set_timeout(config.training.timeout_seconds)
    model = build_model(config).to(device)
    trainer = Trainer(config, corpus, model, run, observers, group)
    trainer.restore(checkpoint)
    then = "" if config.training.schedule == "constant" else "; the learning rate falls to 0 at the last one"
    notice(f"resumed at step {checkpoint.step:,} of {trainer.total_steps:,}{then}")
    return trainer
