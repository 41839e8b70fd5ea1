"""A trained network laid out for the fused engine: every product's weights in the order in which they are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.model.building import ACTIVATIONS, fold_weight_norm
from wavegen.model.outputs import Distribution
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
    weights: Mapping[str, Array],
    dilations: Sequence[int],
    distribution: Distribution,
    precision: Precision,
    activation: str = "gated",
) -> PackedNetwork:
    """Lay out a WaveNet.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names, without weight normalization.
        dilations: of its blocks.
        distribution: of a sample.
        precision: of the weights; sums and activations are float32, but for int8: see `simd_matmul`.
        activation: of its blocks, one of ``wavegen.model.building.ACTIVATIONS``.

    Returns:
        The packed network.
    """
    blocks = range(len(dilations))
    kernel_size, convolved, channels = weights["blocks.0.conv.weight"].shape
    products: list[tuple[Float32, Float32]] = []
    for b in blocks:
        conv = weights[f"blocks.{b}.conv.weight"]  # (taps, convolved, residual)
        # (taps, outputs, R) -> (taps R, outputs), as the taps lie side by side
        products.append((conv.transpose(0, 2, 1).reshape(-1, convolved), _bias(weights, f"blocks.{b}.conv", convolved)))
        if b + 1 < len(dilations):
            products.append((weights[f"blocks.{b}.residual.weight"].T, np.zeros(channels, np.float32)))
    for name in ("skip", "head", "output"):
        matrix = weights[f"{name}.weight"]
        products.append((matrix.T, _bias(weights, name, len(matrix))))

    tiles: list[Array] = []
    layers, biases, scales, starts, matrices = [], [], [], [], []
    weight_at = bias_at = 0
    for matrix, bias in products:
        packed = pack_product(np.asarray(matrix, np.float32), precision)
        n_inputs, n_outputs = _padded_shape(matrix, precision)
        word = INPUTS_PER_WORD[precision]
        layers.append((weight_at, n_inputs, n_outputs, bias_at, word, matrix.shape[0], packed.bits))
        tiles += packed.tiles
        weight_at += sum(map(len, packed.tiles))
        bias_at += n_outputs
        biases.append(_widen(bias, n_outputs))
        scales.append(packed.scale)
        starts.append(packed.start)
        matrices.append(packed.rounded)
    reaches = [(kernel_size - 1) * dilation for dilation in dilations]
    return PackedNetwork(
        shape=Shape(
            kernel_size=kernel_size,
            residual_channels=channels,
            gate_channels=convolved // (2 if activation == "gated" else 1),
            classes=distribution.classes,
            n_parameters=distribution.n_parameters,
            output=DRAWS[distribution.kind],
            is_scalar=int("input.linear.weight" in weights),
            activation=ACTIVATIONS.index(activation),
        ),
        weights=Weights(
            tiles=aligned(np.concatenate(tiles)),
            layers=np.array(layers, np.int64),
            bias=np.concatenate(biases),
            scale=np.concatenate(scales),
            start=np.concatenate(starts),
            table=_input_table(weights),
            mixture=np.array(distribution.draw_constants),
            dilations=np.array(dilations, np.int64),
            reaches=np.array(reaches, np.int64),
        ),
        matrices=matrices,
        biases=[np.asarray(bias, np.float32) for _, bias in products],
    )


def rounded_weights(weights: Mapping[str, Array], precision: Precision) -> dict[str, Array]:
    """Round a WaveNet's weights as a precision does, by the names of a network without weight normalization."""
    rounded = fold_weight_norm(weights)
    for name, array in rounded.items():
        layer, _, part = name.rpartition(".")
        if part == "weight" and layer.startswith(("blocks.", "skip", "head", "output")):
            # (taps, outputs, inputs) -> (taps inputs, outputs); of the others (outputs, inputs) -> (inputs, outputs)
            taps = array if array.ndim == 3 else array[None]
            matrix = pack_product(taps.transpose(0, 2, 1).reshape(-1, taps.shape[1]), precision).rounded
            back = matrix.reshape(len(taps), -1, taps.shape[1]).transpose(0, 2, 1)
            rounded[name] = back if array.ndim == 3 else back[0]
    return rounded


def round_to_bfloat16(values: Float32) -> npt.NDArray[np.uint16]:
    """Return the upper 16 bits of each float32, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class PackedProduct(NamedTuple):
    """One product's weights.

    Attributes:
        rounded: (inputs, outputs) as rounded.
        scale, start: of each output, padded: what an int8 sum is multiplied by, and begins at.
        bits: that an input of int8 weights is rounded to, beside its sign.
        tiles: each flat and in reading order.
    """

    rounded: Float32
    scale: Float32
    start: npt.NDArray[np.int32]
    bits: int
    tiles: list[Array]


def pack_product(matrix: Float32, precision: Precision) -> PackedProduct:
    """Lay out the weights of one product, (inputs, outputs)."""
    n_inputs, n_outputs = _padded_shape(matrix, precision)
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
    return PackedProduct(wide[: matrix.shape[0], : matrix.shape[1]], scale, start, bits, tiles)


def _padded_shape(matrix: Float32, precision: Precision) -> tuple[int, int]:
    turn = ROUNDED if precision == "int8" and DOT_PRODUCT is not None else UNROLL
    return padded(matrix.shape[0], turn), padded(matrix.shape[1], LANES)


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


def _bias(weights: Mapping[str, Array], layer: str, n: int) -> Float32:
    """Return a layer's biases, or zeros."""
    known = weights.get(f"{layer}.bias")
    return np.zeros(n, np.float32) if known is None else np.asarray(known, np.float32)


def _widen(values: Array, length: int) -> Float32:
    wide = np.zeros(length, np.float32)
    wide[: len(values)] = values
    return wide


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
