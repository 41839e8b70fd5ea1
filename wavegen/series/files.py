"""Read and write series of numbers: ``.npy`` arrays and ``.csv`` tables."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from wavegen.audio.read import SERIES_ENDINGS, suffix
from wavegen.audio.write import GENERATED
from wavegen.errors import DataError, UsageError
from wavegen.output_file import check_writable, write_output
from wavegen.text import pluralize, printable

FORECAST = "forecast"  # ends the headings of columns that wavegen wrote
DELIMITERS = ",;\t"
LARGEST, SMALLEST = 1e30, 1e-30  # sizes whose squares float32 and float64 still hold
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE | re.ASCII)

Values = npt.NDArray[np.float64]


class SeriesFile(NamedTuple):
    """The series of a file.

    Attributes:
        series: (T,) each, by its name in the file: a column's heading, or a row's number; "" where it is the only one.
        left_out: columns without numbers.
        is_forecast: written by ``wavegen forecast``.
    """

    series: dict[str, Values]
    left_out: tuple[str, ...] = ()
    is_forecast: bool = False

    def named(self, file: str) -> dict[str, Values]:
        """Return the series by names that are unique among files: the file's name, with the series' in brackets."""
        return {f"{file}[{name}]" if name else file: values for name, values in self.series.items()}


class _UnusableError(Exception):
    """A file that cannot be used.

    Args:
        what: was expected and found.
        line: of a text file; None for the whole file.
    """

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


def read_series(path: Path, takes_forecasts: bool = True) -> SeriesFile:
    """Read a file's series.

    An ``.npy`` file holds one series, (T,), or several, (N, T), one a row. In a ``.csv`` file time goes down, and each
    column is a series; the first line may name them. Columns without a single number, such as dates, are left out.

    Args:
        path: of the file.
        takes_forecasts: read files that ``write_series`` wrote.

    Raises:
        UsageError: there is no such file, or its name has another ending.
        DataError: it has no series, or a value is missing, not finite or not a number.
    """
    where = printable(path)
    if suffix(path.name) not in SERIES_ENDINGS:
        raise UsageError(f"{where}: expected series of numbers in a file that ends in .npy or .csv")
    try:
        found = _read_npy(path) if suffix(path.name) == ".npy" else _read_csv(path)
        if found.is_forecast and not takes_forecasts:
            raise _UnusableError("written by wavegen forecast, and no data; if it is data, rename its columns")
        for name, values in found.series.items():
            _check_size(name, values)
        return found
    except _UnusableError as error:
        raise DataError(f"{where}{'' if error.line is None else f':{error.line}'}: {error}") from None
    except FileNotFoundError:
        raise UsageError(f"{where}: expected a file of series, found none") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror or error})") from None


def try_series(path: Path, takes_forecasts: bool = True) -> SeriesFile | str:
    """Read a file's series as ``read_series``, or return why they cannot be used, without the file's name."""
    try:
        return read_series(path, takes_forecasts)
    except DataError as error:
        reason = str(error).removeprefix(printable(path))
        return reason[2:] if reason.startswith(": ") else f"line {reason[1:]}"


def _check_size(name: str, values: Values) -> None:
    largest = float(np.abs(values).max())
    if largest > LARGEST or 0 < largest < SMALLEST:
        series = f"series '{printable(name)}': " if name else ""
        sizes = f"between {SMALLEST:g} and {LARGEST:g} in size, found {largest:g} for the largest"
        raise _UnusableError(f"{series}expected values {sizes}; give them in another unit")


def _read_npy(path: Path) -> SeriesFile:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):  # numpy's message is about its own options
        raise _UnusableError("expected an array of numbers, as numpy.save writes it, found none or a part") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        found = getattr(array, "dtype", "several arrays")
        raise _UnusableError(f"expected an array of real numbers, found {found}")
    if array.ndim not in (1, 2):
        raise _UnusableError(f"expected the shape (T,) for a series or (N, T) for N of them, found {array.shape}")
    if not array.size:
        raise _UnusableError(f"expected a value or more, found the shape {array.shape}")
    rows = np.atleast_2d(np.asarray(array, dtype=np.float64))
    if not np.isfinite(rows).all():
        row, place = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        at = f"[{place}]" if array.ndim == 1 else f"[{row}, {place}]"
        raise _UnusableError(f"expected finite numbers, found {rows[row, place]} at {at}; fill it in or cut it off")
    series = {"": rows[0]} if array.ndim == 1 else {str(i): row for i, row in enumerate(rows)}
    with path.open("rb") as file:
        file.seek(-len(GENERATED), os.SEEK_END)
        return SeriesFile(series, is_forecast=file.read() == GENERATED.encode())


def _read_csv(path: Path) -> SeriesFile:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _UnusableError("expected a table in UTF-8, found other bytes; save it as UTF-8") from None
    first_line = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise _UnusableError(f"expected a table, found {error}", reader.line_num) from None
    if not rows:
        raise _UnusableError("expected a table of numbers, found an empty file")
    width = len(rows[0][1])
    for line, row in rows:
        if len(row) != width:
            expected = f"{pluralize(width, 'column')}, parted by {delimiter!r} as in line {rows[0][0]}"
            raise _UnusableError(f"expected {expected}, found {len(row)}", line)
    has_header = _has_header([row for _, row in rows])
    headings = rows[0][1] if has_header else [""] * width
    names = [heading or f"column {i}" for i, heading in enumerate(headings, start=1)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise _UnusableError(
            f"expected a heading of its own for each column, found '{printable(twice[0])}' twice", rows[0][0]
        )
    body = rows[1:] if has_header else rows
    columns = {name: [(line, row[i]) for line, row in body] for i, name in enumerate(names)}
    left_out = tuple(name for name, cells in columns.items() if all(_number(cell) is None for _, cell in cells))
    series = {name: _column(name, cells) for name, cells in columns.items() if name not in left_out}
    if not series:
        raise _UnusableError("expected a column of numbers (0.25 or 1e-3, without other marks), found none")
    is_forecast = all(heading.endswith(FORECAST) for heading in headings)
    return SeriesFile({"": next(iter(series.values()))} if len(series) == 1 else series, left_out, is_forecast)


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first line names the columns: words above numbers, or above dates."""
    if len(rows) < 2:
        return False

    def has_digit(cell: str) -> bool:
        return any(map(str.isdigit, cell))

    columns = list(zip(*rows, strict=True))
    words = [cells for cells in columns if cells[0] and _number(cells[0]) is None]  # "nan" is none
    if any(not has_digit(first) and all(map(has_digit, below)) for first, *below in words):
        return True
    has_numbers_below = any(_number(cell) is not None for row in rows[1:] for cell in row)
    return has_numbers_below and all(_number(cell) is None for cell in rows[0])


