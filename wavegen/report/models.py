"""Tables of configurations, checkpoints and runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import Quantizer
from wavegen.data.conditioning import list_labels
from wavegen.evaluation.scores import LossUnit, describe_gain
from wavegen.inspect.models import (
    CheckpointFacts,
    ConfigFacts,
    DataFacts,
    NetworkFacts,
    SplitFacts,
    TrainingFacts,
    TrainingState,
)
from wavegen.inspect.runs import ComparisonFacts, RunFacts, RunListFacts
from wavegen.report import ROWS, Table, as_yaml, facts
from wavegen.runs.run_folder import Validation
from wavegen.text import format_bytes, format_duration, pluralize, printable


def config_tables(found: ConfigFacts) -> list[Table]:
    """Return the tables of a configuration: every key, the network, and a training step."""
    settings = [
        (f"{section}.{key}", as_yaml(value))
        for section, pairs in found.config.model_dump().items()
        for key, value in pairs.items()
    ]
    tables = [Table(printable(found.path), (), settings), network_table(found.network), _step_table(found.training)]
    changes = [tuple(line.split(": ", 1)) for line in found.differences or ("no key: the values are the same",)]
    return tables if found.preset is None else [Table(f"Differs from the preset {found.preset}", (), changes), *tables]


def checkpoint_tables(found: CheckpointFacts) -> list[Table]:
    """Return the tables of a checkpoint."""
    summary = facts(
        printable(found.path),
        holds="averaged weights alone, for inference" if found.for_use_only else None,
        **_state(found, found.data),
        skipped_steps=found.skipped_steps or None,
        recordings=None if found.recordings is None else _recordings(found.recordings),
        written_by=", ".join(f"{name} {version}" for name, version in found.versions.items()),
        file_size=format_bytes(found.file_bytes),
    )
    data = [] if found.data is None else [data_table(found.data)]
    return [summary, network_table(found.network), *data, *_ranking_tables(found)]


def run_tables(found: RunFacts) -> list[Table]:
    """Return the tables of a run."""
    loss_unit, saved, state = found.loss_unit, found.newest_checkpoint_step, _state(found, found.data)
    speed = train = checkpoint = auditions = None
    if found.targets_per_second is not None:
        steps = pluralize(found.timed_steps, "step")
        speed = f"{found.targets_per_second:,.0f} targets/s, median of the last {steps}"
    if found.recent_train_loss is not None:
        steps = pluralize(found.recent_steps, "step")
        train = f"{loss_unit.format(found.recent_train_loss)} {loss_unit.full_name}, mean of the last {steps}"
    if saved != found.step:
        checkpoint = "none yet" if saved is None else f"step {saved:,}; --resume continues from there"
    if loss_unit.is_bits:
        n = len(found.auditions)
        auditions = f"{n}, the last is {found.auditions[-1]}" if n else "none yet"
    summary = facts(
        printable(found.path),
        **{name: state.pop(name) for name in ("step", "trained_on", "time")},
        speed=speed,
        train=train,
        **state,
        skipped_steps=found.skipped_steps or None,
        checkpoint=checkpoint,
        damaged="\n".join(map(printable, found.damaged_checkpoints)) or None,
        auditions=auditions,
    )
    files = [
        (Path(each.file).name, "-" if each.step is None else f"{each.step:,}", format_bytes(each.bytes))
        for each in found.checkpoints
    ]
    checkpoints = Table("Checkpoints", ("file", "step", "size"), files)
    data = [] if found.data is None else [data_table(found.data)]
    return [summary, network_table(found.network), *data, _curve_table(found), *_ranking_tables(found), checkpoints]


def run_list_tables(found: RunListFacts) -> list[Table]:
    """Return the table of the runs in a folder."""
    rows = []
    for run in found.runs:
        unit, last = run.loss_unit, run.last_validation
        baselines = {} if last is None else {name: loss for name, loss in last.baselines.items() if loss is not None}
        best = "-" if run.best_loss is None else f"{unit.format(run.best_loss)} {unit.name}"
        baseline = unit.format(min(baselines.values(), default=None))
        time = format_duration(60 * run.minutes_trained)
        rows.append((printable(run.name), step_text(run.step, run.total_steps), best, baseline, time))
    columns = ("run", "step", "best held-out", "best baseline", "time")
    unreadable = Table("Cannot be read", (), list(found.unreadable.items()))
    return [Table(printable(found.path), columns, rows), unreadable]


def comparison_tables(found: ComparisonFacts) -> list[Table]:
    """Return the tables of several runs: their figures, and where their configurations differ."""
    loss_unit, runs = found.runs[0].loss_unit, found.runs
    unit = loss_unit.name
    best = min((run.best_loss for run in runs if run.best_loss is not None), default=None)

    def best_loss(run: RunFacts) -> str:
        is_best = found.losses_comparable and run.best_loss is not None and run.best_loss == best
        return loss_unit.format(run.best_loss) + (" best" if is_best else "")

    def count(key: str) -> Callable[[RunFacts], str]:
        return lambda run: "-" if getattr(run, key) is None else f"{getattr(run, key):,.0f}"

    in_classes = ("in classes", lambda run: resolution(run.network).partition(" classes")[0])
    rows: list[tuple[str, Callable[[RunFacts], str]]] = [
        (f"best held-out {unit}", best_loss),
        *([in_classes] if loss_unit.is_bits else []),
        ("at step", count("best_step")),
        ("best baseline", lambda run: loss_unit.format(min(run.baselines.values(), default=None))),
        ("steps", count("step")),
        ("of", count("total_steps")),
        ("trained on", lambda run: seen_text(loss_unit, run.seen).removesuffix(" of audio")),
        ("time", lambda run: format_duration(60 * run.minutes_trained)),
        ("targets/s", count("targets_per_second")),
        ("parameters", lambda run: f"{run.network.parameters:,}"),
        ("receptive field", lambda run: _receptive_field(run.network)),
        ("multiply-adds a sample", lambda run: f"{run.network.multiply_adds_per_sample:,}"),
    ]
    reasons = "; ".join(found.not_comparable_because)
    figures = Table(
        pluralize(len(runs), "run"),
        ("", *found.names),
        [(name, *(show(run) for run in runs)) for name, show in rows],
        f"{unit} do not compare: {reasons}" if reasons else "",
    )
    if not found.differences:
        return [figures, Table("Configuration", (), [("", "the same in all")])]
    differences = [(key, *map(as_yaml, values)) for key, values in found.differences.items()]
    return [figures, Table("Configuration, where it differs", ("key", *found.names), differences)]


def network_table(network: NetworkFacts) -> Table:
    """Return the table of a network."""
    runs = [(name, len(list(same))) for name, same in groupby(layer.name for layer in network.layers)]
    labels = network.labels
    if labels is not None:
        labels = "the sub-folders of the recordings" if isinstance(labels, str) else _listed(labels)
    temperature = "" if network.temperature is None else f", at temperature {network.temperature:g}"
    return facts(
        "Network",
        kind=network.description,
        parameters=f"{network.parameters:,}",
        receptive_field=_receptive_field(network),
        layers=", ".join(f"{count} x {name}" for name, count in runs) or "none",
        sound=None if network.classes is None else f"{network.sample_rate_hz:,} Hz, {resolution(network)}",
        output=network.output,
        labels=labels,
        mel_spectrograms=_frames(network, network.mel, "n_mels", "hop_length", "band"),
        features=_frames(network, network.features, "columns", "hop", "column"),
        generation=f"{network.multiply_adds_per_sample:,} multiply-adds a sample{temperature}",
    )


def data_table(data: DataFacts) -> Table:
    """Return the table of a model's training data."""

    def length(split: SplitFacts) -> str:
        if split.minutes is None:
            return f"{split.clips:,} series, {pluralize(split.points or 0, 'point')}"
        return f"{pluralize(split.clips, 'clip')}, {format_duration(60 * split.minutes)}"

    return facts(
        "Data",
        folder=None if data.folder is None else printable(data.folder),
        training=length(data.train),
        held_out=length(data.validation),
        labels=_listed(data.labels) if data.labels else None,
    )


