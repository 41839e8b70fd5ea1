"""Start a training, or resume one: configuration -> corpus -> plan -> trainer.

Rank 0 plans, and one broadcast gives the others its plan and the weights. Whatever can be wrong is found before a file
is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from wavegen.audio.waveform import Notice
from wavegen.config import DEFAULT_PRESET, LONG_EVENTS_PRESET, Config, differences, override
from wavegen.data.conditioning import build_conditioner, list_labels
from wavegen.data.corpus import Corpus, Progress, manifest_differences
from wavegen.data.recordings import LONG_EVENTS, event_seconds
from wavegen.errors import ModelError, UsageError
from wavegen.evaluation.scores import FEWEST_CLIPS, FEWEST_SECONDS
from wavegen.model.building import (
    build_model,
    condition_columns,
    fold_weight_norm,
    load_weights,
    parameter_shapes,
    with_gains,
)
from wavegen.runs.checkpoint import Arrays, Checkpoint, load_checkpoint
from wavegen.runs.run_folder import RunFolder, find_checkpoint
from wavegen.text import format_duration, list_first, pluralize
from wavegen.training.compute import has_precision, runs_side_by_side
from wavegen.training.plan import Plan, resolve_plan, shortened_warmup
from wavegen.training.process_group import Group
from wavegen.training.task import task_type
from wavegen.training.trainer import Trainer

FEWEST_TRAINING_SECONDS = 300.0  # enough for a first try; an hour is plenty
MANY_PASSES = 50  # over little sound, after which a model repeats it
MOST_HELD_OUT = 0.5  # as the schema

# What may differ between a run and the request to resume it without --accept-changes: another length is the ordinary
# case, and how often a training is validated or saved changes nothing in it.
HARMLESS = {
    f"training.{key}"
    for key in (
        *("steps", "minutes", "validate_every", "validation_seconds", "checkpoint_every", "keep_last"),
        *("audition_every", "audition_seconds", "timeout_seconds"),
    )
}
# What decides a network's shape, or the meaning of its inputs and outputs.
OF_THE_NETWORK = ("model.", "quantization.", "output.", "mel.", "features.", "data.label", "audio.sample_rate_hz")

LABELS = "conditioning.labels"  # a row for each label
LONGEST_CHANGE = 100  # characters of a key that differs
PROJECTION = "conditioning.projection"  # columns for labels and for frames

# What another network may have been trained with although all its tensors fit.
SAME_SHAPES_OTHER_MEANING = ("audio.sample_rate_hz", "quantization.", "model.input", "model.activation", "output.")


def start_run(
    config: Config,
    run: RunFolder,
    group: Group,
    notice: Notice,
    progress: Progress | None = None,
    init_from: Path | None = None,
    for_long_events: Config | None = None,
) -> Trainer:
    """Begin a training.

    Args:
        config: as the user gave it; names the folder of recordings, among the rest.
        run: a folder that does not exist yet.
        group: the processes that share the work.
        notice: called with messages for the user.
        progress: of reading the corpus: called with (files done, files in all).
        init_from: a run or a checkpoint whose averaged weights to start from; of its conditions what matches.
        for_long_events: takes the place of ``config`` where notes and decays are far longer than its receptive field.

    Raises:
        UsageError: the run folder has something in it, or there is no such folder or checkpoint.
        CheckpointError: the checkpoint to start from is damaged.
        ModelError: its network has another shape.
        DataError: there is nothing to train on.
    """

    def look() -> Checkpoint | None:
        run.check_new()
        return None if init_from is None else load_checkpoint(find_checkpoint(init_from))

    # before the recordings are decoded, which may take an hour
    source = group.all_or_none(lambda: look() if group.is_main else None)
    corpus = _read_corpus(config, group, progress)

    def plan_start() -> tuple[Plan, Arrays]:
        complete = task_type(config).with_corpus(_for_events(config, for_long_events, corpus, notice), corpus)
        if source is not None:
            check_source(f"{init_from}", source, complete, notice)
        plan = resolve_plan(complete, corpus, group.device, notice, group)
        plan = plan.with_training(warmup_steps=shortened_warmup(complete.training.warmup_steps, plan.steps))
        if source is None and plan.steps < task_type(config).fewest_steps:
            notice(f"{pluralize(plan.steps, 'step is', 'steps are')} too few to learn much: expect noise; train longer")
        for text in _little_data(plan, corpus):
            notice(text)
        weights = _first_weights(plan.config, source)
        run.create(plan.config.to_yaml())
        return plan, weights

    plan, weights = group.on_main(plan_start)
    return _build_trainer(plan, weights, corpus, run, group)


def resume_run(
    run: RunFolder,
    requested: Callable[[Config], Config],
    accept_changes: bool,
    group: Group,
    notice: Notice,
    progress: Progress | None = None,
) -> Trainer:
    """Resume a run from its newest whole checkpoint.

    Args:
        run: the run's folder.
        requested: maps the stored configuration to the requested one; called on rank 0.
        accept_changes: resume although the configuration or the folder differs from what was stored.
        group: the processes that share the work.
        notice: called with messages for the user.
        progress: of reading the corpus: called with (files done, files in all).

    Raises:
        UsageError: there is nothing to resume, or something differs; the message lists what.
        CheckpointError: no checkpoint is whole.
    """

    def look() -> tuple[Checkpoint, Config, list[str]]:
        checkpoint, damaged = run.load_newest()
        for sentence in damaged:
            notice(sentence)
        return checkpoint, *_requested_changes(run, checkpoint, requested)

    checkpoint, config, changes = group.on_main(look)
    corpus = _read_corpus(config, group, progress)

    def plan_rest() -> Plan:
        all_changes = changes + manifest_differences(checkpoint.manifest, corpus.manifest())
        if all_changes and not accept_changes:
            changed = f"differs from what was frozen when it started: {'; '.join(all_changes)}"
            raise UsageError(f"{run.path}: {changed}; resume anyway with --accept-changes, or start a new run")
        complete = task_type(config).with_corpus(config, corpus)
        for change in all_changes:
            notice(f"changed: {change}")
        plan = _resumed_plan(checkpoint, complete, corpus, group, notice)
        _check_steps(run, plan.steps, checkpoint)  # minutes have become steps
        run.prepare(plan.config.to_yaml(), checkpoint.step)
        return plan

    # the run folder is changed last, after all checks
    plan = group.on_main(plan_rest)
    trainer = _build_trainer(plan, checkpoint.weights, corpus, run, group)
    trainer.restore(checkpoint)
    done, then = "resumed", "; the learning rate falls to 0 at the last one"
    if checkpoint.step == plan.steps:
        done, then = "complete", "; train on with --resume --minutes 30"
    elif plan.config.training.schedule == "constant":
        then = ""
    notice(f"{done} at step {checkpoint.step:,} of {plan.steps:,}{then}")
    return trainer


def _read_corpus(config: Config, group: Group, progress: Progress | None) -> Corpus[Any]:
    """Read the corpus, which one process of each machine decodes; it has to be the same for all."""
    corpus = group.first_on_each_machine(lambda: task_type(config).read_corpus(config, progress))
    group.check_same("recordings", repr(corpus.manifest()))
    return corpus


def _for_events(
    config: Config, for_long_events: Config | None, corpus: Corpus[Any], notice: Callable[[str], None]
) -> Config:
    """Return the configuration that fits the lengths of the recordings' notes and decays."""
    if for_long_events is None or config.rate_hz is None or (seconds := event_seconds(config, corpus)) is None:
        return config
    hears, would_hear = (build_model(each).receptive_field / config.rate_hz for each in (config, for_long_events))
    if seconds < LONG_EVENTS * hears or would_hear <= hears:
        return config
    fields = f"{LONG_EVENTS_PRESET} hears {1000 * would_hear:.0f} ms, {DEFAULT_PRESET} {1000 * hears:.0f} ms"
    notice(f"config: {LONG_EVENTS_PRESET} (about {seconds:.0f} s from one onset to the next: {fields})")
    return for_long_events.with_values("data", folder=config.data.folder)


