"""Display of a training: a progress bar, and lines for validations, auditions and notices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wavegen.audio.levels import RecordingProfile
from wavegen.audio.quantize import Floats
from wavegen.cli.console import ProgressBar, print_notice
from wavegen.evaluation.scores import loss_unit_in
from wavegen.report.models import held_out_text
from wavegen.runs.run_folder import Validation
from wavegen.sampling.verdict import Verdict, in_words
from wavegen.text import format_duration, pluralize, printable
from wavegen.training.progress import Observer, Progress


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

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def on_step(self, entry: dict[str, Any]) -> None:
        """Move the bar."""
        loss_unit, loss = loss_unit_in(entry), entry["train_loss"]
        if loss is None:
            print_notice(f"step {entry['step']:,}: the loss was not finite; the step is skipped")
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
        best = " (kept as the best: the last step)" if entry.get("is_best") else ""
        if loss < self._best:
            self._best, best = loss, " (best so far)"
        train = "" if self._train is None else f", train {loss_unit.format(self._train)}"
        scored = held_out_text(Validation.from_entry(entry))
        baselines = ", ".join(f"{name} {loss_unit.format(figure)}" for name, figure in entry["baselines"].items())
        losses = f"{shown} {self._unit}{scored}{best}{train}"
        print_notice(f"step {entry['step']:,}: {losses}; baselines: {baselines}")

    def on_audition(self, step: int, path: Path, waveform: Floats, sample_rate_hz: int) -> None:
        """Print the audition's path and its faults."""
        self.bar.describe("training")
        recordings = self._progress.recordings
        verdict = Verdict(sample_rate_hz, 1, None if recordings is None else RecordingProfile.from_dict(recordings))
        verdict.update(waveform[None])
        self.audition = verdict
        found = f": {in_words(faults)}" if (faults := verdict.faults()) else ""
        length = format_duration(len(waveform) / sample_rate_hz)
        print_notice(f"step {step:,}: audition {path}, {length}{self._in_turn}{found}")

    def on_wait(self, what: str, done: int, total: int) -> None:
        """Show the progress of a validation or an audition."""
        self.bar.describe(f"{what} {100 * done // total}%")

    def on_notice(self, text: str) -> None:
        """Print a line."""
        print_notice(text)
