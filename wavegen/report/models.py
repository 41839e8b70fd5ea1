"""Tables of configurations, checkpoints and runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import build_quantizer
from wavegen.config import Config
from wavegen.config.schema import TrainingConfig
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
from wavegen.text import evenly, format_bytes, format_duration, pluralize, printable


def config_tables(found: ConfigFacts) -> list[Table]:
    """Return the tables of a configuration: every key, the network, and a training step."""
    settings = [
        (f"{section}.{key}", as_yaml(value))
        for section, pairs in found.config.model_dump().items()
        for key, value in pairs.items()
    ]
    network, step = network_table(found.network, found.config), _step_table(found.training, found.config.training)
    tables = [Table(printable(found.path), (), settings), network, step]
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
    return [summary, network_table(found.network, found.config), *data, *_ranking_tables(found)]


def run_tables(found: RunFacts) -> list[Table]:
    """Return the tables of a run."""
    loss_unit, saved, state = found.loss_unit, found.newest_checkpoint_step, _state(found, found.data)
    speed = train = checkpoint = auditions = None
    if found.targets_per_second is not None:
        speed = f"{found.targets_per_second:,.0f} targets/s, median of the last steps"
    if found.recent_train_loss is not None:
        train = f"{loss_unit.format(found.recent_train_loss)} {loss_unit.full_name}, mean of the last steps"
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
    network = network_table(found.network, found.config)
    return [summary, network, *data, _curve_table(found), *_ranking_tables(found), checkpoints]


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

    in_classes = ("in classes", lambda run: str(build_quantizer(run.config)).partition(" classes")[0])
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


def network_table(network: NetworkFacts, config: Config) -> Table:
    """Return the table of a network and its configuration."""
    runs = [(name, len(list(same))) for name, same in groupby(layer.name for layer in network.layers)]
    labels, rate, temperature = None, config.rate_hz, ""
    if config.data.labels != "none":
        names = config.data.label_names
        labels = "the sub-folders of the recordings" if isinstance(names, str) else _listed(names)
    if rate is not None:
        temperature = f", at temperature {config.temperature:g}"
    return facts(
        "Network",
        kind=network.description,
        parameters=f"{network.parameters:,}",
        receptive_field=_receptive_field(network),
        layers=", ".join(f"{count} x {name}" for name, count in runs) or "none",
        sound=None if rate is None else f"{rate:,} Hz, {build_quantizer(config)}",
        output=network.output,
        labels=labels,
        mel_spectrograms=_frames(config, config.mel.n_mels, config.mel.hop_length, config.mel.upsampling, "band"),
        features=_frames(config, config.features.columns, config.features.hop, config.features.upsampling, "column"),
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
    title = f"Step {validation.step:,}, {loss_unit.full_name}{held_out_text(validation)}"
    return [Table(title, ("model", loss_unit.full_name), rows)]


def _curve_table(found: RunFacts) -> Table:
    """Return the table of the first, the last and the best validation, and of some between them, evenly spread."""
    steps = {each.step for each in evenly(found.validations, ROWS - 1)} | {found.best_step}
    rows = [validation_row(found, each) for each in found.validations if each.step in steps]
    n_all = len(found.validations)
    some = "Validations" if len(rows) == n_all else f"{len(rows)} of {n_all} validations"
    return Table(f"{some} ({found.loss_unit.full_name})", ("step", "train", "held-out", "trained on", ""), rows)


def validation_row(run: RunFacts, validation: Validation) -> tuple[str, ...]:
    """Return a validation of a run as a row: step, training and held-out loss, audio or points seen, whether best."""
    loss_unit, step = run.loss_unit, validation.step
    losses = loss_unit.format(validation.train_loss), loss_unit.format(validation.loss)
    seen = seen_text(loss_unit, validation.seen or 0.0).removesuffix(" of audio")
    return f"{step:,}", *losses, seen, "best" if step == run.best_step else ""


def _step_table(training: TrainingFacts, settings: TrainingConfig) -> Table:
    seconds, hours = training.audio_seconds_per_step, training.audio_hours_in_all
    whole = f"{settings.minutes:g} min; the steps are measured at the start" if settings.steps is None else ""
    of_audio = "" if hours is None else f", {format_duration(3600 * hours)} of audio"
    return facts(
        "Training",
        windows_in_a_step=f"{training.windows} x {settings.window_targets:,} targets, context on top",
        one_step=f"{training.targets_per_step:,} targets" + ("" if seconds is None else f", {seconds:.2f} s of audio"),
        whole_training=whole or f"{pluralize(settings.steps or 0, 'step')}{of_audio}",
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


def _frames(config: Config, width: int | str | None, hop: int | str, upsampling: int, noun: str) -> str | None:
    """Describe frames of so many columns; None for a model without."""
    if width is None:
        return None
    if isinstance(width, str) or isinstance(hop, str):
        return "those of the files beside the recordings"
    length = f"{config.audio.sample_rate_hz / hop:.4g} frames a second of {hop} samples"
    rows = "each repeated" if upsampling == 1 else f"{upsampling} learned steps in each"
    return f"{pluralize(width, noun)}, {length}, {rows}"