def _build_trainer(plan: Plan, weights: Arrays, corpus: Corpus[Any], run: RunFolder, group: Group) -> Trainer:
    # until here a rank may wait for another one that decodes; from here on all proceed together
    group.mark_started()
    group.set_timeout(plan.config.training.timeout_seconds)
    model = build_model(plan.config)
    load_weights(model, weights)
    return Trainer(plan, corpus, model.to(group.device), run, group)


def _little_data(plan: Plan, corpus: Corpus[Any]) -> list[str]:
    """Return warnings of too little audio to train on or to validate on, and how much would be enough."""
    rate, training, warnings = plan.config.rate_hz, plan.config.training, list[str]()
    if rate is None:
        return []
    seconds, held_out = (sum(clip.n_samples for clip in part) / rate for part in (corpus.train, corpus.validation))
    passes = plan.steps * plan.compute.batch_size * training.window_targets / rate / seconds
    if seconds < FEWEST_TRAINING_SECONDS:
        again = f", which the model will repeat after {passes:,.0f} passes" if passes >= MANY_PASSES else ""
        few = f"only {format_duration(seconds)} of sound to train on{again}"
        warnings.append(f"{few}; {FEWEST_TRAINING_SECONDS / 60:.0f} minutes are enough for a try")
    n_clips = len(corpus.validation)
    if n_clips and (held_out < FEWEST_SECONDS or n_clips < FEWEST_CLIPS):
        few = f"only {pluralize(n_clips, 'clip')} held out, {format_duration(held_out)}: bits/sample on so little say"
        enough = f"{FEWEST_CLIPS} clips and {FEWEST_SECONDS:.0f} s are enough: record more"
        share, n_all = plan.config.data.validation, n_clips + len(corpus.train)
        needed = max(FEWEST_SECONDS / (seconds + held_out), FEWEST_CLIPS / n_all if n_clips < FEWEST_CLIPS else 0)
        if not isinstance(share, str) and share < (needed := math.ceil(10 * needed) / 10) <= MOST_HELD_OUT:
            enough += f", or --set data.validation={needed:g}"
        warnings.append(f"{few} nothing; {enough}")
    return warnings


