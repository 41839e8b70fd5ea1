"""The decode-once cache: audio files as classes on disk, ready to be mapped into memory.

    <cache>/index-4.sqlite3          per file and settings: its clip, or why it cannot be used
    <cache>/clips/3f/3f09...classes  the classes, one or two bytes each and nothing else
    <cache>/partial/                 what is being written

A clip's file is named after the audio file's content and the settings: it is moved into place when it is whole and
never changes afterwards, so processes may build and read at once, and a kill at any point costs at most the rows
of the last second.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavegen.audio.quantize import Quantizer
from wavegen.audio.read import IS_GENERATED, probe
from wavegen.audio.waveform import Preparation, open_audio
from wavegen.data.corpus import Progress, StoredClip
from wavegen.device import is_out_of_memory, one_thread_each
from wavegen.errors import AudioError, DataError, UsageError
from wavegen.text import expand_home, printable

BUSY_SECONDS = 60.0

SCHEMA = """
    CREATE TABLE IF NOT EXISTS files (
        path BLOB, settings TEXT, size INTEGER, mtime_ns INTEGER, identity TEXT,
        content_hash TEXT, n_samples INTEGER,
        source_seconds REAL, trimmed_seconds REAL, peak REAL, warnings TEXT,
        reason TEXT,
        PRIMARY KEY (path, settings)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS files_by_content ON files (content_hash, settings);
"""
OUTCOME = "content_hash, n_samples, source_seconds, trimmed_seconds, peak, warnings"
BELOW = "path >= ? AND path < ?"  # by `_below`

Row = tuple[bytes | str | int | float | None, ...]  # a file's columns, as in SCHEMA
Outcome = tuple[str, int, float, float, float, str]  # the columns of OUTCOME

FORMAT = 5  # increase it whenever the same file and settings would give other classes
COMMIT_SECONDS = 1.0
LEFTOVER_SECONDS = 3600  # files in partial/ older than this were left by a killed process
MAX_WORKERS = 8  # each holds some blocks of samples in memory, and a decoder process


def stamp_of(status: os.stat_result) -> tuple[int, int, str]:
    """Return what differs between two files, even where tools give both the same size and time of modification."""
    # the last two as text: an inode may have 64 bits, and SQLite's integers have 63
    return status.st_size, status.st_mtime_ns, f"{status.st_ctime_ns} {status.st_ino}"


def cache_folder() -> Path:
    """Return the cache's folder: $WAVEGEN_CACHE, else $XDG_CACHE_HOME/wavegen, else ~/.cache/wavegen.

    Raises:
        UsageError: none is set and there is no home folder.
    """
    if chosen := os.environ.get("WAVEGEN_CACHE"):
        return expand_home(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return expand_home(base) / "wavegen"
    try:
        return Path.home() / ".cache" / "wavegen"
    except RuntimeError as error:
        raise UsageError("no home folder to keep the cache in; set WAVEGEN_CACHE to a folder") from error


def index_path(cache: Path) -> Path:
    """Return the path of a cache's index."""
    return cache / "index-4.sqlite3"


def clip_path(cache: Path, content_hash: str, settings: str) -> Path:
    """Return the path of the classes of files with this content and these settings."""
    name = hashlib.sha256(f"{content_hash} {settings}".encode()).hexdigest()
    return Path(f"{cache}/clips/{name[:2]}/{name[:40]}.classes")  # one join: this is called for every file


@contextmanager
def open_index(cache: Path) -> Iterator[sqlite3.Connection]:
    """Open the index of the cache in a folder.

    Raises:
        DataError: as ``explain_cache_errors``, whatever is done while it is open.
    """
    with explain_cache_errors(cache), closing(sqlite3.connect(index_path(cache), timeout=BUSY_SECONDS)) as connection:
        connection.executescript(SCHEMA)
        yield connection


@contextmanager
def explain_cache_errors(cache: Path) -> Iterator[None]:
    """Turn errors of the cache in a folder into one line.

    Raises:
        DataError: it cannot be written, or is damaged.
    """
    advice = "set WAVEGEN_CACHE to a folder that can be written and has room"
    try:
        yield
    except OSError as error:
        raise DataError(f"{printable(cache)}: the cache cannot be written ({error.strerror}); {advice}") from error
    except sqlite3.OperationalError as error:
        raise DataError(f"{printable(cache)}: the cache cannot be used ({error}); {advice}") from error
    except sqlite3.DatabaseError as error:
        index = printable(index_path(cache))
        raise DataError(f"{index}: the cache is damaged ({error}); delete this file to rebuild it") from error


def _enter(index: sqlite3.Connection, rows: list[Row]) -> None:
    """Insert rows into the index; the lock is held only meanwhile."""
    with index:
        index.executemany(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 12)})", rows)
    rows.clear()


def path_key(path: Path) -> bytes:
    """Return a file's path as the index has it."""
    return os.fsencode(path.absolute())


def _below(folder: Path) -> tuple[bytes, bytes]:
    """Return the range of path keys of a folder's files, for BELOW."""
    key = path_key(folder).rstrip(b"/")
    return key + b"/", key + bytes([ord("/") + 1])


