"""The protocol of the sampling engines, and the engines by name, each imported on first use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import ModelConfig, OutputKind
from wavegen.data.conditioning import ClipCondition
from wavegen.device import choose_device
from wavegen.errors import ParameterError
from wavegen.model.outputs import ClassArray, Distribution, Truncation

if TYPE_CHECKING:
    from wavegen.model.network import Network
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


@runtime_checkable
class SeededEngine(Protocol):
    """An engine that makes the project's draws itself: bringing the numbers to a GPU would take as long as sampling."""

    def generate_seeded(
        self, seed: int, clips: Sequence[int], first: int, n: int, truncation: Truncation
    ) -> ClassArray:
        """Draw samples first .. first + n - 1 of each clip, as ``Engine.generate`` with ``sampler.uniforms``."""


ENGINES = ("numba", "torch", "reference")
ON_CUDA = ("triton",)  # engines that run nowhere else
# Outputs that the numba engine draws from: the keys of ``draws.DRAWS``, to import which takes numba.
COMPILED_DRAWS: tuple[OutputKind, ...] = ("softmax", "logistic_mixture", "gaussian_mixture")
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
# `auto` on a GPU: timed streams, as many as the torch engine runs side by side; and how far outputs may be apart
TIMED_STREAMS, TIMED_SAMPLES = 32, 64
MOST_DIFFERENCE = {"float32": 1e-3, "bfloat16": 5e-2}
GPU_STREAMS = 64  # with fewer, one CPU thread is taken to be faster; not yet measured on a card


@dataclass(frozen=True)
class EngineSource:
    """The source of an engine: arrays for the fused engine, which needs no torch, a network for the others.

    Args:
        model: the section of the configuration.
        device_type: cpu, cuda or mps; auto leaves it to what is sampled.
        distribution: of a sample.
        weights: returns the arrays by parameter name, weight norm folded.
        network: returns the network in float32 on a device of that kind.
        has_frames: whether it is conditioned on frames.
    """

    model: ModelConfig
    device_type: str
    distribution: Distribution
    weights: Callable[[], Mapping[str, npt.NDArray[Any]]]
    network: Callable[[str], Network]
    has_frames: bool = False

    @property
    def runs_fused(self) -> bool:
        """True if the numba engine runs the model."""
        return self.model.kind == "wavenet" and self.distribution.kind in COMPILED_DRAWS

    def device_for(self, n_streams: int) -> str:
        """Return the kind of device on which ``auto`` samples: the CPU, unless a GPU has enough streams at a time."""
        if self.device_type == "mps" or (self.runs_fused and n_streams < GPU_STREAMS):
            return "cpu"
        return choose_device("auto").type if self.device_type == "auto" else self.device_type

    def beyond_triton(self) -> str | None:
        """Return why the triton engine does not run the model; None if it does."""
        if self.device_type != "cuda":
            return f"it runs on a CUDA device, and the device is {self.device_type}"
        form = self.model.activation if self.model.kind == "wavenet" else self.model.kind
        if form != "gated":
            return f"it runs gated WaveNets, and this model is a {form}"
        if self.distribution.kind != "softmax":
            return f"it has no draw for output.kind {self.distribution.kind}"
        if self.has_frames:
            return "it takes no frames"
        return None if find_spec("triton") else "Triton is not installed; PyTorch's CUDA build brings it"

    @classmethod
    def of(cls, model: Network) -> EngineSource:
        """Return the source of a network."""
        from wavegen.model.layers import folded

        device_type, plain = next(model.parameters()).device.type, folded(model)

        def network(kind_of_device: str) -> Network:
            return plain if kind_of_device == device_type else plain.copy().to(kind_of_device)

        has_frames = plain.conditioning is not None and plain.conditioning.frame_channels > 0
        return cls(model.config, device_type, model.distribution, plain.arrays, network, has_frames)


