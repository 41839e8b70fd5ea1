"""The plan of a training, printed before it starts: data, model, device, memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from wavegen.audio.levels import Frames, typical_event_seconds
from wavegen.audio.quantize import build_quantizer
from wavegen.audio.waveform import INAUDIBLE, build_preparation
from wavegen.config import Config
from wavegen.data.corpus import Corpus, by_content
from wavegen.data.recordings import first_samples
from wavegen.device import describe_device
from wavegen.inspect.config import NetworkFacts, inspect_network
from wavegen.report.models import network_table
from wavegen.report.tables import ROWS, Table, facts
from wavegen.text import format_duration, printable
from wavegen.training.compute import training_bytes
from wavegen.training.plan import Plan

ENOUGH = (  # seconds of audio to train on: rules of thumb
    (3600, "plenty"),
    (600, "enough for a first try"),
    (120, "little: ten minutes and more sound better"),
    (0, "very little: expect it to repeat these clips"),
)


EVENTS_SECONDS = 300.0  # of the training clips are looked at
LONG_EVENTS = 100  # receptive fields: piano notes of 15 s have 230 in `small`, drum loops 56, speech 17
MUSIC_SECONDS = 0.5  # the receptive field of the preset `music`


def plan_tables(plan: Plan, corpus: Corpus[Any], device: torch.device, run: Path, processes: int = 1) -> list[Table]:
    """Return the tables of a training's plan."""
    config, network = plan.config, inspect_network(plan.config)
    return [
        data_table(corpus, config.rate_hz),
        *([] if config.rate_hz is None else [_preparation_table(config, corpus, network)]),
        *_trouble_tables(corpus),
        network_table(network),
        _training_table(plan, corpus, device, run, processes),
    ]


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
    if corpus.unusable:
        rows.append(("skipped", f"{len(corpus.unusable):,}", ""))
    columns = ("", "series", "points") if rate is None else ("", "clips", "length")
    return Table(f"Data: {printable(corpus.folder)}", columns, rows)


def _preparation_table(config: Config, corpus: Corpus[Any], network: NetworkFacts) -> Table:
    """List the steps that turned recordings into clips, and the order of clips in training."""
    prepared = build_preparation(config)
    stored = {clip.content_hash: clip.stored for clip in corpus.clips}.values()
    cut = sum(getattr(each, "trimmed_seconds", 0.0) for each in stored)
    peaks = sorted(20 * math.log10(each.peak) for each in stored if each.peak > INAUDIBLE)
    spread = f"; their peaks were {peaks[-1] - peaks[0]:.0f} dB apart" if prepared.level != "keep" and peaks else ""
    pauses = f", pauses shortened to {prepared.pause_seconds:g} s" if prepared.pause_seconds else ""
    return facts(
        "Preparation",
        silence=f"{format_duration(cut)} cut: ends{pauses}, {prepared.trim_db:g} dB below each clip's loudest part"
        if prepared.trim_db is not None
        else "kept",
        level=f"{prepared.level} of each clip{spread}" if prepared.level != "keep" else "kept",
        order=f"{100 * config.data.following:.0f}% of clips follow another one, the rest begin after silence"
        if config.data.following and config.mel.n_mels is None
        else "every clip begins after silence",
        events=_long_events(config, corpus, network),
    )


def _long_events(config: Config, corpus: Corpus[Any], network: NetworkFacts) -> str | None:
    """Return a warning if notes and decays are far longer than the receptive field."""
    rate = config.audio.sample_rate_hz
    quantizer = build_quantizer(config)
    clips = [quantizer.decode(clip) for clip in first_samples(by_content(corpus.train), round(EVENTS_SECONDS * rate))]
    length = typical_event_seconds([Frames.of(clip, rate).level_db for clip in clips])
    reach = network.receptive_field_samples / rate
    if length is None or network.has_memory or config.mel.n_mels or length < LONG_EVENTS * reach:
        return None
    further = "" if reach >= MUSIC_SECONDS else "; --config music sees 512 ms"
    return (
        f"about {length:.0f} s from one onset to the next, {length / reach:.0f} times the receptive field: expect notes"
        f" that lose their way, and rumble between them{further}. Train for hours"
    )


def _trouble_tables(corpus: Corpus[Any]) -> list[Table]:
    tables = []
    for title, entries in (("Skipped", corpus.unusable), ("Shortened", corpus.shortened)):
        if entries:
            rows = [(printable(name), why) for name, why in entries[:ROWS]]
            if len(entries) > ROWS:
                rows.append((f"and {len(entries) - ROWS:,} more", "wavegen inspect DIR --listen lists them"))
            tables.append(Table(title, ("file", "why"), rows))
    if corpus.notes:
        tables.append(Table("Note", (), [("", note) for note in corpus.notes]))
    return tables


def _training_table(plan: Plan, corpus: Corpus[Any], device: torch.device, run: Path, processes: int) -> Table:
    config, compute = plan.config, plan.compute
    targets = compute.batch_size * config.training.window_targets
    memory = training_bytes(config, compute)
    return facts(
        "Training",
        run=printable(run),
        device=(f"{processes} processes, each on " if processes > 1 else "") + describe_device(device, compute.threads),
        precision=compute.precision,
        backend=_backend(plan),
        steps=f"{plan.steps:,} of {compute.batch_size} x {config.training.window_targets:,} targets"
        + ("" if config.rate_hz is None else f" ({targets / config.rate_hz:.1f} s of audio each)"),
        values=f"less {config.series.offset:.6g}, by {config.series.scale:.6g}" if config.rate_hz is None else None,
        audio=None if config.rate_hz is None else _passes(plan, corpus, targets),
        memory=f"about {memory / 2**30:.1f} GiB",
    )


def _passes(plan: Plan, corpus: Corpus[Any], targets: int) -> str:
    """Describe the amount of training audio, and the number of passes over it."""
    n_samples = sum(clip.n_samples for clip in corpus.train)
    seconds = n_samples / plan.config.audio.sample_rate_hz
    times = plan.steps * targets / max(1, n_samples)
    enough = next(words for least, words in ENOUGH if seconds >= least)
    return f"{format_duration(seconds)}, {enough}; {times:.1f} passes over it"


def _backend(plan: Plan) -> str:
    slices, recompute = plan.compute.accumulation, plan.config.training.activation_checkpointing
    extra = f", {slices} slices of the batch" if slices > 1 else ""
    return f"{plan.compute.backend}{extra}{', activation checkpointing' if recompute else ''}"
