"""The command line parses, calls the other packages, and prints. Here: errors, exit codes and help of all commands."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from wavegen import __version__
from wavegen.cli.commands import bench, cache, config, export, forecast, inspect, report
from wavegen.cli.console import as_option, discard_notices, print_error, print_warning
from wavegen.cli.evaluate import evaluate
from wavegen.cli.generate import generate
from wavegen.cli.train import train
from wavegen.device import is_out_of_memory
from wavegen.errors import UsageError, WavegenError
from wavegen.text import expand_home, guide, list_in_full, printable

__all__ = ["app"]

SHARED_OPTIONS = ("debug", "quiet", "full")  # of the application, and of each command
EXPECTED = {"valid integer": "expected a whole number", "valid number": "expected a number"}  # by the parser's words
MOVED = {  # options of earlier versions, and the commands that replace them
    ("inspect", "--html"): "wavegen report RUN -o FILE.html",
    ("inspect", "--temperatures"): "wavegen report RUN --temperatures 0.95,1",
    ("inspect", "--sample-seconds"): "wavegen report RUN --sample-seconds 4",
    ("inspect", "--drop-cache"): "wavegen cache DIR --free",
}
LONGEST_PATH = 200  # characters of it in an error
ClickError: type[Exception] = typer.BadParameter.mro()[2]  # base of the parser's errors, which typer does not export


GUIDES = {  # for people, in wavegen/docs, by command
    **dict.fromkeys(("train", "generate"), "sound"),
    **dict.fromkeys(("evaluate", "report", "inspect"), "measure"),
    **{"forecast": "series", "bench": "speed", "export": "export", "config": "configuration", "cache": "how-it-works"},
}


class _Examples:
    """Help that ends with examples, from the docstring's last paragraph: ``wavegen ... ; wavegen ...``, and a guide."""

    help: str | None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 (click's signature)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text((self.help or "").partition("\n\nwavegen ")[0])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        examples = (self.help or "").partition("\n\nwavegen ")[2]
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in f"wavegen {examples}".replace("\n", " ").split(" ; ")))
        name = GUIDES.get(ctx.info_name or "")
        formatter.write(f"\nGuide: {guide(name)}\n" if name else f"\nGuides: {guide()}\n")


class Commands(_Examples, TyperGroup):
    """The group of commands; prints errors, and exits with 1 on failure, 2 on a wrong call, 128 + N on signal N."""

    def make_context(self, *arguments: Any, **settings: Any) -> Any:
        """Parse the options before the command."""
        try:
            return super().make_context(*arguments, **settings)
        except ClickError as error:
            raise _reported(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # the reader has closed the pipe: discard the interpreter's last flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            print_warning("stopped")
            raise typer.Exit(130) from None
        except (WavegenError, ClickError, OSError, MemoryError, RuntimeError, ImportError) as error:
            is_ours = isinstance(error, WavegenError | ClickError | OSError)
            if isinstance(error, typer.Exit) or not (is_ours or is_out_of_memory(error)):
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise _reported(error) from None


class Command(_Examples, TyperCommand):
    """A command: also takes the application's options, groups its options in the help, and rejects empty values."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the command's options, then the application's."""
        shared = ctx.parent.command.params if ctx.parent else []
        return [*super().get_params(ctx), *(each for each in shared if each.name in SHARED_OPTIONS)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse moved options before the others are parsed."""
        for option in (argument.partition("=")[0] for argument in args):
            if command := MOVED.get((self.name or "", option)):
                raise UsageError(f"{option}: this option has moved; use: {command}")
        return super().parse_args(ctx, [_with_home(argument) for argument in args])

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        for shared in SHARED_OPTIONS:
            if ctx.params.pop(shared, False):
                ctx.parent.params[shared] = True
        list_in_full(bool(ctx.parent and ctx.parent.params.get("full")))
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if "" in (value if isinstance(value, list | tuple) else [value]):  # an unset variable of a shell
                name = max(parameter.opts, key=len) if parameter.param_type_name == "option" else parameter.metavar
                raise UsageError(f"{name}: expected a value, found an empty one")
        with discard_notices() if ctx.parent and ctx.parent.params.get("quiet") else nullcontext():
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options group by group."""
        groups: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                is_option = parameter.param_type_name == "option"
                if not is_option:
                    record = (re.sub(r" <.*>$", "", record[0]), record[1])
                group = (getattr(parameter, "rich_help_panel", None) or "Options") if is_option else "Arguments"
                groups.setdefault(group, []).append(record)
        for group in sorted(groups, key=lambda name: name == "Options"):  # options without a group come last
            with formatter.section(group):
                formatter.write_dl(groups[group])


def _with_home(argument: str) -> str:
    """Replace a ~ that the shell left, as in ``--run=~/runs/new``."""
    option, path = re.fullmatch(r"(--[-\w]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    return f"{option}{expand_home(path)}" if path.startswith("~") else argument


def _reported(error: Exception) -> typer.Exit:
    """Print an error and return the exit for it."""
    if isinstance(error, OSError):  # not yet turned into a WavegenError
        path, text = printable(os.fsdecode(error.filename or ""))[:LONGEST_PATH], error.strerror or str(error)
        print_error(f"{path}: {text}" if path else text)  # the dynamic linker's has no number
        return typer.Exit(2 if error.errno == errno.ENAMETOOLONG else 1)
    if isinstance(error, WavegenError):
        print_error(error.worded(as_option))
        return typer.Exit(error.exit_code)
    if not isinstance(error, ClickError):
        print_error("out of memory; close other programs, raise ulimit -v, or lower the model or training.batch_size")
        return typer.Exit(1)
    message, ctx = error.format_message(), error.ctx  # type: ignore[attr-defined]
    if parsed := re.fullmatch(r"Invalid value for '([^']*)'[^:]*: (.*)", message, re.DOTALL):
        wanted = next((words for key, words in EXPECTED.items() if key in parsed[2]), parsed[2])
        message = f"{parsed[1]}: {wanted}"
    if possible := getattr(error, "possibilities", None):
        message = f"{message.partition(' (')[0]} (did you mean {possible[0]}?)"
    print_error(f"{message.rstrip('.')}; see {ctx.command_path} --help" if ctx else message)
    return typer.Exit(2)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wavegen {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def wavegen(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Print errors and results only: no notices, no progress.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show long lists in full.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Train a WaveNet on a folder of recordings and generate new raw audio from it.

    wavegen generate voice ; wavegen train my_recordings/ ; wavegen generate runs/my_recordings -o new.wav
    """
    del debug, quiet, full, version  # Commands, Command and _print_version use them
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (train, generate, forecast, evaluate, inspect, report, bench, export, config, cache):
    app.command(cls=Command)(command)
