"""`wavegen bench`."""

from __future__ import annotations

from typing import Annotated

import typer

from wavegen.cli.console import print_json, print_notice, print_tables
from wavegen.cli.options import Json, Overrides, load_settings
from wavegen.errors import UsageError


def bench(
    source: Annotated[
        str | None, typer.Argument(metavar="[RUN|CHECKPOINT]", help="Measure with this model's shape and weights.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="A YAML file or a preset's name.  [default: small]")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine generates and trains."""
    from wavegen.bench.rows import measure
    from wavegen.device import processor_name
    from wavegen.report.speeds import machine_table, speed_tables
    from wavegen.trained import load

    if source is not None and (config is not None or overrides):
        raise UsageError("expected a run or a checkpoint, or --config and --set, found both; give one of them")
    trained = None if source is None else load(source, "cpu")
    settings = load_settings(config, list(overrides or [])) if trained is None else trained.config
    if settings.is_series:
        raise UsageError("bench: it measures models of sound, found output.kind: regression")
    machine, rows = measure(settings, None if trained is None else trained.network, print_notice)
    measured = list(rows)
    if as_json:
        print_json([row.as_dict() for row in measured])
    else:
        print_tables([machine_table(machine, processor_name()), *speed_tables(measured)])
