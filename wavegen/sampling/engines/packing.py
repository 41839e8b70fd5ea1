"""A trained network laid out for the fused engine: every product's weights in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import ModelConfig
from wavegen.model.building import ACTIVATIONS, fold_weight_norm
from wavegen.model.outputs import MEAN_UNIT, Distribution, Mixture
from wavegen.sampling.engines.draws import DRAWS
from wavegen.sampling.engines.fused_kernel import Shape, Weights
from wavegen.sampling.engines.simd_matmul import GROUP, MOST_BITS, OFFSET, ROUNDED, TILE_REGISTERS, UNROLL
from wavegen.simd import DOT_PRODUCT, LANES

Precision = Literal["float32", "bfloat16", "int8"]

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

INPUTS_PER_WORD = {"float32": 1, "bfloat16": 2, "int8": 1}
LARGEST_INT8, LARGEST_INT32 = 127, 2**31 - 1
LINE_BYTES = 64


def padded(n: int, multiple: int) -> int:
    """Round up to the next multiple."""
    return -(-n // multiple) * multiple


@dataclass(frozen=True)
class PackedNetwork:
    """A network as the fused engine runs it.

    Args:
        shape: its sizes.
        weights: what the kernel reads.
        matrices: the products as (inputs, outputs) float32, as rounded, for the parallel pass that primes.
        biases: of the products.
    """

    shape: Shape
    weights: Weights
    matrices: list[Float32]
    biases: list[Float32]

    @property
    def receptive_field(self) -> int:
        """Samples of past that one prediction sees."""
        return 1 + int(self.weights.reaches.sum())

    def embed(self, classes: npt.NDArray[np.integer]) -> Float32:
        """Map (T,) classes to the first block's input, (T, R), as `wavegen.model.layers` does."""
        table = self.weights.table
        if not self.shape.is_scalar:
            known: Float32 = table[classes]
            return known
        last = self.shape.classes - 1
        place = (2 * classes - last).astype(np.float32) / np.float32(last)
        rows: Float32 = place[:, None] * table[0] + table[1]  # (T, 1) * (R,)
        return rows

    def queues_after(self, past: npt.NDArray[np.integer], gate_bias: Array | None) -> Float32:
        """Compute what a stream's queues hold after these samples: the forward pass of the blocks, in NumPy.

        One parallel pass, where the kernel would take a step for every sample of the receptive field; and no torch.

        Args:
            past: (T,) classes, T >= receptive field - 1.
            gate_bias: (blocks, outputs of a convolution) what conditions add; None for nothing.

        Returns:
            Flat, block by block: its last inputs, oldest first.
        """
        dilations, reaches = self.weights.dilations, self.weights.reaches
        activation = ACTIVATIONS[self.shape.activation]
        h = self.embed(past)  # (T, R)
        held = []
        for b, (dilation, reach) in enumerate(zip(dilations, reaches, strict=True)):
            held.append(h[len(h) - reach :].reshape(-1))
            if b + 1 == len(dilations):
                break
            # (T - reach, kernel_size R): the taps of each step side by side, the oldest first
            steps = len(h) - int(reach)
            starts = [tap * dilation for tap in range(self.shape.kernel_size)]
            taps = np.concatenate([h[start : start + steps] for start in starts], axis=1)
            convolved = taps @ self.matrices[2 * b] + self.biases[2 * b]  # (T - reach, 2 G), or G
            if gate_bias is not None:
                convolved = convolved + gate_bias[b, : convolved.shape[1]]
            h = h[reach:] + _activated(convolved, activation) @ self.matrices[2 * b + 1]  # h <- h + Wr z
        return np.concatenate(held)


def pack(
    weights: Mapping[str, Array], model: ModelConfig, distribution: Distribution, precision: Precision
) -> PackedNetwork:
    """Lay out a WaveNet.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names, without weight normalization.
        model: the section of the configuration: its dilations and activation; sizes are those of the weights.
        distribution: of a sample.
        precision: of the weights; sums and activations are float32, but for int8: see `simd_matmul`.

    Returns:
        The packed network.
    """
    kernel_size, convolved, channels = weights["blocks.0.conv.weight"].shape
    names = [f"blocks.{b}.{layer}" for b in range(len(model.dilations)) for layer in ("conv", "residual")]
    names = [*names[:-1], "skip", "head", "output"]  # the last block has no residual
    packed, layers, biases = [], [], []
    weight_at = bias_at = 0
    for name in names:
        matrix = _as_matrix(weights[f"{name}.weight"])
        n_inputs, n_outputs = matrix.shape
        product = pack_product(np.asarray(matrix, np.float32), precision)
        packed.append(product)
        bias = np.asarray(weights.get(f"{name}.bias", np.zeros(n_outputs)), np.float32)
        biases.append(bias)
        word = INPUTS_PER_WORD[precision]
        layers.append((weight_at, product.n_inputs, len(product.scale), bias_at, word, n_inputs, product.bits))
        weight_at += len(product.tiles)
        bias_at += len(product.scale)
    dilations = np.array(model.dilations, np.int64)
    return PackedNetwork(
        shape=Shape(
            kernel_size=kernel_size,
            residual_channels=channels,
            gate_channels=convolved // (2 if model.activation == "gated" else 1),
            classes=distribution.classes,
            n_parameters=distribution.n_parameters,
            output=DRAWS[distribution.kind],
            is_scalar=int("input.linear.weight" in weights),
            activation=ACTIVATIONS.index(model.activation),
        ),
        weights=Weights(
            tiles=aligned(np.concatenate([product.tiles for product in packed])),
            layers=np.array(layers, np.int64),
            bias=np.concatenate([np.pad(bias, (0, -len(bias) % LANES)) for bias in biases]),
            scale=np.concatenate([product.scale for product in packed]),
            start=np.concatenate([product.start for product in packed]),
            table=_input_table(weights),
            mixture=np.array(
                [MEAN_UNIT, *distribution.scale_limits] if isinstance(distribution, Mixture) else [0.0] * 3
            ),
            dilations=dilations,
            reaches=(kernel_size - 1) * dilations,
        ),
        matrices=[product.rounded for product in packed],
        biases=biases,
    )


