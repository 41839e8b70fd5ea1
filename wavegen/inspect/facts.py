"""The base of all inspections' typed facts, from which tables, plots and ``--json`` are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel

from wavegen.evaluation.loss_unit import LossUnit

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
