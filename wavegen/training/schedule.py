"""How the learning rates go through a training."""

from __future__ import annotations

import math
from typing import Literal


def schedule_factor(
    step: int, *, warmup_steps: int, total_steps: int, schedule: Literal["cosine", "constant"]
) -> float:
    """A linear warm-up, then the schedule: half a cosine down to 0, or constant.

    Args:
        step: from 0.
        warmup_steps: length of the warm-up.
        total_steps: where the cosine ends.
        schedule: what follows the warm-up.

    Returns:
        What this step's learning rates are of their peaks; never exactly 0, so that the last step still counts.
    """
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    if schedule == "constant":
        return warmup
    progress = min(1.0, max(0.0, (step + 0.5 - warmup_steps) / max(1, total_steps - warmup_steps)))
    return warmup * math.cos(0.5 * math.pi * progress) ** 2  # (1 + cos pi p) / 2, without rounding to 0
