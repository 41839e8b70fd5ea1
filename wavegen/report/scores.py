"""Scores as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wavegen.audio.quantize import Quantizer
from wavegen.evaluation.evaluation import Score, total
from wavegen.report.tables import Table, minutes


def summary_table(scores: Sequence[Score], sample_rate_hz: int, quantizer: Quantizer) -> Table:
    """Bits/sample of all clips together, the model above the trivial baselines."""
    everything = total(scores)
    clips = "1 clip" if len(scores) == 1 else f"{len(scores):,} clips"
    figures = {"this model": everything.bits, **everything.baseline_bits}
    return Table(
        f"bits/sample of {clips}, {minutes(everything.n_samples / sample_rate_hz)}, {quantizer} (lower is better)",
        (),
        [(name, f"{bits / everything.n_samples:.4f}") for name, bits in figures.items()],
    )


def clip_table(scores: Sequence[Score], sample_rate_hz: int) -> Table:
    """Bits/sample of each clip, beside the best of the trivial baselines."""

    def row(score: Score) -> tuple[str, str, str, str]:
        best = min(score.baseline_bits.values(), default=None)
        baseline = "" if best is None else f"{best / score.n_samples:.3f}"
        return score.name, minutes(score.n_samples / sample_rate_hz), f"{score.bits_per_sample:.3f}", baseline

    return Table("Each clip", ("clip", "length", "this model", "best baseline"), [row(score) for score in scores])


def cost_tables(costs: Mapping[str, float]) -> list[Table]:
    """What lower precisions of the weights cost in sampling, where the training measured it."""
    rows = [(f"{name} weights", f"{round(cost, 4) + 0.0:+.4f}") for name, cost in costs.items()]
    return [Table("bits/sample that a lower --precision of generate adds", (), rows)] if rows else []
