"""Shared by all commands: options, printing, progress bars, next commands. All but results goes to standard error."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from wavegen.errors import UsageError
from wavegen.text import format_duration, pluralize

if TYPE_CHECKING:
    from wavegen.config import Config
    from wavegen.data.corpus import Corpus

LINE_EVERY_SECONDS = 30.0  # of a progress bar where there is no terminal


def option(group: str, text: str, *names: str, **settings: Any) -> Any:
    """Return an option with its help text in a group; ``names`` by default as the parameter's, with two dashes."""
    return typer.Option(*names, help=text, rich_help_panel=group, **settings)


SOURCE_HELP = "Run folder, checkpoint file, or voice: the model that wavegen ships."
Source = Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help=SOURCE_HELP)]
Device = Annotated[
    str, option("Machine", "Device: auto, cpu, cuda, cuda:N or mps. CUDA and MPS: untested on hardware.")
]
Preset = Annotated[str | None, option("Configuration", "Preset, or YAML file.  [default: small]", "--config")]
Overrides = Annotated[
    list[str] | None, option("Configuration", "Override a configuration key; repeatable.", "--set", metavar="KEY=VALUE")
]
Json = Annotated[bool, option("Output", "Print JSON for programs.", "--json")]
Overwrite = Annotated[bool, option("Output", "Replace existing files.", "--overwrite")]


def as_option(parameter: str, value: object) -> str:
    """Return the option that sets a parameter of the library, ready to paste into a shell."""
    name = "--label" if parameter == "labels" else f"--{parameter.replace('_', '-')}"
    return name if value is None or value is True else f"{name} {shlex.quote(str(value))}"


def given_options(context: typer.Context) -> set[str]:
    """Return the names of the options on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse(given: set[str], what: str) -> None:
    """Raise if an option was given that does not go with something, such as a kind of model."""
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(given))
        raise UsageError(f"{options}: not with {what}; leave {'it' if len(given) == 1 else 'them'} out")


def load_settings(config: str | None, overrides: list[str]) -> Config:
    """Load the configuration of ``--config`` and ``--set``."""
    from wavegen.config import DEFAULT_PRESET, load_config

    return load_config(config or DEFAULT_PRESET, overrides)


# --- printing -----------------------------------------------------------------------------------------------------

_error_stream: TextIO | None = None  # standard error for error messages while notices are discarded


@contextmanager
def discard_notices() -> Iterator[None]:
    """Discard standard error, except for error messages."""
    global _error_stream
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        _error_stream = sys.stderr
        try:
            with redirect_stderr(nowhere):
                yield
        finally:
            _error_stream = None


def print_error(text: str) -> None:
    """Print an error, line by line, to standard error."""
    for line in text.splitlines():
        in_full = " (--full lists them)" if re.search(r"\band [\d,]+ more\b", line) else ""
        print_warning(f"error: {line}{in_full}")


def print_warning(text: str) -> None:
    """Print what a user must know, with ``--quiet`` too, to standard error."""
    _print_line(text, _error_stream or sys.stderr)


def print_notice(text: str) -> None:
    """Print a notice to standard error; standard output is for results."""
    _print_line(text, sys.stderr)


def _print_line(text: str, file: TextIO) -> None:
    """Print text; a progress bar, if there is one, is cleared for it and drawn again below."""
    tqdm = sys.modules.get("tqdm")
    with tqdm.tqdm.external_write_mode(file) if tqdm else nullcontext():
        typer.echo(text, file=file)


def print_json(document: Any) -> None:
    """Print a document as JSON; numbers that are not finite, which JSON lacks, become null."""
    finite = json.loads(json.dumps(document), parse_constant=lambda _: None)
    typer.echo(json.dumps(finite, indent=2))


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A progress line on standard error: one that moves on, on a terminal; without one, a line every half minute.

    Args:
        what: the activity, such as "generating".
        total: where the count ends; None where it does not.
        initial: where it begins.
        unit: of the count, in the singular.
    """

    def __init__(self, what: str, total: int | None, initial: int = 0, unit: str = "step") -> None:
        self.what, self.total, self.count, self.unit = what, total, initial, unit
        self.is_terminal = sys.stderr.isatty()
        self._began, self._initial, self._last_line, self._note = time.monotonic(), initial, time.monotonic(), ""
        from tqdm import tqdm

        count = f"{{n:,}} {unit}s" if total is None else f"{{n:,}} of {pluralize(total, unit)}, {{remaining}} left"
        look: dict[str, Any] = {"bar_format": f"{{desc}}{count}{{postfix}}", "dynamic_ncols": True}
        look |= {"leave": False, "disable": not self.is_terminal}
        self._bar = tqdm(desc=f"{what}: ", total=total, initial=initial, **look)
        if self.is_terminal and (self._bar.ncols or 80) < 0:  # a terminal of unknown size: tqdm would draw nothing
            self._bar.ncols, self._bar.nrows, self._bar.dynamic_ncols = 80, 24, False

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def advance(self, count: int) -> None:
        """Count further."""
        self.move_to(self.count + count)

    def move_to(self, count: int, note: str = "", more: str = "") -> None:
        """Show a new count, and a note after it; on a line, which may be longer than a terminal is wide, more too."""
        self._note = note or self._note
        if self._note:
            self._bar.set_postfix_str(self._note, refresh=False)
        self._bar.update(count - self.count)
        self.count = count
        if not self.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = time.monotonic()
            print_notice(", ".join(filter(None, [f"{self.what}: {self._count_text()}", self._note, more])))

    def rate(self, count: int | None = None) -> float:
        """Return counts per second so far, or up to a count."""
        return ((self.count if count is None else count) - self._initial) / max(1e-9, time.monotonic() - self._began)

    def describe(self, what: str) -> None:
        """Show the current activity, on a terminal."""
        self._bar.set_description(what)

    def _count_text(self) -> str:
        if self.total is None:
            return pluralize(self.count, self.unit)
        left = (self.total - self.count) / max(1e-9, self.rate()) if self.count > self._initial else math.inf
        return f"{self.count:,} of {pluralize(self.total, self.unit)}, {format_duration(left)} left"