def _column(name: str, cells: Sequence[tuple[int, str]]) -> Values:
    values = []
    for line, cell in cells:
        value = _number(cell)
        if value is None or not math.isfinite(value):
            found = "an empty cell" if not cell else f"'{printable(cell)}'"
            where = f"column '{printable(name)}': expected a finite number"
            raise _UnusableError(f"{where}, found {found}; fill it in, or leave the line out", line)
        values.append(value)
    return np.array(values)


def _number(cell: str) -> float | None:
    return float(cell) if NUMBER.fullmatch(cell) else None


def check_output(output: str, overwrite: bool) -> None:
    """Check that forecasts can be written to a file.

    Raises:
        UsageError: another ending, an existing file, or no such folder.
    """
    if output == "-":
        return
    path = Path(output)
    if suffix(path.name) not in SERIES_ENDINGS:
        raise UsageError(f"{printable(path)}: expected a name that ends in .csv or .npy, or - for standard output")
    check_writable(path, overwrite)


def write_series(output: str, series: Mapping[str, npt.NDArray[np.floating]], standard_output: TextIO) -> None:
    """Write forecasts of one length, as ``read_series`` reads them; they are known for what they are.

    Args:
        output: a ``.csv`` or ``.npy`` file; - for CSV to standard output.
        series: (T,) each, by name; an ``.npy`` file of one series holds (T,), else (N, T).
        standard_output: where - is written.

    Raises:
        WavegenError: the file cannot be written; what was there before stays.
    """
    rows = np.stack([np.asarray(values, dtype=np.float64) for values in series.values()])
    if output == "-":
        standard_output.write(_table(series, rows))
        return
    content = io.BytesIO()
    if suffix(output) == ".npy":
        np.save(content, rows[0] if len(rows) == 1 else rows)
        content.write(GENERATED.encode())  # what is behind an array is not read
    else:
        content.write(_table(series, rows).encode())
    write_output(Path(output), content.getvalue())


def _table(names: Mapping[str, object], rows: Values) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f"{name.removesuffix(FORECAST).strip()} {FORECAST}".strip() for name in names])
    writer.writerows([[repr(value) for value in moment] for moment in rows.T.tolist()])
    return text.getvalue()
