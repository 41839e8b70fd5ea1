"""`wavegen bench`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.cli.console import print_json, print_notice, print_tables
from wavegen.cli.options import Json, Overrides, load_settings
from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.bench.rows import Machine, Row
    from wavegen.report.tables import Table


def bench(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[RUN|CHECKPOINT]", help="Model to measure.  [default: a new one from --config]"),
    ] = None,
    config: Annotated[str | None, typer.Option(help="Preset, or YAML file.  [default: small]")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine generates and trains.

    wavegen bench ; wavegen bench runs/my_recordings --json
    """
    from wavegen.api import load
    from wavegen.bench.rows import measure
    from wavegen.device import processor_name

    if source is not None and (config is not None or overrides):
        raise UsageError("expected a run or a checkpoint, or --config and --set, found both; give one of them")
    trained = None if source is None else load(source, "cpu")
    settings = load_settings(config, list(overrides or [])) if trained is None else trained.config
    if settings.output.kind == "regression":
        raise UsageError("bench: expected a model of sound, found output.kind: regression")
    machine, rows = measure(settings, None if trained is None else trained.network, print_notice)
    measured = list(rows)
    if as_json:
        print_json([row.as_dict() for row in measured])
    else:
        print_tables([_machine_table(machine, processor_name()), *_speed_tables(measured)])


def _machine_table(machine: Machine, processor: str) -> Table:
    from wavegen.report.tables import facts

    return facts(
        f"One core of {processor}",
        **{f"reads {name} weights": f"{rate / 1e9:.0f} GB/s" for name, rate in machine.bytes_per_second.items()},
        multiplies_and_adds=f"{2 * machine.multiply_adds_per_second / 1e9:.0f} GFLOP/s",
    )


def _speed_tables(rows: Sequence[Row]) -> list[Table]:
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
    from wavegen.report.tables import Table

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