def _listed(labels: Sequence[str]) -> str:
    return f"{len(labels)}: {list_labels(labels)}"


def _ranking_tables(state: TrainingState) -> list[Table]:
    """Return the model among the trivial baselines, once it was validated."""
    validation, loss_unit = state.last_validation, state.loss_unit
    if validation is None:
        return []
    rows = [(name, loss_unit.format(loss)) for name, loss in validation.ranking()]
    return [Table(ranking_title(validation, loss_unit), ("model", loss_unit.full_name), rows)]


def ranking_title(validation: Validation, loss_unit: LossUnit) -> str:
    """Return the title of a model's ranking among the trivial baselines."""
    return f"Step {validation.step:,}, {loss_unit.full_name}{held_out_text(validation)}"


def _curve_table(found: RunFacts) -> Table:
    loss_unit, n_all = found.loss_unit, len(found.validations)
    rows = []
    for each in _choose_validations(found.validations, found.best_step):
        losses = loss_unit.format(each.train_loss), loss_unit.format(each.loss)
        seen = seen_text(loss_unit, each.seen or 0.0).removesuffix(" of audio")
        rows.append((f"{each.step:,}", *losses, seen, "best" if each.step == found.best_step else ""))
    some = "Validations" if len(rows) == n_all else f"{len(rows)} of {n_all} validations"
    return Table(f"{some} ({loss_unit.full_name})", ("step", "train", "held-out", "trained on", ""), rows)


