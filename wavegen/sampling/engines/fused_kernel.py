"""The fused sampling loop: from one sample to the next without leaving compiled code.

All streams of a call take their step together, so that each weight is read once for all of them; what one stream
computes does not depend on the others. Compiled for the host by numba, once per machine, and kept on disk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from wavegen.sampling.engines import draws as compiled_draws
from wavegen.sampling.engines import simd_matmul
from wavegen.sampling.engines.draws import ONE, SOFTMAX, TWO, ZERO, draw_class, draw_from_mixture, exp
from wavegen.sampling.engines.simd_matmul import TILE_REGISTERS, TILE_STREAMS, build_tile_product, inputs_for, prefetch
from wavegen.simd import INFINITE, KERNEL, LANES, key_cache_by_sources, load, store

DONE, NOT_FINITE = 0, 1
GATED, RELU, TANH = 0, 1, 2
TANH_SATURATES, SIGMOID_SATURATES = np.float32(9.0), np.float32(40.0)  # beyond, float32 has no digit left
EXPONENT = np.int32(INFINITE)
LINE = 16  # float32 numbers in a line of the processor's cache

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Shape(NamedTuple):
    """The sizes of a network, R residual channels and G gate channels among them; whole numbers, as numba has them."""

    kernel_size: int
    residual_channels: int
    gate_channels: int
    classes: int
    n_parameters: int
    output: int  # one of ``draws.DRAWS``
    is_scalar: int  # 1: a class enters as a number, 0: as a row of a table
    activation: int  # GATED, RELU or TANH


class Weights(NamedTuple):
    """A network's weights in the order in which a step reads them; see `wavegen.sampling.engines.packing`.

    Attributes:
        tiles: of all products, flat: float32, uint32 (pairs of bfloat16) or int8.
        layers: (2 blocks + 2, 7): of the gate and the residual product of each block (the last has no residual), the
            skips, the head and the output: where its tiles begin, inputs, outputs, where its biases begin, inputs in
            a word, inputs without padding, bits of a rounded input beside its sign.
        bias: flat, padded to whole registers.
        scale, start: flat, by output; int8's only: what its sums are multiplied by, and begin at.
        table: (classes, R) what the input layer makes of each class; of a scalar input (2, R), its weight and bias.
        mixture: (3,) the unit of a mixture's means, the limits of its log-scales.
        dilations: of each block.
        reaches: of each block: (kernel_size - 1) * dilation.
    """

    tiles: npt.NDArray[Any]
    layers: Int64
    bias: Float32
    scale: Float32
    start: npt.NDArray[np.int32]
    table: Float32
    mixture: npt.NDArray[np.float64]
    dilations: Int64
    reaches: Int64


class GateBias(NamedTuple):
    """The gate bias: what conditions add to each block's convolution.

    Attributes:
        table: (tables, rows, blocks, outputs of a convolution, padded); empty for nothing.
        table_of: (S,) which table each stream takes.
        row_of: (n,) which of its rows each sample.
    """

    table: Float32
    table_of: Int64
    row_of: Int64


class Queues(NamedTuple):
    """The ring buffers of S streams, and what is fed next.

    Attributes:
        rings: (S, sum of reaches * R): each block's last inputs.
        begins: of each block: where its ring begins in a row.
        oldest: of each block: the slot of its oldest input, which is the next to be overwritten.
        newest: (S,) the newest sample, which is the next step's input.
    """

    rings: Float32
    begins: Int64
    oldest: Int64
    newest: Int64


class Work(NamedTuple):
    """The work space of a step, (S, size) each, padded to whole registers and turns of the products' loop."""

    taps: Float32  # kernel_size * R: a block's inputs, the oldest first
    h: Float32  # R: between the blocks
    gates: Float32  # 2 G, or G: the convolution's outputs
    z: Float32  # blocks * G: all blocks' outputs side by side
    residual: Float32  # R
    skip: Float32
    head: Float32
    output: Float32
    rounded: npt.NDArray[np.int32]  # UNIT + n_inputs / 2: those of one product at a time, for int8 weights
    p: Float32  # (classes,) of one stream at a time
    shares: npt.NDArray[np.float64]  # (parameters,) of one stream at a time


