"""What a training leaves in its run folder for people to look at, besides its own files."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.training.observer import Observer


def run_observers(run: Path) -> list[Observer]:
    """Pictures of the auditions, and TensorBoard's event files where TensorBoard is installed."""
    observers: list[Observer] = [AuditionPictures()]
    if find_spec("tensorboard") is not None:
        from wavegen.report.tensorboard import TensorBoardObserver

        observers.append(TensorBoardObserver(run / "tensorboard"))
    return observers


class AuditionPictures(Observer):
    """Draws each audition beside its WAV file."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Draw it."""
        from wavegen.report.pictures import draw_audio

        draw_audio(path.with_suffix(".png"), waveform, sample_rate_hz, f"audition after {step:,} steps")
        gc.collect()  # a figure is a ring of 4 MB, and by itself the collector hardly comes in a training
