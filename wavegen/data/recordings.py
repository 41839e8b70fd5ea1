"""Recordings as a corpus: decoded, split and labelled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wavegen.audio.decoder import shut_down_decoders
from wavegen.audio.mono import CUT_OFF, group_warnings
from wavegen.audio.quantize import Classes, build_quantizer
from wavegen.audio.read import READABLE, find_series
from wavegen.audio.waveform import build_preparation
from wavegen.config import Config
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.data.conditioning import list_labels
from wavegen.data.corpus import TAIL, Clip, Corpus, Item, Progress, Split
from wavegen.data.features import ClipFeatures, read_features, with_features
from wavegen.data.sources import File, find_sources, list_files, list_sources, nothing_usable
from wavegen.errors import DataError, UsageError
from wavegen.text import group_names, list_first, pluralize, printable

FEW_FILES = 10  # fewer are too few to hold out whole ones

MOST_LABELS = 1000  # as the schema allows; they are listed in every configuration


def split_clips(
    clips: Sequence[Item], validation: float | str, folder: Path, noun: str = "file", shortest: int = 1
) -> tuple[list[Item], list[str]]:
    """Hold out a share of the clips; or check that those held out by name are some of them, and not all.

    Args:
        clips: all of them, with their splits where these were given by name.
        validation: a share, or where the names came from.
        folder: of the corpus.
        noun: what a clip is.
        shortest: samples of the least part of a clip that is of use.

    Returns:
        The clips with their splits, and notes for the user.

    Raises:
        DataError: there is nothing to train on, or nothing to validate on where it was asked for by name.
    """
    if isinstance(validation, int | float):
        return _hold_out_share(clips, validation, noun, shortest)
    for split, text in (("train", f"every usable {noun}"), ("validation", f"no usable {noun}")):
        if not any(clip.split == split for clip in clips):
            raise DataError(f"{printable(validation)}: holds out {text} of {printable(folder)}; see data.validation")
    return list(clips), []


def _hold_out_share(clips: Sequence[Item], share: float, noun: str, shortest: int) -> tuple[list[Item], list[str]]:
    """Split by content: the split of a file depends on its bytes alone."""
    if share == 0:
        figure = "bits/sample" if noun == "file" else "error"
        return list(clips), [f"Nothing is held out (data.validation is 0): there will be no held-out {figure}."]
    chosen = [int(clip.content_hash[:16], 16) / 2**64 < share for clip in clips]
    if len(clips) >= FEW_FILES and any(chosen) and not all(chosen):
        splits: list[Split] = ["validation" if held else "train" for held in chosen]
        return [clip.part(clip.name, split, 0, clip.n_samples) for clip, split in zip(clips, splits, strict=True)], []
    parts, files = [], "series" if noun == "series" else f"{noun}s"
    for clip in clips:
        n_tail = min(max(shortest, round(share * clip.n_samples)), clip.n_samples - shortest)
        n_tail = n_tail if n_tail >= shortest else 0
        head = clip.n_samples - n_tail
        parts.append(clip.part(clip.name, "train", 0, head))
        if n_tail:
            parts.append(clip.part(clip.name + TAIL, "validation", head, clip.n_samples))
    why = (
        f"There are fewer than {FEW_FILES} usable {files}"
        if len(clips) < FEW_FILES
        else f"A share of {share:g} selects {'all' if all(chosen) else 'none'} of the {files}"
    )
    return parts, [f"{why}: the last {100 * share:.3g}% of each is held out instead of whole {files}."]


# --- the corpus ----------------------------------------------------------------------------------------------------


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
    n_taken = 0
    for clip in clips:
        if limit is not None and n_taken >= limit:
            break
        classes = clip.classes()
        taken.append(classes if limit is None else classes[: limit - n_taken])
        n_taken += len(taken[-1])
    return taken


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
