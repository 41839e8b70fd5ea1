"""Progress of long work: a line that moves on, on a terminal; without one, a line every half minute."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wavegen.audio.levels import RecordingProfile
from wavegen.evaluation import loss_unit_in
from wavegen.report.models import held_out_text
from wavegen.report.scores import too_little_text
from wavegen.runs.run_folder import Validation
from wavegen.sampling.verdict import Verdict, in_words
from wavegen.text import format_duration, pluralize, printable
from wavegen.training.progress import Observer, Progress

LINE_EVERY_SECONDS = 30.0  # where there is no terminal


class ProgressBar:
    """A progress line on standard error.

    Args:
        what: the activity, such as "generating".
        total: where the count ends; None where it does not.
        initial: where it begins.
        unit: of the count, in the singular.
        file: where to draw; standard error by default.
    """

    def __init__(
        self, what: str, total: int | None, initial: int = 0, unit: str = "step", file: TextIO | None = None
    ) -> None:
        self.what, self.total, self.count, self.unit = what, total, initial, unit
        self.file = file or sys.stderr
        self.is_terminal = self.file.isatty()
        self._began, self._initial, self._last_line, self._note = time.monotonic(), initial, time.monotonic(), ""
        count = f"{{n:,}} {unit}s" if total is None else f"{{n:,}} of {pluralize(total, unit)}, {{remaining}} left"
        look: dict[str, Any] = {"bar_format": f"{{desc}}{count}{{postfix}}", "dynamic_ncols": True}
        look |= {"leave": False, "file": self.file, "disable": not self.is_terminal}
        self._bar = tqdm(desc=f"{what}: ", total=total, initial=initial, **look)
        if self.is_terminal and (self._bar.ncols or 80) < 0:  # a terminal of unknown size: tqdm would draw nothing
            self._bar.ncols, self._bar.nrows, self._bar.dynamic_ncols = 80, 24, False

    def __enter__(self) -> ProgressBar:
        return self

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
            self.print_line(", ".join(filter(None, [f"{self.what}: {self._count_text()}", self._note, more])))

    def rate(self, count: int | None = None) -> float:
        """Return counts per second so far, or up to a count."""
        return ((self.count if count is None else count) - self._initial) / max(1e-9, time.monotonic() - self._began)

    def describe(self, what: str) -> None:
        """Show the current activity, on a terminal."""
        self._bar.set_description(what)

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        if self.is_terminal:
            self._bar.write(text, file=self.file)
        else:
            print(text, file=self.file, flush=True)

    def _count_text(self) -> str:
        if self.total is None:
            return pluralize(self.count, self.unit)
        left = (self.total - self.count) / max(1e-9, self.rate()) if self.count > self._initial else math.inf
        return f"{self.count:,} of {pluralize(self.total, self.unit)}, {format_duration(left)} left"


class TrainingDisplay(Observer):
    """Prints a training's progress, validations, auditions and notices.

    Args:
        total_steps: of the training.
        progress: of the training so far.
        unit: of its figures: bits/sample, and in which classes.
        labels: whose sounds stand in an audition, one behind the other.
    """

    def __init__(self, total_steps: int, progress: Progress, unit: str, labels: Sequence[str] = ()) -> None:
        self._unit, self._progress = unit, progress
        self._in_turn = f" ({', then '.join(map(printable, labels))})" if len(labels) > 1 else ""
        self.audition: Verdict | None = None  # on the last audition, once there is one
        self._classes = unit.removeprefix("bits/sample").strip()  # empty for the usual ones
        self.bar = ProgressBar("training", total_steps, progress.step, "step")
        self._train: float | None = None
        self._held_out = ""
        self._best = math.inf if progress.best_loss is None else progress.best_loss
        self._has_warned = False  # of too little held-out audio

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def on_step(self, entry: dict[str, Any]) -> None:
        """Move the bar."""
        loss_unit, loss = loss_unit_in(entry), entry["train_loss"]
        if loss is None:
            self.bar.print_line(f"step {entry['step']:,}: the loss was not finite; the step is skipped")
        else:
            self._train = loss if self._train is None else 0.98 * self._train + 0.02 * loss
        train = "" if self._train is None else f"train {loss_unit.format(self._train)}"
        skipped = f"{entry['skipped']} skipped" if entry["skipped"] else ""
        points = entry.get("points_seen")
        seen = f"{entry['hours_of_audio']:.2f} h of audio" if points is None else pluralize(points, "point")
        more = [self._classes, f"{entry['targets_per_second'] / 1000:.0f}k targets/s", seen]
        note = ", ".join(filter(None, [train, self._held_out, skipped]))
        self.bar.move_to(entry["step"], note, ", ".join(filter(None, more)))

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Print the held-out loss and the trivial baselines."""
        self.bar.describe("training")
        loss_unit, loss = loss_unit_in(entry), entry["validation_loss"]
        shown = loss_unit.format(loss)
        self._held_out = f"held-out {shown}"
        best = " (best so far)" if loss < self._best else ""
        self._best = loss if best else self._best
        train = "" if self._train is None else f", train {loss_unit.format(self._train)}"
        scored = held_out_text(Validation.from_entry(entry))
        baselines = ", ".join(f"{name} {loss_unit.format(figure)}" for name, figure in entry["baselines"].items())
        losses = f"{shown} {self._unit}{scored}{best}{train}"
        self.bar.print_line(f"step {entry['step']:,}: {losses}; baselines: {baselines}")
        if (warning := too_little_text(entry.get("held_out_seconds"))) and not self._has_warned:
            self._has_warned = True
            self.bar.print_line(warning)

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Print the audition's path and its faults."""
        self.bar.describe("training")
        recordings = self._progress.recordings
        verdict = Verdict(sample_rate_hz, 1, None if recordings is None else RecordingProfile.from_dict(recordings))
        verdict.update(waveform[None])
        self.audition = verdict
        found = f": {in_words(faults)}" if (faults := verdict.faults()) else ""
        length = format_duration(len(waveform) / sample_rate_hz)
        self.bar.print_line(f"step {step:,}: audition {path}, {length}{self._in_turn}{found}")

    def on_wait(self, what: str, done: int, total: int) -> None:
        """Show the progress of a validation or an audition."""
        self.bar.describe(f"{what} {100 * done // total}%")

    def on_notice(self, text: str) -> None:
        """Print a line."""
        self.bar.print_line(text)
