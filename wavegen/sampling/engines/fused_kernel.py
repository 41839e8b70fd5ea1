"""The fused sampling loop: from one sample to the next without leaving compiled code.

All streams of a call take their step together, so that each weight is read once for all of them; what one stream
computes does not depend on the others. Compiled for the host by numba, once per machine, and kept on disk.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from wavegen.sampling.engines import normal_quantile as quantile_module
from wavegen.sampling.engines import vector_tiles
from wavegen.sampling.engines.normal_quantile import normal_quantile
from wavegen.sampling.engines.vector_tiles import (
    TILE_REGISTERS,
    TILE_STREAMS,
    build_tile_product,
    power_of_two,
    prefetch,
)
from wavegen.vectors import LANES, key_cache_by_sources, load, store

DONE, NOT_FINITE = 0, 1
SOFTMAX, LOGISTIC_MIXTURE, GAUSSIAN_MIXTURE = 0, 1, 2
GATED, RELU, TANH = 0, 1, 2
SMALLEST_UNIFORM = 2.0**-53

# products[streams][registers], by name because numba resolves names, not subscripts
_product_4_4, _product_4_2, _product_4_1 = (build_tile_product(TILE_STREAMS, n) for n in (TILE_REGISTERS, 2, 1))
_product_1_4, _product_1_2, _product_1_1 = (build_tile_product(1, n) for n in (TILE_REGISTERS, 2, 1))

# exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln2/2, ln2/2]: Cephes' expf, S. Moshier; its error is below 2 ulp
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C0, C1, C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C3, C4, C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, TWO, HALF, ZERO = np.float32(1.0), np.float32(2.0), np.float32(0.5), np.float32(0.0)
LARGEST_EXPONENT = np.float32(87.0)
TANH_SATURATES, SIGMOID_SATURATES = np.float32(9.0), np.float32(40.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _exp(x):
    clamped = min(max(x, -LARGEST_EXPONENT), LARGEST_EXPONENT)
    n = np.floor(clamped * LOG2_E + HALF)
    r = clamped - n * LN2_HIGH - n * LN2_LOW
    series = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    return (series * r * r + r + ONE) * power_of_two(np.int32(n))


@njit(cache=True, nogil=True, error_model="numpy")
def _gate(gates, at, n, z, z_at):
    """Compute z = tanh(filter) sigmoid(gate), with one division: (e^2f - 1) / ((e^2f + 1) (1 + e^-g))."""
    for i in range(n):
        f = min(max(gates[at + i], -TANH_SATURATES), TANH_SATURATES)
        g = min(max(gates[at + n + i], -SIGMOID_SATURATES), SIGMOID_SATURATES)
        e = _exp(TWO * f)
        z[z_at + i] = (e - ONE) / ((e + ONE) * (ONE + _exp(-g)))


@njit(cache=True, nogil=True, error_model="numpy")
def _activate(convolved, at, n, is_relu, z, z_at):
    """Compute z of a block without a gate: max(f, 0), or tanh(f) = (e^2f - 1) / (e^2f + 1)."""
    for i in range(n):
        f = convolved[at + i]
        if is_relu:
            z[z_at + i] = max(f, ZERO)
        else:
            e = _exp(TWO * min(max(f, -TANH_SATURATES), TANH_SATURATES))
            z[z_at + i] = (e - ONE) / (e + ONE)


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply(weights, layer, x, x_at, x_step, bias, scale, y, y_step, n_streams):
    """Set y = b + W x for all streams; layer = (weight_at, n_inputs, n_outputs, bias_at, inputs in a word)."""
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
                _product_4_4(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            elif registers == 2:
                _product_4_2(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            else:
                _product_4_1(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            s += TILE_STREAMS
        while s < n_streams:
            xs, ys = x_at + s * x_step, done + s * y_step
            if registers == TILE_REGISTERS:
                _product_1_4(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            elif registers == 2:
                _product_1_2(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            else:
                _product_1_1(weights, at, x, xs, x_step, n_inputs, bias, scale, b, y, ys, y_step)
            s += 1
        done += registers * LANES
        at += n_inputs * registers * LANES // packing


@njit(cache=True, nogil=True, error_model="numpy")
def _rectify(x, n):
    for i in range(n):
        x[i] = max(x[i], ZERO)


@njit(cache=True, nogil=True, error_model="numpy")
def _all_finite(x, at, n):
    check = ZERO
    for i in range(n):
        check += x[at + i] * ZERO
    return check == ZERO


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_class(logits, at, n_classes, u, temperature, top_k, top_p, p):
    """Draw a class as `wavegen.model.outputs.Softmax` does."""
    best, highest = 0, logits[at]
    for c in range(n_classes):
        if logits[at + c] > highest:
            best, highest = c, logits[at + c]
    if temperature == 0.0:
        return best
    for c in range(n_classes):
        distance = np.float32((logits[at + c] - highest) / temperature)
        p[c] = _exp(distance) if distance > -LARGEST_EXPONENT else ZERO
    if top_k < n_classes or top_p < 1.0:
        _truncate(p, n_classes, top_k, top_p)
    total = 0.0
    for c in range(n_classes):
        total += p[c]
    target, below, last = u * total, 0.0, 0
    for c in range(n_classes):
        if p[c] > ZERO:
            last = c
            below += p[c]
            if below > target:
                return c
    return last


@njit(cache=True, nogil=True, error_model="numpy")
def _truncate(p, n_classes, top_k, top_p):
    """Set to 0 what top-k, then top-p leave out; among equals the lower class is kept first."""
    order = np.argsort(-p[:n_classes], kind="mergesort")
    kept = 0.0
    for rank in range(min(top_k, n_classes)):
        kept += p[order[rank]]
    before = 0.0
    for rank in range(n_classes):
        c = order[rank]
        if rank >= top_k or (top_p < 1.0 and before >= top_p * kept):
            p[c] = ZERO
        else:
            before += p[c]


@njit(cache=True, nogil=True, error_model="numpy")
def draw_from_mixture(parameters, at, components, n_classes, mixture, is_gaussian, u, temperature, shares):
    """Draw a class as `wavegen.model.mixtures` does, in float64."""
    best, highest = 0, parameters[at]
    for k in range(components):
        if parameters[at + k] > highest:
            best, highest = k, parameters[at + k]
    if temperature == 0.0:
        place = mixture[0] * parameters[at + components + best]
    else:
        total, last = 0.0, 0
        for k in range(components):
            shares[k] = math.exp((np.float64(parameters[at + k]) - highest) / temperature)
            total += shares[k]
            if shares[k] > 0.0:
                last = k
        target, before, k = u * total, 0.0, 0
        while k < last and before + shares[k] <= target:
            before += shares[k]
            k += 1
        left = min(max((target - before) / shares[k], SMALLEST_UNIFORM), 1.0 - SMALLEST_UNIFORM)
        log_scale = min(max(np.float64(parameters[at + 2 * components + k]), mixture[1]), mixture[2])
        quantile = normal_quantile(left) if is_gaussian else math.log(left) - math.log1p(-left)
        place = mixture[0] * parameters[at + components + k] + math.exp(log_scale) * temperature * quantile
    return np.int64(math.floor(min(max((place + 1.0) * (0.5 * n_classes), 0.0), n_classes - 1.0)))


@njit(cache=True, nogil=True, error_model="numpy")
def run(
    weights, layers, bias, scale, table, shape, mixture, dilations, reaches, added, table_of, row_of,
    queues, queue_at, oldest, last, taps, h, gates, z, residual, skip, head, output, p,
    uniforms, forced, temperature, top_k, top_p, drawn, traced,
):  # fmt: skip
    """Take all streams through n samples.

    Args:
        weights, bias, scale, table, mixture: the packed model; see `PackedNetwork`.
        layers: (2 * blocks + 2, 5) int64: gate and residual product of each block, then skip, head and output.
        shape: (kernel_size, residual_channels, gate_channels, classes, parameters of the output distribution, its kind,
            whether the input is a scalar, the blocks' activation).
        dilations, reaches: of each block.
        added: (tables, R, blocks, outputs of a convolution, padded) what conditions add to it; empty for nothing.
        table_of, row_of: which table each stream takes, and which of its rows each sample.
        queues: (S, sum of reaches * residual_channels) each stream's ring buffers.
        queue_at, oldest: where each block's begins, and its oldest slot.
        last: (S,) the newest sample, which is the next step's input.
        taps ... p: (S, ...) work space.
        uniforms: (S, n) one number for each draw.
        forced: (S, n) samples to take instead of drawing; (0, 0) to draw.
        temperature, top_k, top_p: of the distribution.
        drawn: (S, n) the samples, filled.
        traced: (S, n, parameters) the output distribution's parameters, filled; (0, 0, 0) to leave out.

    Returns:
        DONE or NOT_FINITE.
    """
    n_streams, n_blocks = len(last), len(dilations)
    kernel, channels, gate_channels, n_classes = shape[0], shape[1], shape[2], shape[3]
    n_parameters, kind, is_scalar, activation = shape[4], shape[5], shape[6] == 1, shape[7]
    flat_queues, queue_step = queues.reshape(-1), queues.shape[1]
    flat_taps, flat_h, flat_gates, flat_z = taps.reshape(-1), h.reshape(-1), gates.reshape(-1), z.reshape(-1)
    flat_residual, flat_skip, flat_head = residual.reshape(-1), skip.reshape(-1), head.reshape(-1)
    flat_output, added_rows = output.reshape(-1), added.reshape(-1, max(1, added.shape[3]))
    shares = np.empty(n_parameters, np.float64)
    is_forced, is_traced = len(forced) > 0, len(traced) > 0
    for t in range(uniforms.shape[1]):
        for s in range(n_streams):
            for b in range(n_blocks):
                for tap in range(kernel - 1):
                    slot = (oldest[b] + tap * dilations[b]) % reaches[b]
                    at = s * queue_step + queue_at[b] + slot * channels
                    for line in range(0, channels, 16):
                        prefetch(flat_queues, at + line)
            if is_scalar:
                place = np.float32(2 * last[s] - (n_classes - 1)) / np.float32(n_classes - 1)
                for c in range(channels):
                    h[s, c] = place * table[0, c] + table[1, c]
            else:
                for c in range(channels):
                    h[s, c] = table[last[s], c]
        for b in range(n_blocks):
            for s in range(n_streams):
                base = s * queue_step + queue_at[b]
                to = s * taps.shape[1]
                for tap in range(kernel - 1):
                    at = base + (oldest[b] + tap * dilations[b]) % reaches[b] * channels
                    for c in range(channels):
                        flat_taps[to + c] = flat_queues[at + c]
                    to += channels
                newest, from_h = base + oldest[b] * channels, s * h.shape[1]
                for c in range(channels):
                    flat_taps[to + c] = flat_h[from_h + c]
                    flat_queues[newest + c] = flat_h[from_h + c]
            oldest[b] = (oldest[b] + 1) % reaches[b]
            _multiply(
                weights, layers[2 * b], flat_taps, 0, taps.shape[1], bias, scale, flat_gates, gates.shape[1], n_streams
            )
            if len(added):
                for s in range(n_streams):
                    row = (table_of[s] * added.shape[1] + row_of[t]) * n_blocks + b
                    for i in range(0, added.shape[3], LANES):
                        store(gates, s, i, load(gates, s, i) + load(added_rows, row, i))
            z_at = b * gate_channels
            for s in range(n_streams):
                at, to = s * gates.shape[1], s * z.shape[1] + z_at
                if activation == GATED:
                    _gate(flat_gates, at, gate_channels, flat_z, to)
                else:
                    _activate(flat_gates, at, gate_channels, activation == RELU, flat_z, to)
            if b + 1 < n_blocks:
                _multiply(
                    weights, layers[2 * b + 1], flat_z, z_at, z.shape[1], bias, scale, flat_residual, residual.shape[1],
                    n_streams,
                )  # fmt: skip
                for s in range(n_streams):
                    from_residual, to_h = s * residual.shape[1], s * h.shape[1]
                    for c in range(channels):
                        flat_h[to_h + c] += flat_residual[from_residual + c]
        at_layer = 2 * n_blocks - 1
        _multiply(weights, layers[at_layer], flat_z, 0, z.shape[1], bias, scale, flat_skip, skip.shape[1], n_streams)
        _rectify(flat_skip, len(flat_skip))
        at_layer += 1
        _multiply(
            weights, layers[at_layer], flat_skip, 0, skip.shape[1], bias, scale, flat_head, head.shape[1], n_streams
        )
        _rectify(flat_head, len(flat_head))
        at_layer += 1
        _multiply(
            weights, layers[at_layer], flat_head, 0, head.shape[1], bias, scale, flat_output, output.shape[1], n_streams
        )
        for s in range(n_streams):
            at, u = s * output.shape[1], uniforms[s, t]
            if not _all_finite(flat_output, at, n_parameters):
                return NOT_FINITE
            if is_forced:
                last[s] = forced[s, t]
            elif kind == SOFTMAX:
                last[s] = _draw_class(flat_output, at, n_classes, u, temperature, top_k, top_p, p)
            else:
                last[s] = draw_from_mixture(
                    flat_output, at, n_parameters // 3, n_classes, mixture, kind == GAUSSIAN_MIXTURE, u,
                    temperature, shares,
                )  # fmt: skip
            drawn[s, t] = last[s]
            if is_traced:
                for i in range(n_parameters):
                    traced[s, t, i] = output[s, i]
    return DONE


key_cache_by_sources(globals(), quantile_module, vector_tiles)