class Draws(NamedTuple):
    """The draws of a call: their uniform numbers, their settings, and their results.

    Attributes:
        uniforms: (S, n) one number for each draw.
        forced: (S, n) samples to take instead of drawing; (0, 0) to draw.
        temperature, top_k, top_p: of the distribution.
        drawn: (S, n) the samples, filled.
        traced: (S, n, n_parameters) the distributions' parameters, filled; without rows to leave them out.
    """

    uniforms: npt.NDArray[np.float64]
    forced: Int64
    temperature: float
    top_k: int
    top_p: float
    drawn: Int64
    traced: Float32


# products[streams][registers], by name because numba resolves names, not subscripts
_product_4_4, _product_4_2, _product_4_1 = (build_tile_product(TILE_STREAMS, n) for n in (TILE_REGISTERS, 2, 1))
_product_1_4, _product_1_2, _product_1_1 = (build_tile_product(1, n) for n in (TILE_REGISTERS, 2, 1))


@njit(**KERNEL)
def _gate(filters, gates, z):
    """Compute z = tanh(filter) sigmoid(gate), with one division: (e^2f - 1) / ((e^2f + 1) (1 + e^-g))."""
    for i in range(len(z)):
        f = min(max(filters[i], -TANH_SATURATES), TANH_SATURATES)
        g = min(max(gates[i], -SIGMOID_SATURATES), SIGMOID_SATURATES)
        e = exp(TWO * f)
        z[i] = (e - ONE) / ((e + ONE) * (ONE + exp(-g)))


@njit(**KERNEL)
def _activate(convolved, is_relu, z):
    """Compute z of a block without a gate: max(f, 0), or tanh(f) = (e^2f - 1) / (e^2f + 1)."""
    for i in range(len(z)):
        f = convolved[i]
        if is_relu:
            z[i] = max(f, ZERO)
        else:
            e = exp(TWO * min(max(f, -TANH_SATURATES), TANH_SATURATES))
            z[i] = (e - ONE) / (e + ONE)


