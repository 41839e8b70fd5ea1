"""How far a training is, and the callbacks that follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Progress:
    """How far a training is; kept in its checkpoints under these names.

    Attributes:
        step: steps made, skipped ones included.
        updates: optimizer updates made.
        targets: predictions trained on.
        seconds: of training, interruptions left out.
        best_loss: lowest validation loss so far.
        best_step: at which step that was.
        validation: the last validation's line of ``metrics.jsonl``.
        precision_costs: what lower precisions of these averaged weights cost, in bits/sample; measured at the end.
        processes: that trained together last.
        recordings: what the training clips are like (``wavegen.audio.levels.RecordingProfile``); None of series.
    """

    step: int = 0
    updates: int = 0
    targets: int = 0
    seconds: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    validation: dict[str, Any] = field(default_factory=dict)
    precision_costs: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    recordings: dict[str, Any] | None = None


class Observer:
    """Callbacks of a training, which do nothing; a subclass overrides those that it needs."""

    def on_step(self, entry: dict[str, Any]) -> None:
        """Receive a step's line of ``metrics.jsonl``."""

    def on_validation(self, entry: dict[str, Any]) -> None:
        """Receive a validation's line of ``metrics.jsonl``."""

    def on_audition(self, step: int, path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
        """Receive an audition, (T,) in [-1, 1], before it is written to the path."""

    def on_wait(self, what: str, done: int, total: int) -> None:
        """Receive the progress of a validation or an audition."""

    def on_notice(self, text: str) -> None:
        """Receive a message for the user."""