@dataclass(frozen=True)
class CachedFiles:
    """The size of some files in the cache.

    Attributes:
        n_files: audio files.
        n_bytes: of their classes.
    """

    n_files: int
    n_bytes: int


def cached_bytes_of(cache: Path, folder: Path) -> CachedFiles:
    """Return the size of the cached files of a folder and its sub-folders.

    Raises:
        DataError: the cache is damaged.
    """
    clips = _clips_of(cache, folder)
    return CachedFiles(len({path for path, _ in clips}), sum(_size(clip) for clip in {clip for _, clip in clips}))


def cache_bytes(cache: Path) -> int:
    """Return the size of the whole cache."""
    return sum(_size(path) for path in cache.rglob("*"))


def remove_unused(cache: Path, folder: Path) -> CachedFiles:
    """Remove cached clips that no other folder's files use; a training that reads them has to be restarted.

    Returns:
        The size of the removed files.

    Raises:
        DataError: the cache is damaged or cannot be written.
    """
    before, clips = cached_bytes_of(cache, folder), {clip for _, clip in _clips_of(cache, folder)}
    if index_path(cache).is_file():
        with open_index(cache) as index:
            with index:
                index.execute(f"DELETE FROM files WHERE {BELOW}", _below(folder))
            contents = index.execute("SELECT DISTINCT content_hash, settings FROM files WHERE reason IS NULL")
            for clip in clips - {clip_path(cache, *content) for content in contents}:  # other folders' copies stay
                clip.unlink(missing_ok=True)
    return before


def _clips_of(cache: Path, folder: Path) -> list[tuple[bytes, Path]]:
    """Return each file below a folder that the index knows, and where its classes are."""
    if not index_path(cache).is_file():
        return []
    query = f"SELECT path, content_hash, settings FROM files WHERE {BELOW} AND reason IS NULL"
    with open_index(cache) as index:
        return [(path, clip_path(cache, *content)) for path, *content in index.execute(query, _below(folder))]


def _size(path: Path) -> int:
    """Return a file's size; 0 for a folder, and for what another process has just removed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


# --- the cache -----------------------------------------------------------------------------------------------------


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
        """Type of the stored classes."""
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

        For a known file only its size, times and inode are checked. One that was moved, copied or touched is read
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
        with open_index(self.folder) as index:
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

    def _recall(self, index: sqlite3.Connection, path: Path, settings: ClipSettings) -> StoredClip | str | None:
        """Return the cached outcome of an unchanged file; None if it has to be read."""
        try:
            status = path.stat()
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        where = "path = ? AND settings = ? AND (size, mtime_ns, identity) = (?, ?, ?)"
        query = f"SELECT reason, {OUTCOME} FROM files WHERE {where}"
        row = index.execute(query, (path_key(path), settings.key, *stamp_of(status))).fetchone()
        return row and (row[0] or self._stored_clip(row[1:], settings))

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
                        _enter(index, rows)
                        committed = time.monotonic()
                    yield jobs[job], outcome
            finally:
                pool.shutdown(cancel_futures=True)
                _enter(index, rows)

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
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                return "needs more memory than there is; close other programs, or cut it into shorter files", None
            raise
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            return "was written to while it was read; start again when it is whole", None
        file_columns = (path_key(path), settings.key, *stamp_of(before))
        if isinstance(outcome, str):
            return outcome, (*file_columns, content_hash, *(None,) * 5, outcome)
        _, _, *columns = vars(outcome).values()  # all but the clip's path and type, in the order of OUTCOME
        return outcome, (*file_columns, *columns, None)

    def _recall_content(self, content_hash: str, settings: ClipSettings) -> StoredClip | None:
        """Return the clip of a file with the same bytes: this one was moved, copied or touched."""
        query = f"SELECT {OUTCOME} FROM files WHERE content_hash = ? AND settings = ? AND reason IS NULL"
        with open_index(self.folder) as index:
            outcome = index.execute(query, (content_hash, settings.key)).fetchone()
        return outcome and self._stored_clip(outcome, settings)

    def _decode(self, path: Path, content_hash: str, settings: ClipSettings) -> StoredClip:
        if probe(path).is_generated:
            raise AudioError(IS_GENERATED)
        partial = self.folder / "partial" / uuid.uuid4().hex
        target = clip_path(self.folder, content_hash, settings.key)
        with explain_cache_errors(self.folder), open_audio(path, settings.preparation, partial.parent) as audio:
            with partial.open("wb") as file:
                for block in audio.clip.blocks():
                    file.write(settings.quantizer.encode(block).tobytes())
            target.parent.mkdir(exist_ok=True)
            partial.replace(target)
            lengths = (audio.clip.n_samples, audio.source_seconds, audio.trimmed_seconds)
            warnings = "\n".join(audio.warnings)
            return StoredClip(target, settings.dtype, content_hash, *lengths, audio.clip.peak, warnings)

    def _remove_leftovers(self) -> None:
        oldest = time.time() - LEFTOVER_SECONDS
        for partial in (self.folder / "partial").iterdir():
            if partial.stat().st_mtime < oldest:
                partial.unlink(missing_ok=True)
