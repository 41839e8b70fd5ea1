"""The index of the decode-once cache: the result of each file, for each of the settings it was decoded with."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wavegen.errors import DataError, UsageError
from wavegen.text import printable

BUSY_SECONDS = 60.0

SCHEMA = """
    CREATE TABLE IF NOT EXISTS files (
        path BLOB, settings TEXT, size INTEGER, mtime_ns INTEGER,
        content_hash TEXT, n_samples INTEGER,
        source_seconds REAL, missing_seconds REAL, trimmed_seconds REAL, peak REAL,
        reason TEXT,
        PRIMARY KEY (path, settings)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS files_by_content ON files (content_hash, settings);
"""
OUTCOME = "content_hash, n_samples, source_seconds, missing_seconds, trimmed_seconds, peak"
BELOW = "path >= ? AND path < ?"  # by `_below`

Row = tuple[bytes | str | int | float | None, ...]  # a file's columns, as in SCHEMA
Outcome = tuple[str, int, float, float, float, float]  # the columns of OUTCOME


class KnownFile(NamedTuple):
    """An entry of the index.

    Attributes:
        size, mtime_ns: of the file when it was read.
        reason: why it cannot be used; None if it can.
        outcome: its clip, if it can be used.
    """

    size: int
    mtime_ns: int
    reason: str | None
    outcome: Outcome


class CacheIndex:
    """An index that is open.

    Args:
        connection: to its file.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def of_file(self, path: Path, settings: str) -> KnownFile | None:
        """Return the entry of a file under some settings, if there is one."""
        query = f"SELECT size, mtime_ns, reason, {OUTCOME} FROM files WHERE path = ? AND settings = ?"
        row = self.connection.execute(query, (path_key(path), settings)).fetchone()
        return None if row is None else KnownFile(row[0], row[1], row[2], row[3:])

    def of_content(self, content_hash: str, settings: str) -> Outcome | None:
        """Return the outcome of a usable file with this content under some settings, if there is one."""
        query = f"SELECT {OUTCOME} FROM files WHERE content_hash = ? AND settings = ? AND reason IS NULL"
        outcome: Outcome | None = self.connection.execute(query, (content_hash, settings)).fetchone()
        return outcome

    def enter(self, rows: list[Row]) -> None:
        """Insert rows; the lock is held only meanwhile."""
        with self.connection:
            self.connection.executemany(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 11)})", rows)
        rows.clear()

    def below(self, folder: Path) -> list[tuple[bytes, str, str]]:
        """Return the usable files in a folder and below it: path, content's hash and settings of each."""
        query = f"SELECT path, content_hash, settings FROM files WHERE {BELOW} AND reason IS NULL"
        return self.connection.execute(query, _below(folder)).fetchall()

    def forget(self, folder: Path) -> None:
        """Remove the files in a folder and below it from the index."""
        with self.connection:
            self.connection.execute(f"DELETE FROM files WHERE {BELOW}", _below(folder))

    def contents(self) -> list[tuple[str, str]]:
        """Return the contents of the usable files: hash and settings of each."""
        query = "SELECT DISTINCT content_hash, settings FROM files WHERE reason IS NULL"
        return self.connection.execute(query).fetchall()


def cache_folder() -> Path:
    """Return the cache's folder: $WAVEGEN_CACHE, else $XDG_CACHE_HOME/wavegen, else ~/.cache/wavegen.

    Raises:
        UsageError: none is set and there is no home folder.
    """
    if chosen := os.environ.get("WAVEGEN_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "wavegen"
    try:
        return Path.home() / ".cache" / "wavegen"
    except RuntimeError as error:
        raise UsageError("no home folder to keep the cache in; set WAVEGEN_CACHE to a folder") from error


def index_path(cache: Path) -> Path:
    """Return where the index of the cache in a folder lies."""
    return cache / "index-1.sqlite3"


def clip_path(cache: Path, content_hash: str, settings: str) -> Path:
    """Return where the classes of files with this content and these settings lie."""
    name = hashlib.sha256(f"{content_hash} {settings}".encode()).hexdigest()
    return Path(f"{cache}/clips/{name[:2]}/{name[:40]}.classes")  # one join: this is called for every file


@contextmanager
def open_index(cache: Path, make: bool = False) -> Iterator[CacheIndex]:
    """Open the index of the cache in a folder.

    Args:
        cache: the folder.
        make: what the index lacks of its tables.

    Raises:
        DataError: as ``explain_cache_errors``, whatever is done while it is open.
    """
    with explain_cache_errors(cache), closing(sqlite3.connect(index_path(cache), timeout=BUSY_SECONDS)) as connection:
        if make:
            connection.executescript(SCHEMA)
        yield CacheIndex(connection)


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
        raise DataError(f"{index}: the cache is damaged ({error}); delete this file to build it anew") from error


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
    if not index_path(cache).is_file():
        return CachedFiles(0, 0)
    before, clips = cached_bytes_of(cache, folder), {clip for _, clip in _clips_of(cache, folder)}
    with open_index(cache) as index:
        index.forget(folder)
        for clip in clips - {clip_path(cache, *content) for content in index.contents()}:  # other folders' copies stay
            clip.unlink(missing_ok=True)
    return before


def _clips_of(cache: Path, folder: Path) -> list[tuple[bytes, Path]]:
    """Return each file below a folder that the index knows, and where its classes are."""
    if not index_path(cache).is_file():
        return []
    with open_index(cache, make=True) as index:
        return [(path, clip_path(cache, *content)) for path, *content in index.below(folder)]


def _size(path: Path) -> int:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
