"""Whom a training tells what happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class Observer:
    """Hears of everything and does nothing; a subclass does something with what it cares for."""

    def stepped(self, entry: dict[str, Any]) -> None:
        """A step was made; its line of ``metrics.jsonl``."""

    def validated(self, entry: dict[str, Any]) -> None:
        """A validation was made; its line of ``metrics.jsonl``."""

    def auditioned(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """An audition was made, (T,) in [-1, 1]; it is about to be written to the path."""

    def working(self, what: str, done: int, total: int) -> None:
        """Something that takes a while goes on: validation, audition."""

    def notice(self, text: str) -> None:
        """Something that the user should know."""
