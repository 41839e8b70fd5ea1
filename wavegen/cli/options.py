"""Options that several commands share, and checks of options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.config import Config

# Groups of options in --help.
SOUND, CHOICE, CONDITIONING, OUTPUT, MACHINE = "Sound", "Choice", "Conditioning", "Output", "Machine"
RUN, TRAINING = "Run", "Training"

Source = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CHECKPOINT", help="Run folder, checkpoint file, or demo: the model that wavegen ships."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE)]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a configuration key; repeat the option for further keys."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", rich_help_panel=OUTPUT)]


def given_options(context: typer.Context) -> set[str]:
    """Return the names of the options on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse(given: set[str], allowed: set[str], what: str) -> None:
    """Raise if an option was given that this kind of model does not have."""
    if strange := sorted(given - allowed):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in strange)
        raise UsageError(f"{options}: not with {what}; leave {'it' if len(strange) == 1 else 'them'} out")


def load_settings(config: str | None, overrides: list[str]) -> Config:
    """Load the configuration of ``--config`` and ``--set``."""
    from wavegen.config import DEFAULT_PRESET, load_config

    return load_config(config or DEFAULT_PRESET, overrides)
