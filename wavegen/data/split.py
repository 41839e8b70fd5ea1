"""Which clips are trained on, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wavegen.data.corpus import TAIL, Item, Split
from wavegen.errors import DataError
from wavegen.text import printable

FEW_FILES = 10  # fewer are too few to hold out whole ones


def split_clips(
    clips: Sequence[Item], validation: float | str | Path, folder: Path, noun: str = "file", shortest: int = 1
) -> tuple[list[Item], list[str]]:
    """Hold out a share of the clips; or make sure that those held out by name are some of them, and not all.

    Args:
        clips: all of them, with their splits where these were given by name.
        validation: a share, or where the names came from.
        folder: of the corpus.
        noun: what a clip is.
        shortest: samples of the least part of a clip that is of use.

    Returns:
        The clips with their splits, and what the user should know of it.

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
    """Split by content: which side a file is on depends on nothing but its bytes."""
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
