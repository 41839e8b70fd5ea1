"""One step of a WaveNet as an ONNX graph: a sample and the queues in, the next one's distribution and the queues out.

    sample      (B,) int64                           the newest sample's class
    labels      (B, L) float32                       weights of the labels; in a network with labels
    frames      (B, 3, D) float32                    the frame of the next sample between its neighbours, as in a file
    place       (B,) int64                           of the next sample in its frame, 0 to hop_length - 1
    queue.i     (reach, B, residual_channels)        the last inputs of block i, oldest first: one for each block
    parameters  (B, n_parameters)                    of the next sample's distribution
    next.i      as queue.i                           what to give as queue.i in the next step

The queues are plain: each step drops the oldest row and appends the newest. Queues of zeros are right after
receptive_field - 1 steps: what they held then is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import FrameSource
from wavegen.audio.quantize import Quantizer
from wavegen.config import Config
from wavegen.config.schema import ModelConfig
from wavegen.data.conditioning import Conditioner, build_conditioner
from wavegen.errors import UsageError
from wavegen.model.building import build_distribution, check_weights, fold_weight_norm, parameter_shapes
from wavegen.model.outputs import MEAN_UNIT, Distribution, Mixture
from wavegen.sampling.engines.conditioning_rows import neighbour_weights

Array = npt.NDArray[Any]

OPSET, IR_VERSION = 17, 8  # of 2022: read by current and older runtimes


def onnx_step(weights: Mapping[str, Array], config: Config) -> bytes:
    """Build the content of an ``.onnx`` file of a model's step; its metadata hold what a program needs to run it.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names.
        config: complete, with the labels' names.

    Raises:
        UsageError: it is no WaveNet of sound, or the package ``onnx`` is missing.
        ModelError: the weights do not fit the configuration, or are not finite.
    """
    if config.model.kind != "wavenet":
        raise UsageError(f"ONNX: expected a WaveNet to export, found a {config.model.kind}")
    if config.output.kind == "regression":
        raise UsageError("ONNX: expected a WaveNet of sound to export, found a model of series of numbers")
    try:
        from onnx import checker, helper
    except ImportError:
        raise UsageError("ONNX: the package onnx is not installed; pip install onnx") from None
    check_weights(weights, parameter_shapes(config))
    distribution, model = build_distribution(config), config.model
    graph, plain = _Graph(helper), fold_weight_norm(weights)
    added = graph.conditions(plain, len(model.dilations), build_conditioner(config))
    graph.network(plain, model, config.quantization.classes, added)
    parameters = helper.make_tensor_value_info("parameters", _FLOAT32, ["B", distribution.n_parameters])
    proto = helper.make_graph(graph.nodes, "wavenet_step", graph.inputs, [parameters, *graph.queues_out], graph.tensors)
    step = helper.make_model(
        proto, producer_name="wavegen", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    helper.set_model_props(step, _metadata(config, distribution))
    checker.check_model(step, full_check=True)
    content: bytes = step.SerializeToString()
    return content


_FLOAT32, _INT64 = 1, 7  # onnx.TensorProto's numbers of the types


class _Graph:
    """Nodes, inputs, outputs and constants of an ONNX graph, as they are added."""

    def __init__(self, helper: Any) -> None:
        self.helper = helper  # onnx.helper
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.queues_out: list[Any] = []
        self.tensors: list[Any] = []

    def take(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Add an input of the graph."""
        self.inputs.append(self.helper.make_tensor_value_info(name, kind, shape))
        return name

    def add(self, operation: str, *inputs: str | Array | float, name: str | None = None, **attributes: Any) -> str:
        """Add an operation on named tensors and on constants; return the name of its result."""
        names = [each if isinstance(each, str) else self.constant(np.asarray(each)) for each in inputs]
        name = name or f"{operation.lower()}.{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operation, names, [name], **attributes))
        return name

    def constant(self, array: Array) -> str:
        """Add a constant tensor: floats in float32, integers in int64."""
        from onnx import numpy_helper

        name = f"constant.{len(self.tensors)}"
        kind = np.float32 if np.issubdtype(array.dtype, np.floating) else np.int64
        self.tensors.append(numpy_helper.from_array(np.asarray(array, kind, order="C"), name))
        return name

    def linear(self, h: str, matrix: Array, bias: Array | None, name: str | None = None) -> str:
        """Compute h @ matrix + bias."""
        return self.add("Gemm", h, matrix, *([] if bias is None else [bias]), name=name)

    def conditions(self, weights: Mapping[str, Array], n_blocks: int, conditioner: Conditioner) -> list[str]:
        """Add the gate bias of labels and frames, as ``Conditioning`` computes it; empty without any."""
        seen = []
        if conditioner.labels:
            labels = self.take("labels", _FLOAT32, ["B", len(conditioner.labels)])
            seen.append(self.add("MatMul", labels, weights["conditioning.labels"]))
        if conditioner.frames is not None:
            seen.append(self.frame(weights.get("conditioning.interpolation"), conditioner.frames))
        if not seen:
            return []
        channels = self.add("Concat", *seen, axis=1)
        parts = np.split(weights["conditioning.projection"], n_blocks)
        return [self.add("MatMul", channels, part.T) for part in parts]

    def frame(self, interpolation: Array | None, source: FrameSource) -> str:
        """Add the normalized, upsampled frame that the next sample sees, (B, D)."""
        width = source.width
        frames, place = self.take("frames", _FLOAT32, ["B", 3, width]), self.take("place", _INT64, ["B"])
        # (x - mean) / scale, both found from the source: what it makes of 0 and of 1
        origin, one = (source.normalize(np.full((1, width), number, np.float32)) for number in (0, 1))
        normalized = self.add("Add", self.add("Mul", frames, one - origin), origin)
        # (u, 3, D): of the frame and its neighbours in each of its u rows; (1, 3, 1) where a frame is a row
        alone = np.array([[[0.0], [1.0], [0.0]]], np.float32)
        weights = alone if interpolation is None else neighbour_weights(interpolation)
        row = self.add("Div", self.add("Mul", place, len(weights)), source.hop_length)  # place * u // hop
        weighted = self.add("Mul", normalized, self.add("Gather", weights, row))
        return self.add("ReduceSum", weighted, np.array([1]), keepdims=0)

    def network(self, weights: Mapping[str, Array], model: ModelConfig, classes: int, added: Sequence[str]) -> None:
        """Add the whole step, as ``wavegen.model.wavenet.WaveNetStep`` computes it."""
        h = self.embed(weights, self.take("sample", _INT64, ["B"]), classes)
        outputs = []
        for i, dilation in enumerate(model.dilations):
            block = f"blocks.{i}"
            taps = weights[f"{block}.conv.weight"]  # (taps, convolved, residual)
            rows = self.queue(i, h, [tap * dilation for tap in range(len(taps))], taps.shape[2])
            matrix = taps.transpose(0, 2, 1).reshape(-1, taps.shape[1])
            convolved = self.linear(rows, matrix, weights.get(f"{block}.conv.bias"))
            if added:
                convolved = self.add("Add", convolved, added[i])
            outputs.append(self.activated(convolved, model.activation))
            if i + 1 < len(model.dilations):
                residual = self.linear(outputs[-1], weights[f"{block}.residual.weight"].T, None)
                h = self.add("Add", h, residual)
        h = self.add("Concat", *outputs, axis=1)
        for layer in ("skip", "head"):
            h = self.add("Relu", self.linear(h, weights[f"{layer}.weight"].T, weights.get(f"{layer}.bias")))
        self.linear(h, weights["output.weight"].T, weights.get("output.bias"), name="parameters")

    def embed(self, weights: Mapping[str, Array], sample: str, classes: int) -> str:
        """Add the input layer; return the first block's input, (B, residual_channels)."""
        if "input.linear.weight" not in weights:
            return self.add("Gather", weights["input.weight"] + weights.get("input.bias", 0), sample)
        from_middle = self.add("Sub", self.add("Mul", sample, 2), classes - 1)
        place = self.add("Div", self.add("Cast", from_middle, to=_FLOAT32), float(classes - 1))
        column = self.add("Unsqueeze", place, np.array([1]))
        return self.linear(column, weights["input.linear.weight"].T, weights["input.linear.bias"])

    def queue(self, block: int, h: str, offsets: Sequence[int], channels: int) -> str:
        """Read a block's queue, append h to it, and return the rows at the offsets side by side."""
        reach = offsets[-1]
        queue = self.take(f"queue.{block}", _FLOAT32, [reach, "B", channels])
        longer = self.add("Concat", queue, self.add("Unsqueeze", h, np.array([0])), axis=0)
        bounds = (np.array([n]) for n in (1, reach + 1, 0))
        name = self.add("Slice", longer, *bounds, name=f"next.{block}")
        self.queues_out.append(self.helper.make_tensor_value_info(name, _FLOAT32, [reach, "B", channels]))
        rows = [self.add("Gather", longer, offset, axis=0) for offset in offsets]
        return self.add("Concat", *rows, axis=1)

    def activated(self, convolved: str, activation: str) -> str:
        """Add the activation of ``wavegen.model.layers.activate``."""
        if activation != "gated":
            return self.add({"relu": "Relu", "tanh": "Tanh"}[activation], convolved)
        halves = [f"{convolved}.filter", f"{convolved}.gate"]
        self.nodes.append(self.helper.make_node("Split", [convolved], halves, axis=1))
        return self.add("Mul", self.add("Tanh", halves[0]), self.add("Sigmoid", halves[1]))


def _metadata(config: Config, distribution: Distribution) -> dict[str, str]:
    """Return the metadata that a program needs to run the step; lists as JSON."""
    quantizer = Quantizer(config.quantization.kind, config.quantization.classes)
    reach = (config.model.kernel_size - 1) * sum(config.model.dilations)
    facts: dict[str, Any] = {
        "sample_rate_hz": config.audio.sample_rate_hz,
        "quantization": quantizer.kind,
        "classes": quantizer.classes,
        "silence": quantizer.silence,
        "receptive_field": 1 + reach,
        "output": distribution.kind,
    }
    if isinstance(distribution, Mixture):
        limits = list(distribution.scale_limits)
        facts |= {"components": distribution.components, "mean_unit": MEAN_UNIT, "log_scale_limits": limits}
    if (source := build_conditioner(config).frames) is not None:
        facts |= {"frames": source.name, "hop_length": source.hop_length}
    if config.n_labels:
        facts["labels"] = config.data.label_names
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in facts.items()}
