"""How the steps of a training are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

BackendName = Literal["fused", "torch", "compile"]
ComputePrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """How each step is computed; nothing in it is ``auto``.

    Attributes:
        backend: ``fused`` runs on a CPU, ``torch`` and ``compile`` on any device.
        precision: of the matrix products.
        threads: of each process, on a CPU.
        batch_size: windows in a step, of all processes together.
        accumulation: slices in which the batch is worked through, of all processes together.
        side_by_side: whether one thread computes each slice, several at a time; otherwise all threads share each.
    """

    backend: BackendName
    precision: ComputePrecision
    threads: int
    batch_size: int
    accumulation: int
    side_by_side: bool

    def share(self, n_processes: int) -> Compute:
        """Return what one of some processes does of each step, rounded up."""
        size, slices = -(-self.batch_size // n_processes), -(-self.accumulation // n_processes)
        return replace(self, batch_size=size, accumulation=slices)

    def settings(self) -> dict[str, Any]:
        """Return the same as keys of the section ``training``, to store in a configuration."""
        return {key: value for key, value in vars(self).items() if key != "side_by_side"}
