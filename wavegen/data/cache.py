"""The decode-once cache: audio files as classes on disk, ready to be mapped into memory.

    <cache>/index-1.sqlite3          per file and settings: its clip, or why it cannot be used
    <cache>/clips/3f/3f09...classes  the classes, one or two bytes each and nothing else
    <cache>/partial/                 what is being written

A clip's file is named after the audio file's content and the settings: it is moved into place when it is whole and
never changes afterwards, so processes may build and read at once, and a kill at any point costs at most the rows
of the last second.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
import uuid
from collections.abc import Generator, Sequence
from concurrent.futures import as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.data.cache_index import (
    CacheIndex,
    Outcome,
    Row,
    cache_folder,
    clip_path,
    explain_cache_errors,
    open_index,
    path_key,
)
from wavegen.data.corpus import Progress, StoredClip
from wavegen.device import one_thread_each
from wavegen.errors import AudioError, UsageError
from wavegen.text import printable

FORMAT = 4  # increase it whenever the same file and settings would give other classes
COMMIT_SECONDS = 1.0
LEFTOVER_SECONDS = 3600  # files in partial/ older than this were left by a killed process
MAX_WORKERS = 8  # each holds a decoded file in memory


@dataclass(frozen=True)
class ClipSettings:
    """The settings of decoding: equal files and settings give equal classes.

    Args:
        preparation: of the decoded recording.
        quantizer: the map to classes.
    """

    preparation: Preparation
    quantizer: Quantizer

    @property
    def key(self) -> str:
        """The settings and the cache's format as text."""
        return f"{FORMAT} {self.preparation}, {self.quantizer.kind}/{self.quantizer.classes}"

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Of the classes."""
        return np.dtype(np.uint8) if self.quantizer.classes <= 256 else np.dtype(np.uint16)


class ClipCache:
    """The cache in a folder.

    Args:
        folder: made when it is missing; None stands for `cache_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() if folder is None else folder

    def prepare(
        self, paths: Sequence[Path], settings: ClipSettings, progress: Progress | None = None
    ) -> list[StoredClip | str]:
        """Get the clips of audio files: from the cache where unchanged, else by decoding.

        For a known file only its size and time are checked. One that was moved, copied or touched is read
        but not decoded again.

        Args:
            paths: audio files.
            settings: how they are decoded.
            progress: called with (files done, files in all) at the start and after each file that is decoded.

        Returns:
            For each path its clip, or the reason why it cannot be used.

        Raises:
            DataError: the cache cannot be written, or is damaged.
        """
        with explain_cache_errors(self.folder):
            for part in ("clips", "partial"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
        with open_index(self.folder, make=True) as index:
            known = [self._recall(index, path, settings) for path in paths]
        outcomes = {path: outcome for path, outcome in zip(paths, known, strict=True) if outcome is not None}
        n_paths = len(set(paths))
        if progress:
            progress(len(outcomes), n_paths)
        new = [path for path in dict.fromkeys(paths) if path not in outcomes]
        with closing(self._prepare_new(new, settings)) as prepared:
            for path, outcome in prepared:
                outcomes[path] = outcome
                if progress:
                    progress(len(outcomes), n_paths)
        return [outcomes[path] for path in paths]

    def _recall(self, index: CacheIndex, path: Path, settings: ClipSettings) -> StoredClip | str | None:
        """Return the cached outcome of an unchanged file; None if it has to be read."""
        try:
            status = path.stat()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        known = index.of_file(path, settings.key)
        if known is None or (known.size, known.mtime_ns) != (status.st_size, status.st_mtime_ns):
            return None
        return known.reason or self._stored_clip(known.outcome, settings)

    def _stored_clip(self, outcome: Outcome, settings: ClipSettings) -> StoredClip | None:
        """Return the clip of an entry of the index; None if its file is missing or cut off."""
        clip = StoredClip(clip_path(self.folder, outcome[0], settings.key), settings.dtype, *outcome)
        try:
            whole = clip.path.stat().st_size == clip.n_samples * settings.dtype.itemsize
        except FileNotFoundError:
            return None
        return clip if whole else None

    def _prepare_new(
        self, paths: Sequence[Path], settings: ClipSettings
    ) -> Generator[tuple[Path, StoredClip | str], None, None]:
        """Read and decode files on all processors, and enter their outcomes into the index as they come."""
        if not paths:
            return
        # One thread for each file: less contention, and classes that don't depend on the number of processors.
        pool = one_thread_each(min(os.cpu_count() or 1, MAX_WORKERS, len(paths)), "decode")
        with open_index(self.folder) as index:
            self._remove_leftovers()
            rows: list[Row] = []
            committed = time.monotonic()
            try:
                jobs = {pool.submit(self._prepare_file, path, settings): path for path in paths}
                for job in as_completed(jobs):
                    outcome, row = job.result()
                    if row is not None:
                        rows.append(row)
                    if time.monotonic() - committed > COMMIT_SECONDS:
                        index.enter(rows)
                        committed = time.monotonic()
                    yield jobs[job], outcome
            finally:
                pool.shutdown(cancel_futures=True)
                index.enter(rows)

    def _prepare_file(self, path: Path, settings: ClipSettings) -> tuple[StoredClip | str, Row | None]:
        """Make one file's clip.

        Returns:
            The clip, or why there is none, and its row for the index; no row for what may be gone the next time.
        """
        outcome: StoredClip | str
        try:
            before = path.stat()
            with path.open("rb") as file:
                content_hash = hashlib.file_digest(file, "sha256").hexdigest()
            try:
                outcome = self._recall_content(content_hash, settings) or self._decode(path, content_hash, settings)
            except (AudioError, UsageError) as error:
                outcome = str(error).removeprefix(f"{printable(path)}: ")
                if isinstance(error, AudioError) and not error.lasting:
                    return outcome, None
            after = path.stat()
        except OSError as error:
            return f"cannot be read ({error.strerror})", None
        except MemoryError:
            return "needs more memory than there is; cut it into shorter files", None
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return "was written to while it was read; start again when it is whole", None
        file_columns = (path_key(path), settings.key, before.st_size, before.st_mtime_ns)
        if isinstance(outcome, str):
            return outcome, (*file_columns, content_hash, *(None,) * 5, outcome)
        return outcome, (
            *file_columns,
            *(outcome.content_hash, outcome.n_samples),
            *(outcome.source_seconds, outcome.missing_seconds, outcome.trimmed_seconds, outcome.peak),
            None,
        )

    def _recall_content(self, content_hash: str, settings: ClipSettings) -> StoredClip | None:
        """Return the clip of a file with the same bytes: this one was moved, copied or touched."""
        with open_index(self.folder) as index:
            outcome = index.of_content(content_hash, settings.key)
        return None if outcome is None else self._stored_clip(outcome, settings)

    def _decode(self, path: Path, content_hash: str, settings: ClipSettings) -> StoredClip:
        audio = load_waveform(path, settings.preparation)
        target = clip_path(self.folder, content_hash, settings.key)
        with explain_cache_errors(self.folder):
            partial = self.folder / "partial" / uuid.uuid4().hex
            partial.write_bytes(settings.quantizer.encode(audio.waveform).tobytes())
            target.parent.mkdir(exist_ok=True)
            partial.replace(target)
        return StoredClip(
            path=target,
            dtype=settings.dtype,
            content_hash=content_hash,
            n_samples=len(audio.waveform),
            source_seconds=audio.source_seconds,
            missing_seconds=audio.missing_seconds,
            trimmed_seconds=audio.trimmed_seconds,
            peak=audio.peak,
        )

    def _remove_leftovers(self) -> None:
        oldest = time.time() - LEFTOVER_SECONDS
        for partial in (self.folder / "partial").iterdir():
            if partial.stat().st_mtime < oldest:
                partial.unlink(missing_ok=True)