def _first_weights(config: Config, source: Checkpoint | None) -> Arrays:
    """Draw a network's first weights from the seed, and replace what another network has."""
    # rank 0 draws and broadcasts: other versions of torch could draw other weights from the same seed
    torch.manual_seed(config.training.seed)
    own = {name: parameter.detach().numpy() for name, parameter in build_model(config).named_parameters()}
    return own if source is None else weights_from(source, own, config)


# --- resuming ---------------------------------------------------------------------------------------------------


def _requested_changes(
    run: RunFolder, checkpoint: Checkpoint, requested: Callable[[Config], Config]
) -> tuple[Config, list[str]]:
    """Return the configuration to resume with, and what in it differs from the stored one."""
    stored = override(checkpoint.config, [])  # an older run may have a path relative to the working directory
    config = requested(stored).as_frozen(stored)
    warmup, wanted = stored.training.warmup_steps, config.training.warmup_steps
    shortened = shortened_warmup(wanted, stored.training.steps or 0)
    if shortened == warmup or (wanted > warmup and checkpoint.step >= warmup):
        # the start shortened the same request, or the warm-up is over
        config = config.with_values("training", warmup_steps=warmup)
    _check_steps(run, config.training.steps, checkpoint)
    changes = [line for line in differences(stored, config) if line.partition(":")[0] not in HARMLESS]
    if impossible := [line for line in changes if line.startswith(OF_THE_NETWORK)]:
        remedy = "start a new run, with --init-from to keep what was learnt"
        raise UsageError(f"{run.path}: these keys cannot change within a run: {'; '.join(impossible)}; {remedy}")
    return config, changes


