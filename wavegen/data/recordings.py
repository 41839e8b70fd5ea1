"""Recordings as a corpus: decoded, split and labelled, with their features: ``name.npy`` beside ``name.wav``."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.decoder import shut_down_decoders
from wavegen.audio.frames import CHECKED_AT_ONCE, Features, map_array
from wavegen.audio.levels import Frames, typical_event_seconds
from wavegen.audio.mono import CUT_OFF, group_warnings
from wavegen.audio.quantize import Classes, build_quantizer
from wavegen.audio.read import READABLE, find_series
from wavegen.audio.waveform import build_preparation
from wavegen.config import Config
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.data.conditioning import list_labels
from wavegen.data.corpus import (
    TAIL,
    Clip,
    ClipFeatures,
    Corpus,
    Progress,
    by_content,
    columns_of,
    features_path,
    split_clips,
)
from wavegen.data.sources import File, find_sources, list_files, list_sources, nothing_usable
from wavegen.errors import DataError, UsageError
from wavegen.text import group_names, list_first, pluralize, printable

MOST_LABELS = 1000  # as the schema allows; they are listed in every configuration
EVENTS_SECONDS = 300.0  # of the training clips are looked at
LONGEST_EVENT_SECONDS = 60.0  # what goes on for longer, such as a song, is no note that decays
LONG_EVENTS = 100  # receptive fields of `small`: piano notes have 230, plucked strings 66, drum kits 41, speech 14


def read_recordings(config: Config, progress: Progress | None = None) -> Corpus[Clip]:
    """Find the recordings that a configuration names, decode what the cache lacks, split and label the clips.

    Args:
        config: with ``data.folder``, which is searched with all folders below it. ``data.validation`` is the share of
            clips to hold out, chosen by their content, so that adding or renaming files moves no other; or a folder
            whose clips are held out, among those given or not; or a text file that names the held-out files, one a
            line.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the configuration names no folder, or what it names does not exist.
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    data = config.data
    if not data.sources:
        raise UsageError("expected a folder of recordings: wavegen train DIR, or data.folder in the configuration")
    sources = find_sources(data.sources)
    files, unusable, n_ignored = list_files(sources, data.validation)
    settings = ClipSettings(build_preparation(config), build_quantizer(config))
    outcomes = ClipCache().prepare([file.path for file in files], settings, progress)
    shut_down_decoders()  # the training that follows may take days
    unusable |= {file.name: why for file, why in zip(files, outcomes, strict=True) if isinstance(why, str)}
    usable = [(file, clip) for file, clip in zip(files, outcomes, strict=True) if not isinstance(clip, str)]
    features, feature_notes = dict[str, ClipFeatures](), list[str]()
    if config.features.columns is not None:
        recordings = [(file.name, file.path, stored.n_samples) for file, stored in usable]
        features, without, feature_notes = read_features(recordings, config)
        unusable |= without
        usable = [(file, stored) for file, stored in usable if file.name in features]
    whole = [
        Clip(
            name=file.name,
            n_samples=stored.n_samples,
            label=file.label if data.labels == "subfolders" else None,
            split=file.split,
            content_hash=stored.content_hash,
            stored=stored,
            features=features.get(file.name),
        )
        for file, stored in usable
    ]
    if not whole:
        raise DataError(_nothing_usable(data.sources, unusable, n_ignored))
    clips, notes = split_clips(whole, data.validation, sources.root)
    warnings = [(file.name, stored.warnings.splitlines()) for file, stored in usable]
    return Corpus(
        folder=sources.root,
        clips=tuple(clips),
        unusable=tuple(sorted(unusable.items())),
        shortened=tuple((name, what) for name, found in warnings for what in found if what.startswith(CUT_OFF)),
        notes=(
            *feature_notes,
            *notes,
            *_folder_notes([file for file, _ in usable], data.labels == "subfolders"),
            *_split_warnings(clips),
            *group_warnings((name, [w for w in found if not w.startswith(CUT_OFF)]) for name, found in warnings),
        ),
    )


