"""A folder of recordings: the headers of its files and, on request, their levels."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from wavegen.audio.read import AudioInfo, find_audio, probe
from wavegen.data.cache import cache_bytes, cache_folder, cached_bytes_of
from wavegen.errors import AudioError, DataError, UsageError
from wavegen.inspect.facts import Facts, Progress
from wavegen.inspect.levels import ClipLevels, FolderLevels, Levels, measure_clips
from wavegen.text import printable

# Headers come at 16,000 a second from memory with any number of threads; from a disk or a network that has to be waited
# for, threads wait side by side. One task for each file would cost twice the time of its header.
THREADS = 8
FILES_PER_TASK = 16


@dataclass(frozen=True)
class FormatFacts:
    """Files of one format.

    Attributes:
        container, encoding: libsndfile's names.
        bits: per sample; None for lossy encodings.
    """

    container: str
    encoding: str
    bits: int | None
    rate_hz: int
    channels: int
    files: int
    minutes: float


@dataclass(frozen=True)
class FileFacts:
    """A file that can be used; its levels are known where it was decoded."""

    name: str
    seconds: float | None
    rate_hz: int
    channels: int
    level: Levels | None


@dataclass(frozen=True)
class UnusableFile:
    """A file that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class CacheFacts:
    """The size of a folder's decoded recordings in the cache.

    Attributes:
        files, bytes: of the folder.
        all_bytes: of the whole cache.
        path: of the cache; None where there is none.
    """

    files: int
    bytes: int
    all_bytes: int
    path: str | None


@dataclass(frozen=True, kw_only=True)
class FolderFacts(Facts):
    """A folder of recordings.

    Attributes:
        ignored_entries: no audio, or hidden.
        minutes, shortest_seconds, median_seconds, longest_seconds: of the files of known length.
        formats: the one with most minutes first.
        levels: of all files together, where they were decoded.
    """

    kind = "folder"
    path: str
    usable_files: int
    unusable_files: int
    ignored_entries: int
    files_of_unknown_length: int
    minutes: float
    shortest_seconds: float | None
    median_seconds: float | None
    longest_seconds: float | None
    formats: list[FormatFacts]
    unusable: list[UnusableFile]
    files: list[FileFacts]
    levels: FolderLevels | None
    cache: CacheFacts


def inspect_folder(folder: Path, progress: Progress | None = None, *, decode: bool = False) -> FolderFacts:
    """Read the headers of all audio files below a folder.

    Args:
        folder: of recordings.
        progress: called with (files read, files in all); where the files are decoded, for each of the two passes.
        decode: decode every file too, and measure its levels.

    Raises:
        DataError: the folder cannot be listed.
    """
    found = find_audio(folder)
    headers = dict(zip(found.names, _read_headers(folder, found.names, progress), strict=True))
    reasons = {**dict(found.unusable), **{name: why for name, why in headers.items() if isinstance(why, str)}}
    usable = {name: header for name, header in headers.items() if isinstance(header, AudioInfo)}
    clips: dict[str, ClipLevels] = {}
    if decode:
        measured = measure_clips(folder, list(usable), progress)
        clips = {name: clip for name, clip in measured.items() if isinstance(clip, ClipLevels)}
        reasons |= {name: clip for name, clip in measured.items() if isinstance(clip, str)}
        usable = {name: usable[name] for name in clips}
    files = [
        FileFacts(
            name,
            clips[name].seconds if decode else header.seconds,
            header.rate_hz,
            header.channels,
            clips[name].levels if decode else None,
        )
        for name, header in usable.items()
    ]
    known = sorted(file.seconds for file in files if file.seconds is not None)
    return FolderFacts(
        path=str(folder),
        usable_files=len(files),
        unusable_files=len(reasons),
        ignored_entries=found.n_ignored,
        files_of_unknown_length=len(files) - len(known),
        minutes=sum(known) / 60,
        shortest_seconds=known[0] if known else None,
        median_seconds=median(known) if known else None,
        longest_seconds=known[-1] if known else None,
        formats=_formats(files, list(usable.values())),
        unusable=[UnusableFile(name, reason) for name, reason in sorted(reasons.items())],
        files=files,
        levels=FolderLevels.of(clips) if decode else None,
        cache=inspect_cache(folder),
    )


def inspect_cache(folder: Path) -> CacheFacts:
    """Look up the size of a folder's decoded recordings; 0 where the cache is missing or damaged."""
    with contextlib.suppress(DataError, UsageError):
        cache = cache_folder()
        cached = cached_bytes_of(cache, folder)
        return CacheFacts(cached.n_files, cached.n_bytes, cache_bytes(cache) if cached.n_files else 0, str(cache))
    return CacheFacts(0, 0, 0, None)


def _formats(files: Sequence[FileFacts], headers: Sequence[AudioInfo]) -> list[FormatFacts]:
    groups: dict[tuple[str, str, int | None, int, int], list[float]] = defaultdict(list)
    for file, header in zip(files, headers, strict=True):
        shared = (header.container, header.encoding, header.bits, header.rate_hz, header.channels)
        groups[shared].append(file.seconds or 0.0)
    formats = [FormatFacts(*shared, len(lengths), sum(lengths) / 60) for shared, lengths in groups.items()]
    return sorted(formats, key=lambda each: (-each.minutes, -each.files, repr(each)))


def _read_headers(folder: Path, names: Sequence[str], progress: Progress | None) -> list[AudioInfo | str]:
    """Return for each file its header, or why it cannot be used."""

    def read(names: Sequence[str]) -> list[AudioInfo | str]:
        return [_read_header(folder / name) for name in names]

    headers: list[AudioInfo | str] = []
    pool = ThreadPoolExecutor(THREADS, "headers")
    try:
        tasks = (names[start : start + FILES_PER_TASK] for start in range(0, len(names), FILES_PER_TASK))
        for part in pool.map(read, tasks):
            headers += part
            if progress:
                progress(len(headers), len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return headers


def _read_header(path: Path) -> AudioInfo | str:
    try:
        header = probe(path)
    except (AudioError, UsageError) as error:
        return str(error).removeprefix(f"{printable(path)}: ")
    return "no audio in it (0 samples)" if header.frames == 0 else header
