"""A folder of recordings: by the headers of its files, and by their sound where that is asked for."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from wavegen.audio.find import find_audio
from wavegen.audio.read import AudioInfo, probe
from wavegen.config import load_config
from wavegen.data.cache import ClipCache
from wavegen.data.cache_index import CachedFiles, cache_bytes, cached_bytes_of
from wavegen.errors import AudioError, DataError, UsageError
from wavegen.report.inspection.audio import describe_encoding
from wavegen.report.inspection.inspection import Inspection, Progress
from wavegen.report.inspection.listening import Heard, duplicates, listen, listening_facts, listening_tables
from wavegen.report.tables import Table, facts, file_size, first_rows, minutes
from wavegen.text import pluralize, printable

# Headers come at 16,000 a second from memory, whatever the threads; from a disk or a network that has to be waited
# for, threads wait side by side. One task for each file would cost twice the time of its header.
THREADS = 8
FILES_PER_TASK = 16


@dataclass(frozen=True)
class Format:
    """What files have in common."""

    container: str
    encoding: str
    bits: int | None
    rate_hz: int
    channels: int


def inspect_folder(folder: Path, progress: Progress | None = None, *, hear: bool = False) -> Inspection:
    """Read the headers of all audio files below a folder.

    Args:
        folder: of recordings.
        progress: called with (files read, files in all); where the files are heard, for each of the two passes.
        hear: decode every file too.

    Raises:
        DataError: the folder cannot be listed.
    """
    found = find_audio(folder)
    headers = dict(zip(found.names, _read_headers(folder, found.names, progress), strict=True))
    reasons = {**dict(found.unusable), **{name: why for name, why in headers.items() if isinstance(why, str)}}
    usable = {name: header for name, header in headers.items() if isinstance(header, AudioInfo)}
    heard: dict[str, Heard] = {}
    if hear:
        for name, one in listen(folder, list(usable), progress).items():
            if isinstance(one, str):
                reasons[name] = one
            else:
                heard[name] = one
        usable = {name: usable[name] for name in heard}
    unusable = sorted(reasons.items())
    seconds = {name: heard[name].seconds if hear else header.seconds for name, header in usable.items()}
    known = sorted(length for length in seconds.values() if length is not None)
    formats = _group(usable, seconds)
    cache, kept = None, CachedFiles(0, 0)
    with contextlib.suppress(DataError, UsageError):  # headers can be read without one
        cache = ClipCache()
        kept = cached_bytes_of(cache.folder, folder)
    values = {
        "kind": "folder",
        "path": str(folder),
        "usable_files": len(usable),
        "unusable_files": len(unusable),
        "ignored_entries": found.n_ignored,
        "files_of_unknown_length": len(usable) - len(known),
        "minutes": sum(known) / 60,
        "shortest_seconds": known[0] if known else None,
        "median_seconds": median(known) if known else None,
        "longest_seconds": known[-1] if known else None,
        "formats": [
            {**asdict(shared), "files": len(lengths), "minutes": sum(lengths) / 60} for shared, lengths in formats
        ],
        "unusable": [{"name": name, "reason": reason} for name, reason in unusable],
        "files": [
            {
                "name": name,
                "seconds": seconds[name],
                "rate_hz": header.rate_hz,
                "channels": header.channels,
                "level": heard[name].level if hear else None,
            }
            for name, header in usable.items()
        ],
        "heard": None,
        "cache": {"files": kept.n_files, "bytes": kept.n_bytes, "path": str(cache.folder) if cache else None},
    }
    tables = _tables(folder, len(usable), known, formats, unusable, found.n_ignored, _cached(kept, cache))
    if hear:
        together = listening_facts(heard, duplicates(heard), load_config().audio.sample_rate_hz)
        values["heard"] = together
        tables += listening_tables(heard, together)
    return Inspection("folder", values, tables)


def _group(usable: Mapping[str, AudioInfo], seconds: Mapping[str, float | None]) -> list[tuple[Format, list[float]]]:
    """The lengths of the files of each format, the most minutes first."""
    groups: dict[Format, list[float]] = defaultdict(list)
    for name, header in usable.items():
        shared = Format(header.container, header.encoding, header.bits, header.rate_hz, header.channels)
        groups[shared].append(seconds[name] or 0.0)
    return sorted(groups.items(), key=lambda item: (-sum(item[1]), -len(item[1]), repr(item[0])))


def _read_headers(folder: Path, names: Sequence[str], progress: Progress | None) -> list[AudioInfo | str]:
    """For each file its header, or why it cannot be used."""

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


def _tables(
    folder: Path,
    n_usable: int,
    known: Sequence[float],
    formats: Sequence[tuple[Format, Sequence[float]]],
    unusable: Sequence[tuple[str, str]],
    n_ignored: int,
    cached: str | None,
) -> list[Table]:
    n_unknown = n_usable - len(known)
    summary = facts(
        printable(folder),
        usable=f"{pluralize(n_usable, 'file')}, {minutes(sum(known))}",
        unknown_length=pluralize(n_unknown, "file") if n_unknown else None,
        clips=_lengths(known),
        unusable=pluralize(len(unusable), "file") if unusable else None,
        ignored=f"{n_ignored:,} (no audio, or hidden)" if n_ignored else None,
        cache=cached,
    )
    tables = [summary]
    if formats:
        rows = [
            (
                f"{shared.container} {describe_encoding(shared.encoding, shared.bits)}",
                f"{shared.rate_hz:,}",
                str(shared.channels),
                f"{len(seconds):,}",
                f"{sum(seconds) / 60:.2f}",
            )
            for shared, seconds in formats
        ]
        tables.append(first_rows("formats", ("format", "rate (Hz)", "channels", "files", "minutes"), rows))
    if unusable:
        rejected = [(printable(name), reason) for name, reason in unusable]
        tables.append(first_rows("cannot be used", ("file", "why"), rejected))
    return tables


def _cached(kept: CachedFiles, cache: ClipCache | None) -> str | None:
    """What was decoded before; --drop-cache frees it."""
    if cache is None or not kept.n_files:
        return None
    whole = f"{file_size(cache_bytes(cache.folder))} in all at {printable(cache.folder)}"
    return f"{pluralize(kept.n_files, 'file')} decoded, {file_size(kept.n_bytes)} (of {whole})"


def _lengths(seconds: Sequence[float]) -> str | None:
    """How long the clips are, given ascending."""
    if not seconds:
        return None
    shortest, middle, longest = (
        f"{1000 * length:.0f} ms" if length < 1 else minutes(length)
        for length in (seconds[0], median(seconds), seconds[-1])
    )
    return f"shortest {shortest}, median {middle}, longest {longest}"
