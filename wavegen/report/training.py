"""The output of a training: its plan before it starts, pictures of auditions and TensorBoard events while it runs."""

from __future__ import annotations

import gc
import math
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from wavegen.audio.mono import INAUDIBLE
from wavegen.audio.waveform import build_preparation
from wavegen.config import Config
from wavegen.data.corpus import TAIL, Corpus
from wavegen.data.recordings import LONG_EVENTS, event_seconds
from wavegen.device import describe_device
from wavegen.inspect.models import NetworkFacts, inspect_network
from wavegen.output_file import write_output
from wavegen.report import Table, facts, first_rows
from wavegen.report.models import network_table
from wavegen.text import format_duration, group_by_reason, guide, pluralize, printable
from wavegen.training.compute import training_bytes
from wavegen.training.plan import Plan
from wavegen.training.progress import Observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MUSIC_SECONDS = 3455 / 16000  # the receptive field of the preset `music`
STEP_SCALARS = ("train_loss", "learning_rate", "gradient_norm", "targets_per_second")
EVERY_STEPS = 10


def plan_tables(plan: Plan, corpus: Corpus[Any], device: torch.device, run: Path, processes: int = 1) -> list[Table]:
    """Return the tables of a training's plan."""
    config, network = plan.config, inspect_network(plan.config)
    tables = [data_table(corpus, config.rate_hz)]
    if config.rate_hz is not None:
        tables += [_preparation_table(config, corpus, network), _label_table(corpus, config.rate_hz)]
    training = _training_table(plan, corpus, device, run, processes)
    return [*tables, *trouble_tables(corpus), network_table(network, config), training]


def data_table(corpus: Corpus[Any], rate: int | None) -> Table:
    """Count the clips and minutes, or the series and points, of each split.

    Args:
        corpus: of the training.
        rate: of its clips in Hz; None for series.
    """

    def row(name: str, clips: tuple[Any, ...]) -> tuple[str, str, str]:
        n_samples = sum(clip.n_samples for clip in clips)
        return name, f"{len(clips):,}", f"{n_samples:,}" if rate is None else format_duration(n_samples / rate)

    rows = [row("train", corpus.train), row("validation", corpus.validation)]
    if rate is not None:  # what was found is what is used and what was cut
        files = {clip.name.removesuffix(TAIL): clip.stored for clip in corpus.clips}.values()
        found, cut = (sum(getattr(each, name) for each in files) for name in ("source_seconds", "trimmed_seconds"))
        rows = [("found", f"{len(files):,}", format_duration(found)), *rows, ("silence cut", "", format_duration(cut))]
    if corpus.unusable:
        rows.append(("skipped", f"{len(corpus.unusable):,}", ""))
    columns = ("", "series", "points") if rate is None else ("", "clips", "length")
    return Table(f"Data: {printable(corpus.folder)}", columns, rows)


def _label_table(corpus: Corpus[Any], rate: int) -> Table:
    """Count the training clips and minutes of each label; the table is empty without labels."""
    samples: dict[str, list[int]] = {}
    for clip in corpus.train:
        if clip.label is not None:
            samples.setdefault(printable(clip.label), []).append(clip.n_samples)
    rows = [(name, f"{len(each):,}", format_duration(sum(each) / rate)) for name, each in sorted(samples.items())]
    return first_rows("Labels, training clips", ("", "clips", "length"), rows)


def _preparation_table(config: Config, corpus: Corpus[Any], network: NetworkFacts) -> Table:
    """List the steps that turned recordings into clips, and the order of clips in training."""
    prepared = build_preparation(config)
    stored = {clip.content_hash: clip.stored for clip in corpus.clips}.values()
    silence, level, order = "kept", "kept", "every clip begins after silence"
    if prepared.trim_db is not None:
        cut = format_duration(sum(getattr(each, "trimmed_seconds", 0.0) for each in stored))
        pauses = f", pauses shortened to {prepared.pause_seconds:g} s" if prepared.pause_seconds else ""
        silence = f"{cut} cut: ends{pauses}, {prepared.trim_db:g} dB below each clip's loudest part"
    if prepared.level != "keep":
        peaks = sorted(20 * math.log10(each.peak) for each in stored if each.peak > INAUDIBLE)
        spread = f"; their peaks were {peaks[-1] - peaks[0]:.0f} dB apart" if peaks else ""
        level = f"{prepared.level} of each clip{spread}"
    if config.data.following and config.frames is None:
        order = f"{100 * config.data.following:.0f}% of clips follow another one, the rest begin after silence"
    if config.data.beginnings and config.frames is None:
        order += "; beginnings are seen more often"
    if config.quiet_weight < 1:
        order += "; quiet windows are seen less often"
    return facts("Preparation", silence=silence, level=level, order=order, events=_long_events(config, corpus, network))


