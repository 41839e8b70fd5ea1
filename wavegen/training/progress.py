"""What a training has behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """How far a training is; kept in its checkpoints.

    Args:
        step: steps made, skipped ones included.
        updates: optimizer updates made.
        targets: predictions trained on.
        seconds: of training, interruptions left out.
        best_loss: lowest validation loss so far.
        best_step: when that was.
        validation: the last validation's line.
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
