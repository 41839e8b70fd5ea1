"""Observers that write plots of auditions and TensorBoard events into a run's folder."""

from __future__ import annotations

import gc
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wavegen.training.progress import Observer

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STEP_SCALARS = ("train_loss", "learning_rate", "gradient_norm", "targets_per_second")

EVERY_STEPS = 10


def run_observers(run: Path) -> list[Observer]:
    """Return an observer for plots of the auditions, and one for TensorBoard where it is installed."""
    observers: list[Observer] = [AuditionPictures()]
    if find_spec("tensorboard") is not None:
        observers.append(TensorBoardObserver(run / "tensorboard"))
    return observers


class AuditionPictures(Observer):
    """Draws each audition into a PNG file next to its WAV file."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Draw it."""
        from wavegen.report.plots.audio import draw_audio

        draw_audio(path.with_suffix(".png"), waveform, sample_rate_hz, f"audition after {step:,} steps")
        gc.collect()  # a figure is a ring of 4 MB, and by itself the collector hardly comes in a training


class TensorBoardObserver(Observer):
    """Writes scalars and auditions.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _writer(self) -> SummaryWriter:
        """Opened at the first write: the folder belongs to a run that may not exist yet."""
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder), flush_secs=30)

    def on_step(self, entry: dict[str, Any]) -> None:
        """Write the step's scalars, now and then."""
        if entry["step"] % EVERY_STEPS:
            return
        for name in STEP_SCALARS:
            if entry[name] is not None:
                self._scalar(f"training/{name}", entry[name], entry["step"])

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Write the figures and the baselines."""
        self._scalar("validation/loss", entry["validation_loss"], entry["step"])
        for name, figure in entry["baselines"].items():
            self._scalar(f"baselines/{name.replace(' ', '_')}", figure, entry["step"])
        self._writer.flush()

    def on_audition(
        self,
        step: int,
        path: Path,
        waveform: npt.NDArray[np.float32],
        sample_rate_hz: int,
    ) -> None:
        """Write the clip, and its picture, which ``AuditionPictures`` drew before."""
        from matplotlib.image import imread

        self._writer.add_audio("audition", waveform[None], step, sample_rate_hz)
        self._writer.add_image("audition", imread(path.with_suffix(".png")), step, dataformats="HWC")
        self._writer.flush()

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
