"""The protocol of the sampling engines, and the engines by name, each imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import OutputKind
from wavegen.data.conditioning import ClipCondition
from wavegen.errors import ParameterError
from wavegen.model.outputs import ClassArray, Truncation

if TYPE_CHECKING:
    from wavegen.model.network import Network
    from wavegen.model.outputs import Distribution
    from wavegen.model.wavenet import WaveNet
    from wavegen.sampling.engines.packing import Precision


class Engine(Protocol):
    """One implementation of the sampling loop.

    An engine holds a batch of streams. ``start`` gives them their past; each later call continues from there.
    """

    @property
    def receptive_field(self) -> int:
        """Samples of past that ``start`` needs."""

    def padding(self, silence: int) -> int:
        """Return the class that pads a clip's past in ``start``, given that of silence."""

    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        """Restart the streams.

        Args:
            past: (B, receptive_field or more) classes, the newest last; of a recurrent network all of the past.
            conditions: of a conditioned network: each stream's, counted from the first sample that is made.
        """

    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        """Draw the next samples of every stream.

        Args:
            uniforms: (B, n) in [0, 1), one for each sample.
            truncation: what is done to each distribution first.

        Returns:
            (B, n) classes.

        Raises:
            ModelError: a distribution is not finite.
        """

    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        """Take given samples as the next ones, step by step as in generating.

        Args:
            classes: (B, n).

        Returns:
            (B, n, parameters of the distribution) what the engine's network put out for each of them.
        """


ENGINES = ("numba", "torch", "reference")
# Outputs that the numba engine draws from.
COMPILED_DRAWS: tuple[OutputKind, ...] = ("softmax", "logistic_mixture", "gaussian_mixture")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")


def choose_engine(
    name: str,
    device_type: str,
    precision: str = "float32",
    kind: str = "wavenet",
    output: OutputKind = "softmax",
) -> str:
    """Return the engine of a name for a kind of device; ``auto`` takes the fastest.

    Args:
        name: auto or one of ``ENGINES``.
        device_type: cpu or cuda.
        precision: of the weights; the numba engine alone has others than float32.
        kind: of the model; the numba engine runs WaveNets.
        output: of the model; the numba engine draws from ``COMPILED_DRAWS``.

    Raises:
        ParameterError: there is no such engine or precision, or not on this device.
    """
    if precision not in PRECISIONS:
        raise ParameterError("precision", f"expected one of auto, {', '.join(PRECISIONS)}, found '{precision}'")
    if name == "auto":
        name = "numba" if device_type == "cpu" and kind == "wavenet" and output in COMPILED_DRAWS else "torch"
    if name not in ENGINES:
        raise ParameterError("engine", f"expected one of auto, {', '.join(ENGINES)}, found '{name}'")
    if name == "numba" and device_type != "cpu":
        remedy = {"device": "cpu", "engine": "torch"}
        raise ParameterError("engine", f"it runs on the CPU, and the device is {device_type}", name, remedy)
    if name == "numba" and kind != "wavenet":
        raise ParameterError("engine", f"it runs WaveNets, and this model is a {kind}", name, {"engine": "torch"})
    if name == "numba" and output not in COMPILED_DRAWS:
        raise ParameterError("engine", f"it has no draw for output.kind {output}", name, {"engine": "torch"})
    if name != "numba" and precision != "float32":
        remedy = {"engine": "numba"} if kind == "wavenet" else {"precision": "float32"}
        raise ParameterError("precision", f"the {name} engine has float32 only", precision, remedy)
    return name


@dataclass(frozen=True)
class EngineSource:
    """The source of an engine: arrays for the fused engine, which needs no torch, a network for the others.

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
    chosen = choose_engine(name, source.device_type, precision, source.kind, source.distribution.kind)
    if chosen == "numba":
        from wavegen.sampling.engines.numba_fused import NumbaFusedEngine

        return NumbaFusedEngine(
            source.weights(), source.dilations, source.distribution, precision, threads, source.activation
        )
    if chosen == "torch":
        from wavegen.sampling.engines.torch_engines import TorchQueueEngine

        return TorchQueueEngine(source.network())
    from wavegen.sampling.engines.torch_engines import ReferenceEngine

    return ReferenceEngine(source.network())
