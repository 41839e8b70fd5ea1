"""The engines by name. Each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.model.wavenet import WaveNet
    from wavegen.sampling.engines.engine import Engine

ENGINES = ("torch", "reference")


def build_engine(name: str, model: WaveNet) -> Engine:
    """The engine of that name; ``auto`` takes the fastest that the model's device has.

    Raises:
        UsageError: there is no such engine.
    """
    if name in ("auto", "torch"):
        from wavegen.sampling.engines.torch_queue import TorchQueueEngine

        return TorchQueueEngine(model)
    if name == "reference":
        from wavegen.sampling.engines.reference import ReferenceEngine

        return ReferenceEngine(model)
    raise UsageError(f"--engine: expected one of auto, {', '.join(ENGINES)}, found '{name}'")