def choose_engine(name: str, source: EngineSource, precision: str = "float32") -> str:
    """Return the engine of a name for a model on a kind of device; ``auto`` takes the fastest.

    Args:
        name: auto or one of ``ENGINES``.
        source: the model, on a device that is known.
        precision: of the weights; the numba engine has all, triton float32 and bfloat16, the others float32.

    Raises:
        ParameterError: there is no such engine or precision, or not on this device.
    """
    device_type, kind = source.device_type, source.model.kind
    if precision not in PRECISIONS:
        raise ParameterError("precision", f"expected one of auto, {', '.join(PRECISIONS)}, found '{precision}'")
    if name == "auto":
        name = "numba" if device_type == "cpu" and source.runs_fused else "torch"
    if device_type == "mps":  # draws are made in float64, which it lacks
        raise ParameterError("device", "no engine samples on it", "mps", {"device": "cpu"})
    if name not in ENGINES + ON_CUDA:
        raise ParameterError("engine", f"expected one of auto, {', '.join(ENGINES + ON_CUDA)}, found '{name}'")
    if name == "numba" and device_type != "cpu":
        remedy = {"device": "cpu", "engine": "torch"}
        raise ParameterError("engine", f"it runs on the CPU, and the device is {device_type}", name, remedy)
    if name == "numba" and not source.runs_fused:
        lacks = f"it has no draw for output.kind {source.distribution.kind}"
        reason = lacks if kind == "wavenet" else f"it runs WaveNets, and this model is a {kind}"
        raise ParameterError("engine", reason, name, {"engine": "torch"})
    if name == "triton" and (beyond := source.beyond_triton()):
        raise ParameterError("engine", beyond, name, {"engine": "auto"})
    if name != "numba" and precision != "float32" and (name, precision) != ("triton", "bfloat16"):
        remedy = {"engine": "numba"} if kind == "wavenet" else {"precision": "float32"}
        has = "float32 and bfloat16" if name == "triton" else "float32"
        raise ParameterError("precision", f"the {name} engine has {has} only", precision, remedy)
    return name


def build_engine(
    name: str, model: Network | EngineSource, precision: Precision = "float32", threads: int = 1, n_streams: int = 1
) -> Engine:
    """Build the engine of that name for a model: on the model's device, or where ``auto`` samples faster.

    Args:
        name: auto or one of ``ENGINES``.
        model: to run.
        n_streams: that it is for.
        precision: of the weights.
        threads: that the fused engine distributes streams over.

    Raises:
        ParameterError: as ``choose_engine``.
    """
    source = model if isinstance(model, EngineSource) else EngineSource.of(model)
    if name == "auto":
        source = replace(source, device_type=source.device_for(n_streams))
    chosen = choose_engine(name, source, precision)
    if chosen == "numba":
        from wavegen.sampling.engines.numba_fused import NumbaFusedEngine

        return NumbaFusedEngine(source.weights(), source.model, source.distribution, precision, threads)
    network = source.network(source.device_type)
    if chosen == "triton":
        from wavegen.sampling.engines.triton_engine import TritonEngine

        return TritonEngine(cast("WaveNet", network), precision)
    from wavegen.sampling.engines.torch_engines import ReferenceEngine, TorchQueueEngine

    return TorchQueueEngine(network) if chosen == "torch" else ReferenceEngine(network)


def faster_on_gpu(source: EngineSource, precision: Precision, n_streams: int) -> str:
    """Return the engine that samples some streams faster on this GPU: triton or torch, timed here.

    The triton engine is taken where it runs the model, its outputs are the torch engine's, and it is faster.
    """
    if source.beyond_triton():
        return "torch"
    conditioning = source.network(source.device_type).conditioning
    condition = None
    if conditioning is not None:
        condition = ClipCondition(np.full(conditioning.n_labels, 1.0 / conditioning.n_labels, np.float32))
    rng, seconds, outputs = np.random.default_rng(0), dict[str, float](), []
    classes = rng.integers(source.distribution.classes, size=(TIMED_STREAMS, TIMED_SAMPLES))
    for name, streams in (("torch", TIMED_STREAMS), ("triton", n_streams)):
        engine = build_engine(name, source, precision if name == "triton" else "float32")
        conditions = None if condition is None else [condition] * streams
        past = np.zeros((streams, engine.receptive_field), np.int64)
        engine.start(past[:TIMED_STREAMS], conditions and conditions[:TIMED_STREAMS])
        outputs.append(engine.force(classes))
        engine.start(past, conditions)
        numbers = rng.random((streams, TIMED_SAMPLES))
        for _ in range(2):  # the first time it is compiled, or captured
            began = time.perf_counter()
            engine.generate(numbers, Truncation())
            seconds[name] = (time.perf_counter() - began) / streams
    tolerance = MOST_DIFFERENCE[precision] * max(1.0, float(np.abs(outputs[0]).max()))
    agrees = float(np.abs(outputs[0] - outputs[1]).max()) <= tolerance
    return "triton" if agrees and seconds["triton"] < seconds["torch"] else "torch"