def rounded_weights(weights: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """Round a WaveNet's weights as a precision does, by the names of a network without weight normalization."""
    rounded = fold_weight_norm(weights)
    for name, array in rounded.items():
        layer, _, part = name.rpartition(".")
        if part == "weight" and layer.startswith(("blocks.", "skip", "head", "output")):
            matrix = pack_product(_as_matrix(array), precision).rounded
            rounded[name] = matrix.reshape(array.swapaxes(-1, -2).shape).swapaxes(-1, -2)
    return rounded


def _as_matrix(weight: Array) -> Array:
    """Return a weight, (taps, outputs, inputs) or (outputs, inputs), as (taps inputs, outputs): taps side by side."""
    return weight.swapaxes(-1, -2).reshape(-1, weight.shape[-2])


def round_to_bfloat16(values: Float32) -> npt.NDArray[np.uint16]:
    """Return the upper 16 bits of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class PackedProduct(NamedTuple):
    """One product's weights.

    Attributes:
        rounded: (inputs, outputs) as rounded.
        n_inputs: with padding.
        scale, start: of each output, padded: what an int8 sum is multiplied by, and begins at.
        bits: that an input of int8 weights is rounded to, beside its sign.
        tiles: flat, in reading order.
    """

    rounded: Float32
    n_inputs: int
    scale: Float32
    start: npt.NDArray[np.int32]
    bits: int
    tiles: Array


def pack_product(matrix: Float32, precision: Precision) -> PackedProduct:
    """Lay out the weights of one product, (inputs, outputs)."""
    turn = ROUNDED if precision == "int8" and DOT_PRODUCT is not None else UNROLL
    n_inputs, n_outputs = padded(matrix.shape[0], turn), padded(matrix.shape[1], LANES)
    wide = np.zeros((n_inputs, n_outputs), np.float32)
    wide[: matrix.shape[0], : matrix.shape[1]] = matrix
    scale, start, bits = np.ones(n_outputs, np.float32), np.zeros(n_outputs, np.int32), 0
    stored: Array = wide
    if precision == "int8":
        # W[i, o] = scale[o] q[i, o], q in [-127, 127]: a scale for each output, its largest weight / 127
        scale = np.maximum(np.abs(wide).max(axis=0), np.finfo(np.float32).tiny) / LARGEST_INT8
        stored = np.rint(wide / scale).astype(np.int8)
        wide = stored.astype(np.float32) * scale
        bits = input_bits(int(np.abs(stored).sum(axis=0, dtype=np.int64).max()))
        if GROUP == 4:
            start -= OFFSET * stored.sum(axis=0, dtype=np.int32)  # modulo 2^32, see `simd_matmul`
    elif precision == "bfloat16":
        # (inputs, outputs) -> (inputs / 2, outputs) words
        upper = round_to_bfloat16(wide).astype(np.uint32)
        stored = (upper[0::2] << 16) | upper[1::2]  # the even input above, the odd one below
        wide = (upper << 16).view(np.float32)
    # tiles of four registers of outputs as far as they go, then two, then one; each (inputs, width), in reading order
    tiles, done = [], 0
    while done < n_outputs:
        left = (n_outputs - done) // LANES
        width = LANES * (TILE_REGISTERS if left >= TILE_REGISTERS else 2 if left >= 2 else 1)
        tile = stored[:, done : done + width]
        if precision == "int8" and DOT_PRODUCT is not None:
            # (inputs, width) -> (inputs / GROUP, width, GROUP): of the inputs that are rounded in a turn, i and
            # i + LANES side by side, and with i + 1 and i + LANES + 1 where four share a lane
            tile = tile.reshape(-1, 2, ROUNDED // GROUP, GROUP // 2, width).transpose(0, 2, 4, 3, 1)
        tiles.append(np.ascontiguousarray(tile).reshape(-1))
        done += width
    rounded = wide[: matrix.shape[0], : matrix.shape[1]]
    return PackedProduct(rounded, n_inputs, scale, start, bits, np.concatenate(tiles))


def input_bits(largest_sum: int) -> int:
    """Return how many bits beside a sign the inputs may have.

    Args:
        largest_sum: of the absolute values of an output's int8 weights.
    """
    return min(MOST_BITS, (LARGEST_INT32 // max(largest_sum, 1)).bit_length() - 1)


def aligned(array: Array) -> Array:
    """Copy an array to where a line of the processor's cache begins: a register that lies across two loads both."""
    room = np.empty(array.nbytes + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _input_table(weights: Mapping[str, Array]) -> Float32:
    if "input.linear.weight" in weights:  # ScalarInput
        return np.stack([weights["input.linear.weight"][:, 0], weights["input.linear.bias"]])
    table = np.asarray(weights["input.weight"], np.float32)
    return table + weights["input.bias"] if "input.bias" in weights else np.ascontiguousarray(table)


def _activated(convolved: Float32, activation: str) -> Float32:
    """Compute ``wavegen.model.layers.activate`` in NumPy."""
    if activation == "relu":
        return np.maximum(convolved, np.float32(0.0))
    if activation == "tanh":
        return np.tanh(convolved)
    filter_, gate = np.split(convolved, 2, axis=1)
    z: Float32 = np.tanh(filter_) * (0.5 + 0.5 * np.tanh(0.5 * gate))  # sigmoid without overflow
    return z