def _long_events(config: Config, corpus: Corpus[Any], network: NetworkFacts) -> str | None:
    """Return a warning if notes and decays are far longer than the receptive field."""
    length, reach = event_seconds(config, corpus), network.receptive_field_samples / config.audio.sample_rate_hz
    if length is None or network.has_memory or length < LONG_EVENTS * reach:
        return None
    music = f"; --config music sees {1000 * MUSIC_SECONDS:.0f} ms, at the same speed" if reach < MUSIC_SECONDS else ""
    return (
        f"about {length:.0f} s from one onset to the next, {length / reach:.0f} times the receptive field: expect notes"
        f" that lose their way, and rumble between them{music}. Train for hours; see {guide('sound')}"
    )


def trouble_tables(corpus: Corpus[Any]) -> list[Table]:
    """Return tables of the files that are skipped or shortened, and of notes; none in good order."""
    troubles = {"Skipped": corpus.unusable, "Shortened": corpus.shortened}
    tables = [first_rows(title, ("file", "why"), group_by_reason(each)) for title, each in troubles.items()]
    return [*tables, Table("Note", (), [("", note) for note in corpus.notes])]


def _training_table(plan: Plan, corpus: Corpus[Any], device: torch.device, run: Path, processes: int) -> Table:
    config, compute = plan.config, plan.compute
    targets = compute.batch_size * config.training.window_targets
    memory = training_bytes(config, compute)
    slices = f", {compute.accumulation} slices of the batch" if compute.accumulation > 1 else ""
    recompute = ", activation checkpointing" if config.training.activation_checkpointing else ""
    audio = None
    if config.rate_hz is not None:
        n_samples = sum(clip.n_samples for clip in corpus.train)
        passes = plan.steps * targets / max(1, n_samples)
        audio = f"{format_duration(n_samples / config.rate_hz)}, {passes:.1f} passes over it"
    return facts(
        "Training",
        run=printable(run),
        device=(f"{processes} processes, each on " if processes > 1 else "") + describe_device(device, compute.threads),
        precision=compute.precision,
        backend=f"{compute.backend}{slices}{recompute}",
        steps=f"{plan.steps:,} of {compute.batch_size} x {config.training.window_targets:,} targets"
        + ("" if config.rate_hz is None else f" ({targets / config.rate_hz:.1f} s of audio each)"),
        values=f"less {config.series.offset:.6g}, by {config.series.scale:.6g}" if config.rate_hz is None else None,
        time=None if plan.seconds is None else f"about {format_duration(plan.seconds)}",
        audio=audio,
        memory=f"about {memory / 2**30:.1f} GiB",
    )


def run_observers(run: Path) -> list[Observer]:
    """Return an observer for plots of the auditions, and one for TensorBoard where it is installed."""
    observers: list[Observer] = [AuditionPictures()]
    if find_spec("tensorboard") is not None:
        observers.append(TensorBoardObserver(run / "tensorboard"))
    return observers


class AuditionPictures(Observer):
    """Draws each audition into a PNG file next to its WAV file."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Draw it."""
        from wavegen.report.plots import encode, sound_figure

        figure = sound_figure(waveform, sample_rate_hz, f"audition after {pluralize(step, 'step')}")
        write_output(path.with_suffix(".png"), encode(figure))
        gc.collect()  # a figure is a ring of 4 MB, and by itself the collector hardly comes in a training


class TensorBoardObserver(Observer):
    """Writes scalars and auditions.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Opened at the first write: the folder belongs to a run that may not exist yet."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder), flush_secs=30)

    def on_step(self, entry: dict[str, Any]) -> None:
        """Write the step's scalars, now and then."""
        if entry["step"] % EVERY_STEPS:
            return
        for name in STEP_SCALARS:
            if entry[name] is not None:
                self._writer.add_scalar(f"training/{name}", entry[name], entry["step"])

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Write the figures and the baselines."""
        self._writer.add_scalar("validation/loss", entry["validation_loss"], entry["step"])
        for name, figure in entry["baselines"].items():
            self._writer.add_scalar(f"baselines/{name.replace(' ', '_')}", figure, entry["step"])
        self._writer.flush()

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Write the clip, and its picture, which ``AuditionPictures`` drew before."""
        from matplotlib.image import imread

        self._writer.add_audio("audition", waveform[None], step, sample_rate_hz)
        self._writer.add_image("audition", imread(path.with_suffix(".png")), step, dataformats="HWC")
        self._writer.flush()
