"""Measured speeds as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wavegen.bench.rows import Machine, Row
from wavegen.report.tables import Table, facts


def machine_table(machine: Machine, processor: str) -> Table:
    """What one core can do."""
    return facts(
        f"One core of {processor}",
        **{f"reads {name} weights": f"{rate / 1e9:.0f} GB/s" for name, rate in machine.bytes_per_second.items()},
        multiplies_and_adds=f"{2 * machine.multiply_adds_per_second / 1e9:.0f} GFLOP/s",
    )


def speed_tables(rows: Sequence[Row]) -> list[Table]:
    """A line for each measurement."""
    return [
        _table(rows, "generate", "Generating (medians)", ("samples/s", "x real time", "of the limit"), _generating),
        _table(
            rows,
            "train",
            "Training (medians)",
            ("targets/s", "input steps/s", "of its matrix products", "memory"),
            _training,
        ),
    ]


def _table(
    rows: Sequence[Row], work: str, title: str, columns: tuple[str, ...], cells: Callable[[Row], tuple[str, ...]]
) -> Table:
    lines = [
        (row.engine, row.precision, str(row.batch), str(row.threads), *cells(row)) for row in rows if row.work == work
    ]
    return Table(title, ("", "precision", "batch", "threads", *columns), lines)


def _generating(row: Row) -> tuple[str, ...]:
    return f"{row.samples_per_second:,.0f}", f"{row.times_real_time:.2f}", _share(row)


def _training(row: Row) -> tuple[str, ...]:
    memory = "" if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 1e9:.2f} GB"
    return f"{row.samples_per_second:,.0f}", f"{row.input_steps_per_second or 0.0:,.0f}", _share(row), memory


def _share(row: Row) -> str:
    return "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f}%"
