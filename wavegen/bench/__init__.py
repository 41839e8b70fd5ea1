"""Speeds and limits of a machine: a row of a table for each measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement: the median of several repeats.

    Args:
        work: generate or train.
        engine: of sampling, or training's backend; ``textbook`` is Conv1d on (B, C, T).
        precision: of the weights, or of training's matrix products.
        batch: clips made together, or windows in a step.
        threads: used.
        samples_per_second: generated in all clips, or trained on.
        times_real_time: the same over the sample rate.
        share_of_limit: the numba engine's speed over what the machine's memory and arithmetic allow; None for others.
        input_steps_per_second: training's, context included.
        peak_memory_bytes: training's, above that after the imports, or of the GPU's memory.
        device: that worked.
    """

    work: str
    engine: str
    precision: str
    batch: int
    threads: int
    samples_per_second: float
    times_real_time: float
    share_of_limit: float | None = None
    input_steps_per_second: float | None = None
    peak_memory_bytes: int | None = None
    device: str = "cpu"