def _choose_validations(validations: Sequence[Validation], best_step: int | None) -> list[Validation]:
    """Choose as many validations as a table has rows, evenly spread, with the first, the last and the best."""
    last = len(validations) - 1
    if last < ROWS:
        return list(validations)
    chosen = {round(i * last / (ROWS - 2)) for i in range(ROWS - 1)}
    chosen |= {i for i, each in enumerate(validations) if each.step == best_step}
    return [validations[i] for i in sorted(chosen)]


def _step_table(training: TrainingFacts) -> Table:
    seconds, hours = training.audio_seconds_per_step, training.audio_hours_in_all
    whole = f"{training.minutes:g} min; the steps are measured at the start" if training.steps is None else ""
    of_audio = "" if hours is None else f", {format_duration(3600 * hours)} of audio"
    return facts(
        "Training",
        windows_in_a_step=f"{training.windows} x {training.window_targets:,} targets, context on top",
        one_step=f"{training.targets_per_step:,} targets" + ("" if seconds is None else f", {seconds:.2f} s of audio"),
        whole_training=whole or f"{pluralize(training.steps or 0, 'step')}{of_audio}",
        memory=f"about {format_bytes(training.memory_bytes)} ({training.memory_precision}), above the libraries' own",
    )


def _state(state: TrainingState, data: DataFacts | None) -> dict[str, str]:
    """Return a training's progress and its last and best held-out loss, by name."""
    loss_unit, last = state.loss_unit, state.last_validation
    hours = 0.0 if data is None else (data.train.minutes or 0.0) / 60
    passes = f" ({state.seen / hours:.1f} passes)" if hours else ", repeats included" if loss_unit.is_bits else ""
    words = {
        "step": step_text(state.step, state.total_steps),
        "trained_on": f"{seen_text(loss_unit, state.seen)} in all{passes}",
        "time": format_duration(60 * state.minutes_trained),
        "held-out": "no validation yet",
    }
    if last is not None:
        unit = f"{loss_unit.full_name}{held_out_text(last)}"
        words["held-out"] = f"{loss_unit.format(last.loss)} {unit} at step {last.step:,}"
        if last.frames_gain is not None:
            words["frames"] = describe_gain(last.frames_gain)
        if state.best_step == last.step:
            words["held-out"] += ", the best"
        elif state.best_loss is not None:
            words["best"] = f"{loss_unit.format(state.best_loss)} {loss_unit.full_name} at step {state.best_step:,}"
    return words


def step_text(step: int, total: int | None) -> str:
    """Return a training's progress as text: 1,000 of 2,000 (50%)."""
    return f"{step:,}" if total is None else f"{step:,} of {total:,} ({step / total:.0%})"


def seen_text(loss_unit: LossUnit, seen: float) -> str:
    """Return the data trained on, given as ``TrainingState.seen``, as text: 7:30 min of audio, 1,000 points."""
    return f"{format_duration(3600 * seen)} of audio" if loss_unit.is_bits else f"{seen:,.0f} points"


def held_out_text(validation: Validation) -> str:
    """Return the amount of data that a validation scored, as text after a loss."""
    if validation.held_out_points is not None:
        return f" on {validation.held_out_points:,} points of held-out series"
    seconds, everything = validation.held_out_seconds, validation.all_held_out_seconds
    if seconds is None:
        return ""
    if everything is None or everything - seconds < 0.05:
        return f" on {format_duration(seconds)} of held-out audio"
    return f" on {format_duration(seconds)} of the {format_duration(everything)} held out"


def resolution(network: NetworkFacts) -> str:
    """Describe the resolution of samples; bits/sample compare only where it is the same."""
    assert network.quantization is not None
    assert network.classes is not None
    return str(Quantizer(network.quantization, network.classes))


def _recordings(profile: RecordingProfile) -> str:
    shortest, middle, longest = map(format_duration, profile.clip_seconds)
    return (
        f"{profile.whole.loud_db:.0f} dB where loud, {100 * profile.whole.silent_share:.0f}% silent, spectral centroid "
        f"{profile.whole.centroid_hz:,.0f} Hz, clips of {shortest} to {longest}, median {middle}"
    )


def _receptive_field(network: NetworkFacts) -> str:
    reach = pluralize(network.receptive_field_samples, "point")
    if network.receptive_field_ms is not None:
        reach = f"{pluralize(network.receptive_field_samples, 'sample')} ({network.receptive_field_ms:.1f} ms)"
    return f"all of the past; {reach} before a window's first target" if network.has_memory else reach


def _frames(network: NetworkFacts, section: Mapping[str, Any] | None, width: str, hop: str, noun: str) -> str | None:
    """Describe the frames of a section of the configuration, whose columns and hop have these keys."""
    if section is None or network.sample_rate_hz is None:
        return None
    if "auto" in (section[width], section[hop]):
        return "those of the files beside the recordings"
    length = f"{network.sample_rate_hz / section[hop]:.4g} frames a second of {section[hop]} samples"
    rows = "each repeated" if section["upsampling"] == 1 else f"{section['upsampling']} learned steps in each"
    return f"{pluralize(section[width], noun)}, {length}, {rows}"
