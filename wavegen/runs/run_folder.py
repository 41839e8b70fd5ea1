"""A run: the folder of one training, and its history, which is read from its metrics.

config.yaml              complete and frozen
metrics.jsonl            a line for each step and for each validation: ``History``
checkpoints/             step-00000500.safetensors, ... and best.safetensors
auditions/               step-00002000.wav and .png, ...
tensorboard/             event files, where TensorBoard is installed
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import glob
import json
import math
import os
import re
import shlex
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

from wavegen.audio.read import NEEDS_CONVERSION, READABLE, find_audio, is_run
from wavegen.errors import CheckpointError, TrainingError, UsageError
from wavegen.evaluation.scores import BITS, LossUnit, loss_unit_in
from wavegen.output_file import write_atomically
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, with_current_keys
from wavegen.text import list_first

RECENT_STEPS = 100  # their mean smooths the training loss and the speed
THIS_MODEL = "this model"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_STEP_FILE = re.compile(r"step-(\d+)\.safetensors")
RUNS = "runs"  # the folder of all runs by default
MOST_NAMES = 3  # of sources, in the name of their run
SHIPPED_NAMES = ("voice", "demo")  # of one model; the second is its old name
SHIPPED_MODEL = Path(__file__).parents[1] / "models" / "voice.safetensors"


class RunFolder:
    """The files of one run.

    Args:
        path: of the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.auditions = path / "auditions"
        self.best_checkpoint = self.checkpoints / "best.safetensors"
        self._unwritten: list[str] = []  # lines of metrics that found the disk full

    def check_new(self) -> None:
        """Check that a new run can begin here.

        Raises:
            UsageError: the folder is not empty, or is a file.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        if not is_run(self.path):
            found = "a file" if self.path.is_file() else "one that is not empty and no run"
            raise UsageError(f"{self.path}: expected a new folder for the run, found {found}; choose another")
        others = (self.path.with_name(f"{self.path.name}-{number}") for number in count(2))
        free = next(path for path in others if not path.exists())
        resume = shlex.join(["wavegen", "train", "--run", str(self.path), "--resume"])
        text = f"{self.path}: this run folder is not empty; continue with {resume}, or choose another: {{run}}"
        raise UsageError(text, {"run": str(free)})

    def create(self, config_yaml: str) -> None:
        """Make the folder.

        Raises:
            UsageError: it has something in it, or cannot be made.
        """
        self.check_new()
        try:
            self.checkpoints.mkdir(parents=True)
            self.write_config(config_yaml)
        except OSError as error:
            raise UsageError(f"{self.path}: cannot make the run folder: {error.strerror}; choose another") from None

    def write_config(self, config_yaml: str) -> None:
        """Write ``config.yaml`` whole or not at all."""
        write_atomically(self.config_file, config_yaml.encode())

    def numbered_checkpoints(self) -> list[tuple[int, Path]]:
        """Return the step and the path of each numbered checkpoint, oldest first."""
        files = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return sorted((int(match[1]), path) for path in files if (match := _STEP_FILE.fullmatch(path.name)))

    def step_checkpoints(self) -> list[Path]:
        """Return the numbered checkpoints, oldest first."""
        return [path for _, path in self.numbered_checkpoints()]

    def save(self, checkpoint: Checkpoint, keep_last: int) -> Path:
        """Write a numbered checkpoint and delete all but the newest ``keep_last``.

        Raises:
            CheckpointError: it cannot be written; the older ones stay.
        """
        if problem := self._write_lines():  # a checkpoint's metrics are there before it is
            raise CheckpointError(problem)
        for leftover in (*self.path.glob(".*.tmp"), *self.path.glob("*/.*.tmp")):  # left by a kill
            leftover.unlink(missing_ok=True)
        path = self.checkpoints / f"step-{checkpoint.step:08d}.safetensors"
        save_checkpoint(checkpoint, path)
        for old in self.step_checkpoints()[:-keep_last]:
            old.unlink(missing_ok=True)
        return path

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint that the run is used by: the best so far.

        Raises:
            CheckpointError: it cannot be written; the one before stays.
        """
        save_checkpoint(checkpoint, self.best_checkpoint)

    def audition_file(self, step: int) -> Path:
        """Return the file for the audition of a step."""
        return self.auditions / f"step-{step:08d}.wav"

    def load_newest(self) -> tuple[Checkpoint, list[str]]:
        """Load the newest checkpoint that is whole.

        Returns:
            The checkpoint, and a sentence for each newer one that is damaged.

        Raises:
            UsageError: the folder has no checkpoint, or it is one itself; or the newest is for inference only.
            CheckpointError: it has none that is whole.
        """
        if self.path.is_file():
            remedy = f"start a new run from it: wavegen train DIR --init-from {self.path}"
            raise UsageError(f"{self.path}: expected a run folder to resume, found a file; {remedy}")
        damaged: list[str] = []
        for path in reversed(self.step_checkpoints()):
            try:
                checkpoint = load_checkpoint(path)
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            if checkpoint.is_for_use_only:
                remedy = f"start a new run from it: wavegen train DIR --init-from {path}"
                raise UsageError(f"{path}: exported for inference, no training resumes from it; {remedy}")
            return checkpoint, damaged
        if damaged:
            raise CheckpointError(damaged[0])
        problem = f"nothing to resume: expected a checkpoint in {self.checkpoints}, found none"
        start = shlex.join(["wavegen", "train", "DIR", "--run", str(self.path)])
        raise UsageError(f"{self.path}: {problem}; start with {start}")

    def append_metrics(self, entry: dict[str, Any]) -> str | None:
        """Append a line to ``metrics.jsonl``.

        Returns:
            None, or a sentence when the disk has just become full: the lines are then kept and written later.

        Raises:
            TrainingError: it cannot be written for another reason.
        """
        was_full = bool(self._unwritten)
        self._unwritten.append(json.dumps(entry) + "\n")
        problem = self._write_lines()
        return None if was_full else problem

    def _write_lines(self) -> str | None:
        """Write the pending lines, all or none; return a warning if the disk is full."""
        if not self._unwritten:
            return None
        try:
            before = self.metrics_file.stat().st_size if self.metrics_file.exists() else 0
            try:
                with self.metrics_file.open("a", encoding="utf-8") as file:
                    file.writelines(self._unwritten)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(self.metrics_file, before)
                raise
        except OSError as error:
            if error.errno in DISK_FULL:
                return f"{self.metrics_file}: the disk is full; make room: the next step writes the missing lines"
            raise TrainingError(f"{self.metrics_file}: cannot be written: {error.strerror}") from None
        self._unwritten.clear()
        return None

    def metrics(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of ``metrics.jsonl``; damaged ones are left out."""
        if not self.metrics_file.is_file():
            return
        with self.metrics_file.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                    yield with_current_keys(entry)

    def prepare(self, config_yaml: str, step: int) -> None:
        """Prepare the folder to resume at a step: its configuration, and metrics and checkpoints up to there.

        Newer checkpoints, which are damaged, are renamed to ``*.damaged``: they must not count among the newest.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            self.write_config(config_yaml)
            self.cut_metrics(step)
            for newer in [path for number, path in self.numbered_checkpoints() if number > step]:
                newer.replace(newer.with_name(f"{newer.name}.damaged"))
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror}; make room") from None

    def cut_metrics(self, step: int) -> None:
        """Truncate ``metrics.jsonl`` after a step."""
        kept = [entry for entry in self.metrics() if entry["step"] <= step]
        write_atomically(self.metrics_file, "".join(json.dumps(entry) + "\n" for entry in kept).encode())


