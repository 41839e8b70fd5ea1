"""What every inspection gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from wavegen.report.tables import Table

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Attributes:
        kind: what it is.
        facts: for programs: everything as numbers and texts that JSON knows, units in the names. None stands for
            what does not apply or is not known.
        tables: for people.
    """

    kind: Literal["folder", "audio", "config", "checkpoint", "run", "comparison", "series"]
    facts: dict[str, Any]
    tables: list[Table]
