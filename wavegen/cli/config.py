"""`wavegen config`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wavegen.cli.console import print_tables
from wavegen.errors import UsageError


def config(
    preset: Annotated[str | None, typer.Argument(metavar="[PRESET]", help="Preset to print.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema, for editors.")] = False,
) -> None:
    """List the presets, or print one to edit.

    wavegen config ; wavegen config small > my.yaml
    """
    from wavegen.config import json_schema, preset_summaries, preset_text
    from wavegen.report.tables import Table

    if schema:
        if preset is not None:
            raise UsageError("--schema: the schema is the same for all presets; leave out the preset or --schema")
        typer.echo(json.dumps(json_schema(), indent=2))
    elif preset is not None:
        typer.echo(preset_text(preset), nl=False)
    else:
        print_tables([Table("Presets: wavegen config NAME > my.yaml", (), list(preset_summaries().items()))])
