"""Sample statistics as a table and as a document."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from wavegen.evaluation.sample_statistics import SampleFigures
from wavegen.report.tables import Table, minutes
from wavegen.text import pluralize

SAMPLES = "these clips"


@dataclass(frozen=True)
class SampleComparison:
    """Figures of clips, and of what they are compared with.

    Args:
        samples: the clips' figures.
        references: of recordings and impostors, by name; the recordings first.
    """

    samples: SampleFigures
    references: dict[str, SampleFigures]

    @property
    def likeness(self) -> float | None:
        """Return how far the score has come from the better impostor's, 0, to that of other recordings, 1.

        None where an impostor is no worse than other recordings.
        """
        recordings, *impostors = (figures.score for figures in self.references.values())
        if min(impostors) <= recordings:
            return None
        return (min(impostors) - self.samples.score) / (min(impostors) - recordings)

    def table(self) -> Table:
        """Return the figures as a table; each column is explained in the guide on measuring."""
        rows = {SAMPLES: self.samples, **self.references}
        columns = ("", "score", "95% interval", "loud", "levels apart", "silent", "first sound", "centroid")
        return Table(
            f"Sample statistics of {pluralize(self.samples.n_clips, 'clip')}, {minutes(self.samples.seconds)} "
            "(lower scores are better)",
            columns,
            [(name, *_cells(figures)) for name, figures in rows.items()],
            "the recordings are too few or too uniform to tell: an impostor scores as well"
            if self.likeness is None
            else f"{100 * self.likeness:.0f}% of the way from the better impostor's score to the recordings'",
        )

    def document(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {
            "samples": asdict(self.samples),
            "likeness": self.likeness,
            "references": {name: asdict(figures) for name, figures in self.references.items()},
        }


def _cells(figures: SampleFigures) -> tuple[str, ...]:
    interval = "-" if figures.interval is None else "{:.0f} to {:.0f}".format(*figures.interval)
    first = "none" if math.isinf(figures.first_sound_seconds) else f"{figures.first_sound_seconds:.1f} s"
    return (
        f"{figures.score:.0f}",
        interval,
        f"{figures.loud_db:.1f} dB",
        f"{figures.level_distance_db:.1f} dB",
        f"{100 * figures.silent_share:.1f}%",
        first,
        f"{figures.centroid_hz:,.0f} Hz",
    )
