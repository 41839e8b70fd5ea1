"""How much of the decode-once cache a folder has, and dropping that."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from wavegen.data.cache import ClipCache
from wavegen.data.cache_index import index_path, open_index


@dataclass(frozen=True)
class Kept:
    """What the cache holds of some files.

    Attributes:
        n_files: audio files.
        n_bytes: of their classes.
    """

    n_files: int
    n_bytes: int


def kept_of(cache: ClipCache, folder: Path) -> Kept:
    """What the cache holds of the files in a folder and below it.

    Raises:
        DataError: the cache is damaged.
    """
    clips = _clips_of(cache, folder)
    return Kept(len({path for path, _ in clips}), sum(_size(clip) for clip in {clip for _, clip in clips}))


def cache_bytes(cache: ClipCache) -> int:
    """The size of the whole cache."""
    return sum(_size(path) for path in cache.folder.rglob("*"))


def drop(cache: ClipCache, folder: Path) -> Kept:
    """Forget the files in a folder and below it; a training that uses them now has to be started again.

    Returns:
        What was dropped.

    Raises:
        DataError: the cache is damaged or cannot be written.
    """
    if not index_path(cache.folder).is_file():
        return Kept(0, 0)
    before, clips = kept_of(cache, folder), {clip for _, clip in _clips_of(cache, folder)}
    with open_index(cache.folder) as index:
        index.forget(folder)
        for clip in clips - {cache.clip_path(*content) for content in index.contents()}:  # others may have the same
            clip.unlink(missing_ok=True)
    return before


def _clips_of(cache: ClipCache, folder: Path) -> list[tuple[bytes, Path]]:
    """Each file below a folder that the index knows, with where its classes are."""
    if not index_path(cache.folder).is_file():
        return []
    with open_index(cache.folder, make=True) as index:
        return [(path, cache.clip_path(content_hash, settings)) for path, content_hash, settings in index.below(folder)]


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