def run_of(sources: Sequence[str]) -> RunFolder:
    """Return the default run folder of a training: ``runs/`` and the names of its data.

    Args:
        sources: folders and files that are trained on, or the name of synthetic series. A file alone gives its name,
            without the ending, and files among others that of their folder.
    """
    paths = [Path(os.path.normpath(Path(source).absolute())) for source in sources]
    names: dict[str, None] = {}
    for path in paths:
        is_pattern = glob.has_magic(path.name) and not path.exists()
        if is_pattern or (path.is_file() and len(paths) > 1):
            path = path.parent
        names[path.stem if path.is_file() else path.name] = None
    return RunFolder(Path(RUNS) / ("-".join([name for name in names if name][:MOST_NAMES]) or "recordings"))


def find_runs(folder: Path) -> list[Path]:
    """Return the runs that lie in a folder."""
    try:
        return sorted(path for path in folder.iterdir() if is_run(path))
    except OSError:  # it may not be listed
        return []


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint at a path: a run's best, else its newest; or the file itself.

    The bare name ``voice``, or its old one, ``demo``, means the model that wavegen ships, unless something else has
    that name: a file, a run, recordings, or the run of recordings in ``runs/``.

    Raises:
        UsageError: there is nothing at the path, or no checkpoint in the folder.
    """
    run, ending = RunFolder(path), path.suffix.lower()
    if path.is_file() and ending not in (".yaml", ".yml", *READABLE, *NEEDS_CONVERSION):
        return path
    if run.best_checkpoint.is_file():
        return run.best_checkpoint
    if numbered := run.step_checkpoints():
        return numbered[-1]
    own = run_of([str(path)]).path  # of recordings with this name
    has_own = is_run(path) or is_run(own) or (path.is_dir() and not find_runs(path) and bool(find_audio(path).names))
    if str(path) in SHIPPED_NAMES and not has_own:  # `make demo` writes its run and its audio into demo/
        return SHIPPED_MODEL
    meant = f"; did you mean {own}?" if is_run(own) else ""
    if path.is_file():
        train = f"a model comes of training: wavegen train DIR --config {path}"
        found = f"a configuration; {train}" if ending in (".yaml", ".yml") else "a recording; train a model on it first"
    elif runs := find_runs(path):
        found = f"a folder of runs; give one of them: {list_first(map(str, runs))}"
    elif path.is_dir() and not is_run(path) and find_audio(path).names:
        found = f"recordings and no model{meant or f'; train one: wavegen train {path}'}"
    elif path.is_dir():
        found = f"a folder without checkpoints in {run.checkpoints}"
    else:
        near = difflib.get_close_matches(str(path).lower(), SHIPPED_NAMES, n=1, cutoff=0.7)
        shipped = f"; did you mean '{near[0]}', the model that wavegen ships?" if near else ""
        found = f"nothing{meant or shipped or '; train one first: wavegen train DIR'}"
    raise UsageError(f"{path}: expected a run folder or a checkpoint, found {found}")


# --- history --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Validation:
    """A validation, and the training up to it.

    Attributes:
        step: of the training.
        loss: on held-out clips, in the unit of ``loss_unit``; None where it was not finite.
        baselines: the same of the trivial baselines, on the same clips.
        held_out_seconds, all_held_out_seconds: of the audio that was scored, and of all that is held out.
        held_out_points: of the series that were scored.
        train_loss: mean of the training loss since the validation before; None in a checkpoint, which has no history.
        seen: what was trained on by then, as ``Task.trained_on``.
        minutes_trained: by then.
        frames_gain: bits/sample that the right frames save against shuffled ones; None where that was not measured.
        loss_unit: what the losses are.
        is_best: its weights were kept as the best; None in runs of older versions.
    """

    step: int
    loss: float | None
    baselines: dict[str, float | None]
    held_out_seconds: float | None = None
    all_held_out_seconds: float | None = None
    held_out_points: int | None = None
    train_loss: float | None = None
    seen: float | None = None
    minutes_trained: float | None = None
    frames_gain: float | None = None
    loss_unit: LossUnit = BITS
    is_best: bool | None = None

    @classmethod
    def from_entry(cls, entry: dict[str, Any], **training: Any) -> Validation:
        """Read a validation's line of ``metrics.jsonl``.

        Runs of older versions have a second loss in the last one, on all held-out audio, and baselines of the same:
        those two compare.
        """
        loss = entry.get("held_out_loss")
        return cls(
            step=entry["step"],
            loss=finite(entry["validation_loss"] if loss is None else loss),
            baselines={name: finite(each) for name, each in entry.get("baselines", {}).items()},
            held_out_seconds=entry.get("held_out_seconds") if loss is None else None,
            all_held_out_seconds=entry.get("all_held_out_seconds"),
            held_out_points=entry.get("held_out_points"),
            frames_gain=finite(entry.get("frames_gain")),
            loss_unit=loss_unit_in(entry),
            is_best=entry.get("is_best"),
            **training,
        )

    def ranking(self) -> list[tuple[str, float | None]]:
        """Return the model, as ``THIS_MODEL``, among the trivial baselines; the worst first."""
        models = {**self.baselines, THIS_MODEL: self.loss}
        return sorted(models.items(), key=lambda item: -math.inf if item[1] is None else -item[1])


@dataclass
class History:
    """A training's steps and validations, in order.

    Attributes:
        steps: their numbers; the lists below run parallel.
        train: the loss of each step's batch; None where it was not finite.
        learning_rates: of each step.
        speeds: targets per second of each step.
        seen: up to each step, as ``Task.trained_on``.
        epochs: passes over the training data by the last step; 0 where that was not recorded.
        seconds: of training, up to each step.
        skipped: steps so far whose loss was not finite.
        validations: every one.
        loss_unit: what the losses are.
    """

    steps: list[int] = field(default_factory=list)
    train: list[float | None] = field(default_factory=list)
    learning_rates: list[float | None] = field(default_factory=list)
    speeds: list[float | None] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    epochs: float = 0.0
    seconds: list[float] = field(default_factory=list)
    skipped: int = 0
    validations: list[Validation] = field(default_factory=list)
    loss_unit: LossUnit = BITS

    @property
    def step(self) -> int:
        """The last step."""
        return self.steps[-1] if self.steps else 0

    @property
    def minutes_trained(self) -> float:
        """Minutes of training so far."""
        return self.seconds[-1] / 60 if self.seconds else 0.0

    @property
    def scored(self) -> list[tuple[Validation, float]]:
        """The validations that have a finite loss, each with its loss."""
        return [(each, each.loss) for each in self.validations if each.loss is not None]

    @property
    def best(self) -> Validation | None:
        """The validation whose weights were kept as the best: that with the lowest loss, or the last of a training."""
        if kept := [each for each in self.validations if each.is_best]:
            return kept[-1]
        return min(self.scored, key=lambda item: item[1], default=(None, 0.0))[0]

    @property
    def recent(self) -> list[float]:
        """The training loss of the last steps where it was finite."""
        return list(deque((loss for loss in self.train if loss is not None), maxlen=RECENT_STEPS))

    @property
    def recent_speeds(self) -> list[float]:
        """Targets per second of the last steps, skipped ones too."""
        return [speed for speed in self.speeds[-RECENT_STEPS:] if speed is not None]

    @property
    def baselines(self) -> dict[str, float]:
        """The trivial baselines on what every validation scores, the highest first."""
        figures = self.validations[-1].baselines if self.validations else {}
        known = {name: figure for name, figure in figures.items() if figure is not None}
        return dict(sorted(known.items(), key=lambda item: -item[1]))


def read_history(path: Path) -> History:
    """Read the metrics of a run folder; it may have none yet."""
    history = History()
    since: list[float] = []  # the training loss since the last validation
    for entry in RunFolder(path).metrics():
        history.loss_unit = loss_unit_in(entry)
        if "train_loss" in entry:
            loss = finite(entry["train_loss"])
            history.steps.append(entry["step"])
            history.train.append(loss)
            history.learning_rates.append(finite(entry.get("learning_rate")))
            history.speeds.append(finite(entry.get("targets_per_second")))
            history.seen.append(entry["hours_of_audio"] if history.loss_unit.is_bits else entry["points_seen"])
            history.epochs = entry.get("epochs", 0.0)
            history.seconds.append(entry["seconds"])
            history.skipped = entry["skipped"]
            since += [] if loss is None else [loss]
        elif "validation_loss" in entry:
            seen = history.seen[-1] if history.seen else 0.0
            trained = {"train_loss": fmean(since) if since else None, "minutes_trained": history.minutes_trained}
            history.validations.append(Validation.from_entry(entry, seen=seen, **trained))
            since = []
    return history


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is not finite: JSON cannot hold that."""
    return value if value is not None and math.isfinite(value) else None