def _check_steps(run: RunFolder, steps: int | None, checkpoint: Checkpoint) -> None:
    """Make sure that a training does not end before the step that it resumes at."""
    if steps is not None and steps < checkpoint.step:
        raise UsageError(f"{run.path}: is at step {checkpoint.step:,}; expected more steps than that, found {steps:,}")


def _resumed_plan(checkpoint: Checkpoint, config: Config, corpus: Corpus[Any], group: Group, notice: Notice) -> Plan:
    """Plan the rest of a training: what was decided stays, unless the processes or the device are others."""
    stored, device, changes = checkpoint.config.training, group.device, dict[str, Any]()
    if checkpoint.metrics.get("processes", 1) != group.size:
        # these decide the number of slices side by side, and with it the rounding of their sum
        deciding = ("threads", "accumulation") if runs_side_by_side(config, stored.backend, device) else ()
        keys = [key for key in deciding if getattr(config.training, key) == getattr(stored, key)]
        notice(f"on {group.size} processes now{': chosen again: ' if keys else ''}{' and '.join(keys)}")
        changes |= dict.fromkeys(keys, "auto")
    if config.training.backend == "fused" and device.type != "cpu":
        notice(f"training.backend: fused runs on a CPU; on {device.type} it is chosen again")
        changes |= {"backend": "auto", "accumulation": "auto"}
    if config.training.precision != "auto" and not has_precision(device, config.training.precision):
        notice(f"training.precision: {config.training.precision} is not for {device.type}: it is chosen again")
        changes |= {"precision": "auto"}
    most_steps, is_additional = config.training.steps, config.training.minutes is not None
    if is_additional:  # minutes are added to those already trained; --steps is always the total
        changes["steps"] = None
    plan = resolve_plan(config.with_values("training", **changes), corpus, device, notice, group)
    if not is_additional:
        return plan
    steps = checkpoint.step + plan.steps
    return plan.with_training(
        steps=min(steps, most_steps or steps),
        # the validation clips stay, so that losses before and after the resume compare
        validation_seconds=stored.validation_seconds,
        audition_seconds=stored.audition_seconds,
    )


# --- starting from another network ------------------------------------------------------------------------------
#
# Conditions may differ. A row of the labels' embedding belongs to a label by its name, and of the projection's columns
# some belong to labels and some to frames: what both networks have is taken over, piece by piece. A new piece of the
# projection is 0, so that the network starts as if the new conditions were not there.