def with_conditions(config: Config, corpus: Corpus[Clip]) -> Config:
    """Return the configuration with what its corpus decides of the model's conditions.

    The labels in their order, those of the corpus or those given, and the columns, hop and scale of features.

    Raises:
        DataError: the corpus has a label that is not among those given, or too many.
    """
    if config.features.columns is not None:
        config = with_features(config, [clip.features for clip in corpus.train if clip.features is not None])
    if config.data.labels == "none":
        return config
    if config.data.label_names == "auto":
        if len(corpus.labels) > MOST_LABELS:
            raise DataError(
                f"{corpus.folder}: expected at most {MOST_LABELS:,} sub-folders as labels, found {len(corpus.labels):,}"
            )
        return config.with_values("data", label_names=list(corpus.labels))
    if strange := [name for name in corpus.labels if name not in config.data.label_names]:
        raise DataError(
            f"{corpus.folder}: expected the labels {list_labels(config.data.label_names)}, found "
            f"{list_labels(strange)} besides; start a new run, with --init-from to keep what was learnt"
        )
    return config


def first_samples(clips: Sequence[Clip], limit: int | None) -> list[Classes]:
    """Return the classes of the first ``limit`` samples, the last clip cut short; None stands for no limit."""
    taken: list[Classes] = []
    left = sys.maxsize if limit is None else limit
    for clip in clips:
        if left <= 0:
            break
        taken.append(clip.classes()[:left])
        left -= len(taken[-1])
    return taken


def event_seconds(config: Config, corpus: Corpus[Clip]) -> float | None:
    """Return the typical time from one onset to the next in the training clips, of which five minutes are looked at.

    None for clips that come with frames, which say what sounds when, and where sound goes on without notes and decays.
    """
    if config.frames is not None:
        return None
    rate, quantizer = config.audio.sample_rate_hz, build_quantizer(config)
    clips = first_samples(by_content(corpus.train), round(EVENTS_SECONDS * rate))
    seconds = typical_event_seconds([Frames.of(quantizer.decode(clip), rate).level_db for clip in clips])
    return None if seconds is None or seconds > LONGEST_EVENT_SECONDS else seconds


def _folder_notes(files: Sequence[File], are_labels: bool) -> list[str]:
    """Return a note on sub-folders that give no labels, or on files outside of those that do."""
    if not are_labels:
        several = len({file.label for file in files}) > 1 and not any(file.is_loose for file in files)
        return ["The sub-folders are trained on as one sound; for a label each: --config speakers."] if several else []
    loose = group_names((file.name, file.label) for file in files if file.is_loose)
    if len(loose) == 1 and all(file.is_loose for file in files):
        return ["there are no sub-folders, which would be labels: right for one sound, several need one each."]
    return [
        f"{pluralize(len(names), 'file is')} in no sub-folder, which would be the label, and labelled with the"
        f" folder's own name, {printable(label)}: {list_first(names)}."
        for label, names in loose.items()
    ]


def _split_warnings(clips: Sequence[Clip]) -> list[str]:
    """Return warnings about what is held out."""
    notes = []
    train = [clip for clip in clips if clip.split == "train"]
    held = [clip for clip in clips if clip.split == "validation" and not clip.name.endswith(TAIL)]
    trained_on = {clip.content_hash for clip in train}
    if copies := [printable(clip.name) for clip in held if clip.content_hash in trained_on]:
        notes.append(
            f"{pluralize(len(copies), 'held-out file is')} also trained on, byte for byte: {list_first(copies)}."
        )
    if n_copies := len(train) - len(trained_on):
        notes.append(f"{pluralize(n_copies, 'training file repeats', 'training files repeat')} another, byte for byte.")
    labels = {clip.label for clip in train}
    if strange := sorted({clip.label for clip in held if clip.label is not None and clip.label not in labels}):
        notes.append(
            f"{pluralize(len(strange), 'label is')} only held out, never trained on: "
            f"{list_first(map(printable, strange))}."
        )
    return notes


def _nothing_usable(given: Sequence[str], unusable: dict[str, str], n_ignored: int) -> str:
    where = list_sources(given)
    series = find_sources(given, find_series).found.names
    if not unusable and series:
        return (
            f"{where}: expected recordings, found none, but series of numbers ({list_first(map(printable, series))});"
            " those take --config book-simple --set series.synthetic=null"
        )
    return nothing_usable(where, f"recordings ({', '.join(sorted(READABLE))})", unusable, n_ignored)


# --- features ------------------------------------------------------------------------------------------------------

ROUND = 2**10 * 5**2  # a round number of samples has many factors in common with it
CONSTANT = 1e-6  # a column whose deviation is this part of its mean says nothing


