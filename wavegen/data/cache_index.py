"""The index of the decode-once cache: what became of each file, for each of the settings it was decoded with."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from wavegen.errors import DataError
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
    """What is known of a file.

    Attributes:
        size, mtime_ns: when it was read.
        reason: why it cannot be used; None if it can.
        outcome: what it gave, if it can.
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
        """What is known of a file under some settings, if anything."""
        query = f"SELECT size, mtime_ns, reason, {OUTCOME} FROM files WHERE path = ? AND settings = ?"
        row = self.connection.execute(query, (path_key(path), settings)).fetchone()
        return None if row is None else KnownFile(row[0], row[1], row[2], row[3:])

    def of_content(self, content_hash: str, settings: str) -> Outcome | None:
        """What a file with this content gave under some settings, if there was one that can be used."""
        query = f"SELECT {OUTCOME} FROM files WHERE content_hash = ? AND settings = ? AND reason IS NULL"
        outcome: Outcome | None = self.connection.execute(query, (content_hash, settings)).fetchone()
        return outcome

    def enter(self, rows: list[Row]) -> None:
        """Move rows into the index; the lock is held for no longer than that."""
        with self.connection:
            self.connection.executemany(f"INSERT OR REPLACE INTO files VALUES ({', '.join('?' * 11)})", rows)
        rows.clear()

    def below(self, folder: Path) -> list[tuple[bytes, str, str]]:
        """The usable files in a folder and below it: of each the path, the content's hash and the settings."""
        query = f"SELECT path, content_hash, settings FROM files WHERE {BELOW} AND reason IS NULL"
        return self.connection.execute(query, _below(folder)).fetchall()

    def forget(self, folder: Path) -> None:
        """Take out the files in a folder and below it."""
        with self.connection:
            self.connection.execute(f"DELETE FROM files WHERE {BELOW}", _below(folder))

    def contents(self) -> list[tuple[str, str]]:
        """What the usable files hold: hashes of contents, each with settings."""
        query = "SELECT DISTINCT content_hash, settings FROM files WHERE reason IS NULL"
        return self.connection.execute(query).fetchall()


def index_path(cache: Path) -> Path:
    """Where the index of the cache in a folder lies."""
    return cache / "index-1.sqlite3"


@contextmanager
def open_index(cache: Path, make: bool = False) -> Iterator[CacheIndex]:
    """Open the index of the cache in a folder.

    Args:
        cache: the folder.
        make: what the index lacks of its tables.

    Raises:
        DataError: as ``errors_explained``, whatever is done while it is open.
    """
    with errors_explained(cache), closing(sqlite3.connect(index_path(cache), timeout=BUSY_SECONDS)) as connection:
        if make:
            connection.executescript(SCHEMA)
        yield CacheIndex(connection)


@contextmanager
def errors_explained(cache: Path) -> Iterator[None]:
    """Turn what goes wrong with the cache in a folder into one line.

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
    """A file's path as the index has it."""
    return os.fsencode(path.absolute())


def _below(folder: Path) -> tuple[bytes, bytes]:
    """The range of path keys of a folder's files, for BELOW."""
    key = path_key(folder).rstrip(b"/")
    return key + b"/", key + bytes([ord("/") + 1])
