"""Typed facts, from which tables, plots and ``--json`` are made: the base, and facts that several kinds share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel

from wavegen.evaluation import LossUnit
from wavegen.runs.run_folder import Validation

Progress = Callable[[int, int], None]  # called with (done, in all)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about one object; names contain units, and None means not applicable or unknown.

    Attributes:
        kind: of the thing.
    """

    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts as numbers, texts, lists and dictionaries, for JSON."""
        return {"kind": self.kind, **_plain(self)}


def _plain(value: Any) -> Any:
    """Turn data classes and configurations into dictionaries; a loss unit is its name."""
    if isinstance(value, LossUnit):
        return value.full_name
    if isinstance(value, BaseModel):
        return value.model_dump()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """The progress of a training, and its held-out losses.

    Attributes:
        total_steps: None where only its minutes are known yet.
        seen: the data trained on so far, repeated passes included: hours of audio, or points of series.
        skipped_steps: whose loss was not finite.
        best_loss, best_step: of the validation with the lowest loss.
        last_validation: None before the first.
        loss_unit: what the losses are.
    """

    step: int
    total_steps: int | None
    seen: float
    minutes_trained: float
    skipped_steps: int
    best_loss: float | None
    best_step: int | None
    last_validation: Validation | None
    loss_unit: LossUnit

    @property
    def ranking(self) -> list[tuple[str, float]]:
        """The model and the trivial baselines in the last validation, those with a finite loss; the worst first."""
        ranked = [] if self.last_validation is None else self.last_validation.ranking()
        return [(name, loss) for name, loss in ranked if loss is not None]
