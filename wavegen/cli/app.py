"""The application: what every command has of errors, exit codes, and help."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wavegen import __version__
from wavegen.cli.console import print_error, shorten_path
from wavegen.errors import ParameterError, UsageError, WavegenError


class Commands(TyperGroup):
    """Turns errors into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit codes: 1 failed, 2 wrong call, 128 + N stopped by signal N."""
        try:
            return super().invoke(ctx)
        except WavegenError as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            print_error(error.worded(as_option) if isinstance(error, ParameterError) else str(error))
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            _drop_standard_output()
            raise typer.Exit(0) from None
        except OSError as error:  # that nobody has put into words
            if ctx.params.get("debug"):
                traceback.print_exc()
            print_error(f"{shorten_path(error.filename)}: {error.strerror}" if error.filename else str(error.strerror))
            raise typer.Exit(2 if error.errno == errno.ENAMETOOLONG else 1) from None
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise typer.Exit(130) from None


class Command(TyperCommand):
    """Refuses empty texts: what an unset variable of a shell becomes is no name of the folder one is in."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if "" in (value if isinstance(value, list | tuple) else [value]):
                name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
                raise UsageError(f"{name}: expected a value, found an empty one")
        return super().invoke(ctx)


def as_option(parameter: str, value: object) -> str:
    """Return the option that sets a parameter of the library."""
    name = "--label" if parameter == "labels" else f"--{parameter.replace('_', '-')}"
    return name if value is None else f"{name} {value}"


def _drop_standard_output() -> None:
    """Whoever read from the pipe has gone: let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wavegen {__version__}")
        raise typer.Exit


@app.callback()
def wavegen(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Train a WaveNet on a folder of recordings and generate new raw audio from it.

    wavegen generate demo ; wavegen train my_recordings/ ; wavegen generate runs/my_recordings -o new.wav
    """
    del debug, version  # Commands.invoke and _print_version look at them