def check_source(name: str, source: Checkpoint, config: Config, notice: Callable[[str], None]) -> None:
    """Check that a network can start from another one's averaged weights, and report the tensors that are not copied.

    Args:
        name: of the other one, for messages.
        source: the other one.
        config: of the new network, with its labels.
        notice: called with what was kept, what is new and what is not used.

    Raises:
        ModelError: it is of another kind, or a piece that both have is of another shape.
    """
    kind, other = config.model.kind, source.config.model.kind
    if kind != other:
        raise ModelError(f"{name}: expected a {kind} to start from, because of model.kind, found a {other}")
    own = _pieces({key: np.broadcast_to(0, shape) for key, shape in parameter_shapes(config).items()}, config)
    theirs = _pieces(_match_weight_norm(source, config), source.config)
    # a piece that only one of the two has is no misfit: it is new, or it is not used
    misfits = [
        f"'{piece}': expected the shape {own[piece].shape}, found {theirs[piece].shape}"
        for piece in own
        if piece in theirs and _each(piece, theirs[piece]) != _each(piece, own[piece])
    ]
    if misfits or not own.keys() & theirs.keys():
        what = list_first(misfits, 1, ", ") if misfits else "it has none of the tensors"
        remedy = "give the sections model, quantization, mel, features and output that it was trained with"
        raise ModelError(f"{name} does not fit this configuration: {what}; {remedy}")
    shared = [key for key in ("mel", "features") if getattr(source.config, key).width and getattr(config, key).width]
    meaning = (*SAME_SHAPES_OTHER_MEANING, *(f"{key}." for key in shared))
    if others := [line for line in differences(source.config, config) if line.startswith(meaning)]:
        # means and scales of features are long lists
        brief = [line if len(line) <= LONGEST_CHANGE else f"{line[: LONGEST_CHANGE - 3]}..." for line in others]
        notice(f"{name} was trained otherwise: {'; '.join(brief)}")
    _report_copied(name, own, theirs, notice)
    before, now = build_conditioner(source.config).labels, build_conditioner(config).labels
    if before and now and before != now:
        parts = {
            "kept": [label for label in now if label in before],
            "new": [label for label in now if label not in before],
            "left behind": [label for label in before if label not in now],
        }
        notice("labels: " + "; ".join(f"{list_labels(labels)} {what}" for what, labels in parts.items() if labels))


def weights_from(source: Checkpoint, own: Arrays, config: Config) -> Arrays:
    """Return a network's own first weights, with another one's averaged weights in place of the pieces that both have.

    Args:
        source: the other one, checked by ``check_source``.
        own: of the new network.
        config: of the new network.
    """
    pieces, theirs = _pieces(own, config), _pieces(_match_weight_norm(source, config), source.config)
    taken = {piece: theirs.get(piece, array) for piece, array in pieces.items()}
    if LABELS in pieces and LABELS in theirs:
        # (labels, C): a row belongs to a label by its name, wherever it stands in either table
        known = dict(zip(build_conditioner(source.config).labels, theirs[LABELS], strict=True))
        labels = zip(build_conditioner(config).labels, pieces[LABELS], strict=True)
        taken[LABELS] = np.stack([known.get(label, row) for label, row in labels])
    if PROJECTION in own:  # (L 2G, label channels + columns of a frame) again, the columns in the new network's order
        taken[PROJECTION] = np.concatenate([taken.pop(_columns(kind)) for kind in condition_columns(config)], axis=1)
    return taken


def _match_weight_norm(source: Checkpoint, config: Config) -> Arrays:
    """Return a network's averaged weights, as directions and gains where the new network has these."""
    # w = g v / |v| first, then v = w and g = |w|: the same function, in whichever of the two forms is wanted
    plain = fold_weight_norm(source.average)
    return with_gains(plain, parameter_shapes(config)) if config.model.weight_norm else plain


def _report_copied(name: str, own: Arrays, theirs: Arrays, notice: Callable[[str], None]) -> None:
    fresh, unused = sorted(own.keys() - theirs.keys()), sorted(theirs.keys() - own.keys())
    lists = {"fresh": fresh, "not used": unused}
    notice(
        f"initialized {len(own) - len(fresh)} of {len(own)} tensors from {name}"
        + "".join(f"; {what}: {', '.join(pieces)}" for what, pieces in lists.items() if pieces)
    )


def _pieces(weights: Arrays, config: Config) -> Arrays:
    """Return weights by name, the projection cut into the columns of each kind of condition."""
    pieces = dict(weights)
    if PROJECTION in pieces:
        projection, first = pieces.pop(PROJECTION), 0
        for kind, width in condition_columns(config).items():
            pieces[_columns(kind)] = projection[:, first : first + width]
            first += width
    return pieces


def _columns(kind: str) -> str:
    return f"{PROJECTION} ({kind} columns)"


def _each(piece: str, array: npt.NDArray[Any]) -> tuple[int, ...]:
    """Return a piece's shape, or that of one label's row."""
    return array.shape[1:] if piece == LABELS else array.shape
