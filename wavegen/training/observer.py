"""Callbacks of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Observer:
    """Callbacks of a training, which do nothing; a subclass overrides those that it needs."""

    def on_step(self, entry: dict[str, Any]) -> None:
        """Called after a step with its line of ``metrics.jsonl``."""

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Called after a validation with its line of ``metrics.jsonl``."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Called with an audition, (T,) in [-1, 1], before it is written to the path."""

    def on_wait(self, what: str, done: int, total: int) -> None:
        """Called while a validation or an audition is under way, with its progress."""

    def on_notice(self, text: str) -> None:
        """Called with a message for the user."""
