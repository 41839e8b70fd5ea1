"""A folder of recordings as a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wavegen.audio.decoder import shut_down_decoders
from wavegen.audio.quantize import Classes, Quantizer, build_quantizer
from wavegen.audio.read import READABLE, SERIES_ENDINGS, find_files
from wavegen.audio.waveform import INAUDIBLE, MISSING_SECONDS, Level, Preparation, build_preparation
from wavegen.config import Config
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.data.conditioning import list_labels
from wavegen.data.corpus import TAIL, Clip, Corpus, Progress, StoredClip
from wavegen.data.split import File, list_files, look_up, split_clips
from wavegen.errors import DataError, UsageError
from wavegen.text import list_first, pluralize, printable

Labels = Literal["none", "subfolders"]

MOST_LABELS = 1000  # as the schema allows; they are listed in every configuration
LOUD_PEAK = 1.25  # resampling and lossy formats overshoot by less


def read_recordings(config: Config, progress: Progress | None = None) -> Corpus[Clip]:
    """Read the recordings that a configuration names.

    Args:
        config: with ``data.folder``.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the configuration names no folder, or there is none.
        DataError: it holds nothing to train on.
    """
    if config.data.folder is None:
        raise UsageError("expected a folder of recordings: wavegen train DIR, or data.folder in the configuration")
    corpus = build_corpus(
        Path(config.data.folder),
        preparation=build_preparation(config),
        quantizer=build_quantizer(config),
        validation=config.data.validation,
        labels=config.data.labels,
        cache=ClipCache(),
        progress=progress,
    )
    shut_down_decoders()  # what follows may take days
    return corpus


def build_corpus(
    folder: Path,
    *,
    preparation: Preparation,
    quantizer: Quantizer,
    validation: float | str | Path,
    labels: Labels,
    cache: ClipCache,
    progress: Progress | None = None,
) -> Corpus[Clip]:
    """Scan a folder, decode what the cache lacks, split and label the clips.

    Args:
        folder: searched with all folders below it.
        preparation: of the decoded recordings.
        quantizer: the map to classes.
        validation: the share of clips to hold out, chosen by their content, so that adding or renaming files moves
            no other; or a folder whose clips are held out, inside `folder` or not; or a text file that names the
            held-out files of `folder`, one a line.
        labels: "subfolders" takes the first folder on the way to a file; "none" gives no labels.
        cache: where decoded clips are kept.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the folder, or what `validation` names, does not exist.
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    held_out = None if isinstance(validation, int | float) else look_up(Path(validation), folder)
    files, unusable, n_ignored = list_files(folder, held_out)
    settings = ClipSettings(preparation, quantizer)
    outcomes = cache.prepare([file.path for file in files], settings, progress)
    unusable |= {file.name: why for file, why in zip(files, outcomes, strict=True) if isinstance(why, str)}
    whole = [
        Clip(
            name=file.name,
            n_samples=stored.n_samples,
            label=file.label if labels == "subfolders" else None,
            split=file.split,
            content_hash=stored.content_hash,
            seconds=stored.source_seconds,
            stored=stored,
        )
        for file, stored in zip(files, outcomes, strict=True)
        if not isinstance(stored, str)
    ]
    used = [file for file, stored in zip(files, outcomes, strict=True) if not isinstance(stored, str)]
    if not whole:
        raise DataError(_nothing_usable(folder, unusable, n_ignored))
    clips, notes = split_clips(whole, validation, folder)
    return Corpus(
        folder=folder,
        clips=tuple(clips),
        unusable=tuple(sorted(unusable.items())),
        shortened=tuple(
            (file.name, what)
            for file, stored in zip(files, outcomes, strict=True)
            if not isinstance(stored, str) and (what := _what_is_missing(stored))
        ),
        n_ignored=n_ignored,
        notes=(*notes, *(_loose_files(used) if labels == "subfolders" else []), *_warnings(clips, preparation.level)),
    )


def with_labels(config: Config, corpus: Corpus[Clip]) -> Config:
    """Return the configuration with its model's labels, in their order: those of the corpus, or those given.

    Raises:
        DataError: the corpus has a label that is not among those given, or too many.
    """
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
    n_taken = 0
    for clip in clips:
        if limit is not None and n_taken >= limit:
            break
        classes = clip.classes()
        taken.append(classes if limit is None else classes[: limit - n_taken])
        n_taken += len(taken[-1])
    return taken


def _loose_files(files: Sequence[File]) -> list[str]:
    """Return a note on files outside the sub-folders that give labels."""
    loose: dict[str, list[str]] = {}
    for file in files:
        if file.is_loose:
            loose.setdefault(file.label, []).append(printable(file.name))
    return [
        f"{pluralize(len(names), 'file is')} in no sub-folder, which would be the label, and labelled with the"
        f" folder's own name, {printable(label)}: {list_first(names)}."
        for label, names in loose.items()
    ]


def _warnings(clips: Sequence[Clip], level: Level) -> list[str]:
    """Return warnings about usable clips."""
    notes = []
    train = [clip for clip in clips if clip.split == "train"]
    held = [clip for clip in clips if clip.split == "validation" and not clip.name.endswith(TAIL)]
    trained_on = {clip.content_hash for clip in train}
    if copies := [printable(clip.name) for clip in held if clip.content_hash in trained_on]:
        notes.append(
            f"{pluralize(len(copies), 'held-out file is')} also trained on, byte for byte: {list_first(copies)}."
        )
    labels = {clip.label for clip in train}
    if strange := sorted({clip.label for clip in held if clip.label is not None and clip.label not in labels}):
        notes.append(
            f"{pluralize(len(strange), 'label is')} only held out, never trained on: "
            f"{list_first(map(printable, strange))}."
        )
    if silent := [printable(clip.name) for clip in train if clip.stored.peak < INAUDIBLE]:
        notes.append(f"{pluralize(len(silent), 'file is')} silent from end to end: {list_first(silent)}.")
    if level == "keep" and (loud := [printable(clip.name) for clip in train if clip.stored.peak > LOUD_PEAK]):
        what = f"{pluralize(len(loud), 'file is')} louder than full scale and clipped (audio.level: peak avoids it)"
        notes.append(f"{what}: {list_first(loud)}.")
    return notes


def _what_is_missing(stored: StoredClip) -> str:
    """Return which part of a file is not used; empty for none."""
    if stored.missing_seconds > MISSING_SECONDS:
        return f"damaged or cut off: {stored.missing_seconds:.2f} s less than its header claims"
    return ""


def _nothing_usable(folder: Path, unusable: dict[str, str], n_ignored: int) -> str:
    where = printable(folder)
    if not unusable and (series := find_files(folder, SERIES_ENDINGS, frozenset(), "series").names):
        return (
            f"{where}: expected recordings, found none, but series of numbers ({list_first(map(printable, series))});"
            " those take --config book-simple --set series.synthetic=null"
        )
    if not unusable:
        return (
            f"{where}: expected recordings ({', '.join(sorted(READABLE))}), found none;"
            f" {n_ignored} other entries were ignored"
        )
    reasons = [f"{printable(name)}: {reason}" for name, reason in sorted(unusable.items())]
    return f"{where}: none of the {len(reasons)} audio files can be used: {list_first(reasons)}"
