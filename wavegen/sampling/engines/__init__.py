"""The engines by name. Each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from wavegen.errors import UsageError

if TYPE_CHECKING:
    from wavegen.model.network import Network
    from wavegen.model.wavenet import WaveNet
    from wavegen.sampling.engines.engine import Engine
    from wavegen.sampling.engines.packing import Precision

ENGINES = ("numba", "torch", "reference")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


def choose_engine(name: str, device_type: str, precision: str = "float32", kind: str = "wavenet") -> str:
    """The engine that a name means on a kind of device; ``auto`` takes the fastest.

    Args:
        name: auto or one of ``ENGINES``.
        device_type: cpu or cuda.
        precision: of the weights; the numba engine alone has others than float32.
        kind: of the model; the numba engine runs WaveNets.

    Raises:
        UsageError: there is no such engine or precision, or not on this device.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision: expected one of auto, {', '.join(PRECISIONS)}, found '{precision}'")
    if name == "auto":
        name = "numba" if device_type == "cpu" and kind == "wavenet" else "torch"
    if name not in ENGINES:
        raise UsageError(f"--engine: expected one of auto, {', '.join(ENGINES)}, found '{name}'")
    if name == "numba" and device_type != "cpu":
        raise UsageError(f"--engine numba runs on the CPU, not on {device_type}; give --device cpu or --engine torch")
    if name == "numba" and kind != "wavenet":
        raise UsageError(f"--engine numba runs WaveNets, and this model is a {kind}; give --engine torch")
    if name != "numba" and precision != "float32":
        remedy = "give --engine numba" if kind == "wavenet" else f"leave it out for a {kind}"
        raise UsageError(f"--precision {precision}: the {name} engine has float32 only; {remedy}")
    return name


def build_engine(name: str, model: Network, precision: Precision = "float32", threads: int = 1) -> Engine:
    """The engine of that name for a model, on the model's device.

    Raises:
        UsageError: as ``choose_engine``.
    """
    from wavegen.model.weight_norm import folded

    chosen = choose_engine(name, next(model.parameters()).device.type, precision, model.kind)
    model = folded(model)
    if chosen == "numba":
        from wavegen.sampling.engines.numba_fused import NumbaFusedEngine

        wavenet = cast("WaveNet", model)  # no other kind is chosen for
        weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
        return NumbaFusedEngine(weights, wavenet.dilations, model.distribution, precision, threads, wavenet.activation)
    if chosen == "torch":
        from wavegen.sampling.engines.torch_queue import TorchQueueEngine

        return TorchQueueEngine(model)
    from wavegen.sampling.engines.reference import ReferenceEngine

    return ReferenceEngine(model)