@njit(**KERNEL)
def _multiply(weights, layer, x, x_at, x_step, bias, scale, start, y, y_step, n_streams):
    """Set y = b + W x for all streams, tile by tile of up to four registers of outputs.

    Args:
        weights: all tiles.
        layer: a row of ``Weights.layers``.
        x: flat, as ``inputs_for`` returns it; stream s begins at x_at + s * x_step.
        bias, scale, start: flat.
        y: flat; stream s begins at s * y_step.
        n_streams: S; in fours as far as they go, so that a weight is loaded once for four streams.
    """
    at, n_inputs, n_outputs, bias_at, packing = layer[0], layer[1], layer[2], layer[3], layer[4]
    done = 0
    while done < n_outputs:
        left = (n_outputs - done) // LANES
        registers = TILE_REGISTERS if left >= TILE_REGISTERS else (2 if left >= 2 else 1)
        b = bias_at + done
        s = 0
        while s + TILE_STREAMS <= n_streams:
            xs, ys = x_at + s * x_step, done + s * y_step
            if registers == TILE_REGISTERS:
                _product_4_4(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            elif registers == 2:
                _product_4_2(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            else:
                _product_4_1(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            s += TILE_STREAMS
        while s < n_streams:
            xs, ys = x_at + s * x_step, done + s * y_step
            if registers == TILE_REGISTERS:
                _product_1_4(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            elif registers == 2:
                _product_1_2(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            else:
                _product_1_1(weights, at, x, xs, x_step, n_inputs, bias, scale, start, b, y, ys, y_step)
            s += 1
        done += registers * LANES
        at += n_inputs * registers * LANES // packing


@njit(**KERNEL)
def _copy(x, y):
    """Set y = x."""
    for i in range(len(y)):
        y[i] = x[i]


@njit(**KERNEL)
def _add(x, y):
    """Set y = y + x."""
    for i in range(len(y)):
        y[i] += x[i]


@njit(**KERNEL)
def _rectify(x, n):
    for i in range(n):
        x[i] = max(x[i], ZERO)


@njit(**KERNEL)
def _all_finite(bits):
    """Return whether float32 numbers, given as int32, are finite; integers are compared side by side."""
    largest = np.int32(0)
    for i in range(len(bits)):
        largest = max(largest, bits[i] & EXPONENT)
    return largest != EXPONENT


@njit(**KERNEL, inline="always")
def _slot(place, reach):
    """Return the slot of a ring from a place below twice its size; a division would take ten times as long."""
    return place - reach if place >= reach else place


@njit(**KERNEL)
def run(shape, weights, gate_bias, queues, work, draws):
    """Take all streams through n samples.

    Args:
        shape: a ``Shape``.
        weights: ``Weights``.
        gate_bias: a ``GateBias``.
        queues: ``Queues``, changed.
        work: ``Work``, changed.
        draws: ``Draws``; ``drawn`` and ``traced`` are filled.

    Returns:
        DONE or NOT_FINITE.
    """
    # The fields as names: a loop then reads them from registers.
    tiles, layers, bias, scale, table = weights.tiles, weights.layers, weights.bias, weights.scale, weights.table
    start = weights.start
    dilations, reaches = weights.dilations, weights.reaches
    added, table_of, row_of = gate_bias.table, gate_bias.table_of, gate_bias.row_of
    begins, oldest, newest = queues.begins, queues.oldest, queues.newest
    taps, h, gates, z, residual = work.taps, work.h, work.gates, work.z, work.residual
    skip, head, output, rounded, p = work.skip, work.head, work.output, work.rounded, work.p
    flat_rounded, rounded_step = rounded.reshape(-1), rounded.shape[1]
    n_streams, n_blocks = len(newest), len(dilations)
    kernel, channels, gate_channels, n_classes = (
        shape.kernel_size, shape.residual_channels, shape.gate_channels, shape.classes
    )  # fmt: skip
    n_parameters, kind, is_scalar, activation = shape.n_parameters, shape.output, shape.is_scalar == 1, shape.activation
    # Flat views for products: stream s of (S, size) begins at s * size. Loops over elements take slices instead, from 0
    # on: an index that is a sum might be negative for all the compiler knows, and count from the end, as in Python.
    # Then it takes one number at a time instead of a register.
    flat_queues, queue_step = queues.rings.reshape(-1), queues.rings.shape[1]
    flat_taps, flat_gates, flat_z, flat_residual = (
        taps.reshape(-1), gates.reshape(-1), z.reshape(-1), residual.reshape(-1)
    )  # fmt: skip
    flat_skip, flat_head = skip.reshape(-1), head.reshape(-1)
    # (tables * rows * blocks, outputs): row (table * rows + row) * blocks + b
    flat_output, added_rows = output.reshape(-1), added.reshape(-1, max(1, added.shape[3]))
    output_bits = output.view(np.int32)
    shares = work.shares
    is_forced, is_traced = len(draws.forced) > 0, len(draws.traced) > 0
    for t in range(draws.uniforms.shape[1]):
        # Phase 1, prefetch and input: h = embedding of x[t - 1]. What the step will read of the queues lies where it
        # was written up to thousands of steps ago, out of the cache: all of it is prefetched.
        for s in range(n_streams):
            for b in range(n_blocks):
                for tap in range(kernel - 1):
                    at = s * queue_step + begins[b] + _slot(oldest[b] + tap * dilations[b], reaches[b]) * channels
                    for line in range(0, channels, LINE):
                        prefetch(flat_queues, at + line)
            if is_scalar:
                # h = w x + b, x = (2 c - (classes - 1)) / (classes - 1), the class's place between -1 and 1
                place = np.float32(2 * newest[s] - (n_classes - 1)) / np.float32(n_classes - 1)
                for c in range(channels):
                    h[s, c] = place * table[0, c] + table[1, c]
            else:
                for c in range(channels):
                    h[s, c] = table[newest[s], c]
        for b in range(n_blocks):
            # Phase 2, taps: (kernel_size * R,) = h[t - (kernel_size - 1) d], ..., h[t - d], h[t] side by side, so that
            # the convolution is one product. The ring holds (kernel_size - 1) d steps: tap j is j d slots after the
            # oldest, and h[t] takes the place of the oldest, which no later step reads.
            for s in range(n_streams):
                base = s * queue_step + begins[b]
                newest_h = h[s, :channels]
                for tap in range(kernel - 1):
                    at = base + _slot(oldest[b] + tap * dilations[b], reaches[b]) * channels
                    _copy(flat_queues[at : at + channels], taps[s, tap * channels : (tap + 1) * channels])
                at = base + oldest[b] * channels
                _copy(newest_h, taps[s, (kernel - 1) * channels : kernel * channels])
                _copy(newest_h, flat_queues[at : at + channels])
            oldest[b] = _slot(oldest[b] + 1, reaches[b])
            # Phase 3, convolution: gates = [Wf; Wg] taps + b, and + V c of the streams' conditions (WaveNet, 2.5).
            layer = layers[2 * b]
            x, at, step = inputs_for(tiles, layer, flat_taps, 0, taps.shape[1], flat_rounded, rounded_step, n_streams)
            _multiply(tiles, layer, x, at, step, bias, scale, start, flat_gates, gates.shape[1], n_streams)
            if len(added):
                for s in range(n_streams):
                    row = (table_of[s] * added.shape[1] + row_of[t]) * n_blocks + b
                    for i in range(0, added.shape[3], LANES):
                        store(gates, s, i, load(gates, s, i) + load(added_rows, row, i))
            # Phase 4, gate: z = tanh(f) sigmoid(g) (WaveNet, 2.3), into this block's place among all blocks'.
            z_at = b * gate_channels
            for s in range(n_streams):
                filters, to = gates[s, :gate_channels], z[s, z_at : z_at + gate_channels]
                if activation == GATED:
                    _gate(filters, gates[s, gate_channels : 2 * gate_channels], to)
                else:
                    _activate(filters, activation == RELU, to)
            # Phase 5, residual: h <- h + Wr z. The last block has none: nothing reads its h.
            if b + 1 < n_blocks:
                layer = layers[2 * b + 1]
                x, at, step = inputs_for(tiles, layer, flat_z, z_at, z.shape[1], flat_rounded, rounded_step, n_streams)
                _multiply(tiles, layer, x, at, step, bias, scale, start, flat_residual, residual.shape[1], n_streams)
                for s in range(n_streams):
                    _add(residual[s, :channels], h[s, :channels])
        # Phase 6, skips and head: W3 relu(W2 relu([Ws0 ... WsL] [z0; ...; zL] + b1) + b2) + b3. The sum of all blocks'
        # skips is one product over all z, whose sums stay in registers.
        layer = layers[2 * n_blocks - 1]
        x, at, step = inputs_for(tiles, layer, flat_z, 0, z.shape[1], flat_rounded, rounded_step, n_streams)
        _multiply(tiles, layer, x, at, step, bias, scale, start, flat_skip, skip.shape[1], n_streams)
        _rectify(flat_skip, len(flat_skip))
        layer = layers[2 * n_blocks]
        x, at, step = inputs_for(tiles, layer, flat_skip, 0, skip.shape[1], flat_rounded, rounded_step, n_streams)
        _multiply(tiles, layer, x, at, step, bias, scale, start, flat_head, head.shape[1], n_streams)
        _rectify(flat_head, len(flat_head))
        layer = layers[2 * n_blocks + 1]
        x, at, step = inputs_for(tiles, layer, flat_head, 0, head.shape[1], flat_rounded, rounded_step, n_streams)
        _multiply(tiles, layer, x, at, step, bias, scale, start, flat_output, output.shape[1], n_streams)
        # Phase 7, draw: x[t] from p(x[t] | x[<t]) and this sample's uniform number, or the sample that is given.
        for s in range(n_streams):
            at, u = s * output.shape[1], draws.uniforms[s, t]
            if not _all_finite(output_bits[s, :n_parameters]):
                return NOT_FINITE
            if is_forced:
                newest[s] = draws.forced[s, t]
            elif kind == SOFTMAX:
                logits = output[s, :n_classes]
                newest[s] = draw_class(logits, u, draws.temperature, draws.top_k, draws.top_p, p, shares)
            else:
                newest[s] = draw_from_mixture(
                    flat_output, at, n_parameters // 3, n_classes, weights.mixture, kind, u,
                    draws.temperature, shares,
                )  # fmt: skip
            draws.drawn[s, t] = newest[s]
            if is_traced:
                for i in range(n_parameters):
                    draws.traced[s, t, i] = output[s, i]
    return DONE


key_cache_by_sources(globals(), simd_matmul, compiled_draws)
