"""Measured speeds as tables."""

from __future__ import annotations

from collections.abc import Sequence

from wavegen.bench.rows import Machine, Row
from wavegen.report.tables import Table, facts


def machine_table(machine: Machine, processor: str) -> Table:
    """What one core can do."""
    return facts(
        f"One core of {processor}",
        **{f"reads {name} weights": f"{rate / 1e9:.0f} GB/s" for name, rate in machine.bytes_per_second.items()},
        multiplies_and_adds=f"{2 * machine.multiply_adds_per_second / 1e9:.0f} GFLOP/s",
    )


def speed_table(rows: Sequence[Row]) -> Table:
    """A line for each measurement."""

    def line(row: Row) -> tuple[str, ...]:
        return (
            row.work,
            row.engine,
            row.precision,
            str(row.batch),
            str(row.threads),
            f"{row.samples_per_second:,.0f}",
            f"{row.times_real_time:.2f}",
            "" if row.share_of_limit is None else f"{100 * row.share_of_limit:.0f}%",
        )

    columns = ("work", "engine", "precision", "batch", "threads", "samples/s", "x real time", "of the limit")
    return Table("Speed (medians)", columns, [line(row) for row in rows])