def read_features(
    recordings: Sequence[tuple[str, Path, int]], config: Config
) -> tuple[dict[str, ClipFeatures], dict[str, str], list[str]]:
    """Read and check the features of a corpus.

    Args:
        recordings: name, path and samples of each.
        config: with ``features.columns`` and ``features.hop``, a number or auto.

    Returns:
        The features by name, the reasons why others cannot be used, and a note on each kind of reason.
    """
    shapes, reasons, found = dict[str, tuple[int, ...]](), dict[str, str](), dict[str, ClipFeatures]()
    for name, path, _ in recordings:
        try:
            shape = map_array(features_path(path)).shape
            if len(shape) not in (1, 2) or 0 in shape:
                raise ValueError(f"the shape {shape}")
            shapes[name] = shape
        except ValueError as error:
            reasons[name] = f"expected features (F, D) in a .npy file of the same name, found {error}"
    if shapes:
        columns, hop = config.features.columns, config.features.hop
        if columns == "auto":
            columns = columns_of(next(iter(shapes.values())))
        if hop == "auto":
            hop = _hop_of([(n_samples, shapes[name][0]) for name, _, n_samples in recordings if name in shapes])
        ones = (1.0,) * (columns or 1)
        source = Features(config.audio.sample_rate_hz, hop, ones, ones)
        for name, path, n_samples in recordings:
            if name in shapes:
                where = features_path(path)
                try:
                    source.of_clip(map_array(where), n_samples, "features")
                    with where.open("rb") as content:
                        digest = hashlib.file_digest(content, "sha256").hexdigest()
                except (ValueError, OSError, UsageError) as error:
                    reasons[name] = str(error).removeprefix("features: ")
                else:
                    found[name] = ClipFeatures(where, shapes[name], digest, hop, n_samples)
    kinds = group_names((name, reason.partition(", found")[0]) for name, reason in sorted(reasons.items()))
    notes = [
        f"{pluralize(len(names), 'file is')} left out, {kind}: {list_first(names)}." for kind, names in kinds.items()
    ]
    return found, reasons, notes


def _hop_of(lengths: Sequence[tuple[int, int]]) -> int:
    """Return the hop that fits the (samples, frames) of most clips."""
    samples, frames = np.array(lengths).T
    typical = np.median(samples / (frames - 0.5))
    hops = np.arange(max(1, int(0.9 * typical)), int(1.1 * typical) + 2)
    # F is T / hop rounded up, or librosa's 1 + T // hop; in both cases (F - 1) hop <= T <= F hop
    n_fitting = np.array([np.sum(((frames - 1) * hop <= samples) & (samples <= frames * hop)) for hop in hops])
    # several fit where all clips are short or equally long: the roundest of them, such as 80, 256 or 400
    return int(max(hops[n_fitting == n_fitting.max()], key=lambda hop: math.gcd(hop, ROUND)))


def with_features(config: Config, train: Sequence[ClipFeatures]) -> Config:
    """Return the configuration with its features' columns, hop, means and deviations.

    Args:
        config: of a model that is conditioned on features.
        train: of the training split; one or more.
    """
    values: dict[str, Any] = {"columns": train[0].columns, "hop": train[0].hop_length}
    if "auto" in (config.features.mean, config.features.scale):
        n_frames = max(1, sum(len(clip.frames()) for clip in train))
        mean = sum((part.sum(axis=0) for part in _parts(train)), np.zeros(train[0].columns)) / n_frames
        squares = sum((np.square(part - mean).sum(axis=0) for part in _parts(train)), np.zeros(train[0].columns))
        deviation = np.sqrt(squares / n_frames)
        is_constant = deviation <= CONSTANT * np.maximum(np.abs(mean), 1e-20)
        for key, numbers in (("mean", mean), ("scale", np.where(is_constant, 1.0, deviation))):
            if getattr(config.features, key) == "auto":
                values[key] = [float(f"{number:.6g}") for number in numbers]
    return config.with_values("features", **values)


def _parts(clips: Sequence[ClipFeatures]) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the frames of clips, some at a time."""
    for clip in clips:
        frames = clip.frames()
        for begin in range(0, len(frames), CHECKED_AT_ONCE):
            yield frames[begin : begin + CHECKED_AT_ONCE].astype(np.float64)