def data_progress(what: str = "reading recordings", unit: str = "file") -> Any:
    """Return a progress callback that shows a bar from its first call to its last."""
    bars: list[ProgressBar] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(ProgressBar(what, total, unit=unit))
        bars[0].move_to(done)
        if done >= total:
            bars.pop().close()

    return progress


# --- commands to type next, ready to paste into a shell ----------------------------------------------------------


def resume_command(run: Path) -> str:
    """Return the command that resumes a run."""
    return shlex.join(["wavegen", "train", "--run", str(run), "--resume"])


def train_longer_command(run: Path) -> str:
    """Return the command that trains a finished run longer."""
    return f"{resume_command(run)} --minutes 30"


def forecast_command(run: str | Path, series: str = "series.csv", options: Sequence[str] = ()) -> str:
    """Return the command that forecasts series with a run's model."""
    return shlex.join(["wavegen", "forecast", str(run), series, *options])


def generate_command(run: Path, labels: tuple[str, ...], frames: str | None, corpus: Corpus[Any]) -> str:
    """Return the command that generates audio with a run's model.

    Args:
        run: its folder.
        labels: that its model knows; the first is taken, or that of the recording.
        frames: that the model is conditioned on, mel or features: those of a held-out recording, the auditions' one.
        corpus: the recordings.
    """
    from wavegen.data.corpus import TAIL, by_content

    clip = by_content(corpus.validation or corpus.train)[0]
    words = ["wavegen", "generate", str(run)]
    if labels:
        label = clip.label if frames and clip.label is not None else labels[0]
        words += [f"--label={label}"] if label.startswith("-") else ["--label", label]
    if frames == "mel":
        words += ["--mel-from", str(corpus.folder / clip.name.removesuffix(TAIL))]
    elif frames == "features":
        words += ["--features", str(clip.features.path)]
    return shlex.join([*words, "-o", "new.wav"])
