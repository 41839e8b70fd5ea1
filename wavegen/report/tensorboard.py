"""TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

STEP_SCALARS = ("train_bits", "learning_rate", "gradient_norm", "targets_per_second")

EVERY_STEPS = 10


class TensorBoardObserver:
    """Writes scalars and auditions; implements the trainer's ``Observer``.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=30)

    def stepped(self, entry: dict[str, Any]) -> None:
        """Write the step's scalars, now and then."""
        if entry["step"] % EVERY_STEPS:
            return
        for name in STEP_SCALARS:
            if entry[name] is not None:
                self._scalar(f"training/{name}", entry[name], entry["step"])

    def validated(self, entry: dict[str, Any]) -> None:
        """Write the figures and the baselines."""
        self._scalar("validation/bits_per_sample", entry["validation_bits"], entry["step"])
        for name, bits in entry["baselines"].items():
            self._scalar(f"baselines/{name.replace(' ', '_')}", bits, entry["step"])
        self._writer.flush()

    def auditioned(self, step: int, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Write the clip."""
        self._writer.add_audio("audition", waveform[None], step, sample_rate_hz)
        self._writer.flush()

    def working(self, what: str, done: int, total: int) -> None:
        """Nothing to write."""

    def notice(self, text: str) -> None:
        """Nothing to write."""

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)
