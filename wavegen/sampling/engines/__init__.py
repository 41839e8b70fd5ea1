"""The engines by name. Each is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt

from wavegen.errors import ParameterError

if TYPE_CHECKING:
    from wavegen.model.network import Network
    from wavegen.model.outputs import Distribution
    from wavegen.model.wavenet import WaveNet
    from wavegen.sampling.engines.engine import Engine
    from wavegen.sampling.engines.packing import Precision

ENGINES = ("numba", "torch", "reference")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


def choose_engine(name: str, device_type: str, precision: str = "float32", kind: str = "wavenet") -> str:
    """Return the engine of a name for a kind of device; ``auto`` takes the fastest.

    Args:
        name: auto or one of ``ENGINES``.
        device_type: cpu or cuda.
        precision: of the weights; the numba engine alone has others than float32.
        kind: of the model; the numba engine runs WaveNets.

    Raises:
        ParameterError: there is no such engine or precision, or not on this device.
    """
    if precision not in PRECISIONS:
        raise ParameterError("precision", f"expected one of auto, {', '.join(PRECISIONS)}, found '{precision}'")
    if name == "auto":
        name = "numba" if device_type == "cpu" and kind == "wavenet" else "torch"
    if name not in ENGINES:
        raise ParameterError("engine", f"expected one of auto, {', '.join(ENGINES)}, found '{name}'")
    if name == "numba" and device_type != "cpu":
        remedy = {"device": "cpu", "engine": "torch"}
        raise ParameterError("engine", f"it runs on the CPU, and the device is {device_type}", name, remedy)
    if name == "numba" and kind != "wavenet":
        raise ParameterError("engine", f"it runs WaveNets, and this model is a {kind}", name, {"engine": "torch"})
    if name != "numba" and precision != "float32":
        remedy = {"engine": "numba"} if kind == "wavenet" else {"precision": "float32"}
        raise ParameterError("precision", f"the {name} engine has float32 only", precision, remedy)
    return name


@dataclass(frozen=True)
class EngineSource:
    """What engines are built from: arrays for the fused engine, which needs no torch, a network for the others.

    Args:
        kind: of the model: wavenet, stack, gru, ...
        device_type: cpu or cuda.
        distribution: of a sample.
        weights: returns the arrays by parameter name, weight norm folded.
        network: returns the network in float32 on its device.
        dilations: of a WaveNet's blocks.
        activation: of a WaveNet's blocks.
    """

    kind: str
    device_type: str
    distribution: Distribution
    weights: Callable[[], Mapping[str, npt.NDArray[Any]]]
    network: Callable[[], Network]
    dilations: Sequence[int] = ()
    activation: str = "gated"

    @classmethod
    def of(cls, model: Network) -> EngineSource:
        """Return the source of a network."""
        from wavegen.model.weight_norm import folded

        device_type, plain = next(model.parameters()).device.type, folded(model)

        def weights() -> dict[str, npt.NDArray[Any]]:
            return {name: parameter.detach().numpy() for name, parameter in plain.named_parameters()}

        source = cls(model.kind, device_type, model.distribution, weights, lambda: plain)
        if model.kind != "wavenet":
            return source
        wavenet = cast("WaveNet", model)
        return replace(source, dilations=wavenet.dilations, activation=wavenet.activation)


def build_engine(
    name: str, model: Network | EngineSource, precision: Precision = "float32", threads: int = 1
) -> Engine:
    """Build the engine of that name for a model, on the model's device.

    Args:
        name: auto or one of ``ENGINES``.
        model: to run.
        precision: of the weights.
        threads: that the fused engine distributes streams over.

    Raises:
        ParameterError: as ``choose_engine``.
    """
    source = model if isinstance(model, EngineSource) else EngineSource.of(model)
    chosen = choose_engine(name, source.device_type, precision, source.kind)
    if chosen == "numba":
        from wavegen.sampling.engines.numba_fused import NumbaFusedEngine

        return NumbaFusedEngine(
            source.weights(), source.dilations, source.distribution, precision, threads, source.activation
        )
    if chosen == "torch":
        from wavegen.sampling.engines.torch_queue import TorchQueueEngine

        return TorchQueueEngine(source.network())
    from wavegen.sampling.engines.reference import ReferenceEngine

    return ReferenceEngine(source.network())
