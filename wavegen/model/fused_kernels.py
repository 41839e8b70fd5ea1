"""Elementwise kernels between the matrix products of a fused stack; each number is read and written once.

Compiled for the host by numba, once per machine, and kept on disk. Rows are time-major; channels are a multiple of
LANES; arrays are float32 or bfloat16 (as uint16).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from wavegen.simd import (
    KERNEL,
    LANES,
    clamp,
    fma,
    key_cache_by_sources,
    load,
    shift_exponent,
    splat,
    store,
    where_positive,
)

ONE = np.float32(1.0)
# 2^r for r in [-1/2, 1/2], the polynomial of least relative error (2e-7)
P0, P1, P2 = np.float32(0.00134043), np.float32(0.00961813), np.float32(0.05550411)
P3, P4 = np.float32(0.24022651), np.float32(0.69314718)
ROUNDING = np.float32(1.5 * 2**23)  # added to a float32 it leaves the nearest integer in the low bits
LOG2_E, TWO_LOG2_E = np.float32(1.44269504), np.float32(2.8853901)
TANH_SATURATES, SIGMOID_SATURATES = np.float32(26.0), np.float32(60.0)  # as powers of two


@njit(**KERNEL)
def _exp2(y, limit):
    """2^y with y clamped to +- limit: 2^n 2^r, n the nearest integer, written into the exponent's bits."""
    # y = n + r. Adding 1.5 * 2^23 rounds y to its nearest integer n and leaves it in the low bits of the mantissa;
    # taking it off again leaves n as a float, and r in [-1/2, 1/2].
    y = clamp(y, splat(limit))
    shifted = y + ROUNDING
    r = y - (shifted - ROUNDING)
    # 2^r by Horner's rule, each step rounded once
    p = fma(splat(P0), r, splat(P1))
    p = fma(p, r, splat(P2))
    p = fma(p, r, splat(P3))
    p = fma(p, r, splat(P4))
    p = fma(p, r, splat(ONE))
    # 2^n 2^r: n is added to the exponent of p
    return shift_exponent(p, shifted)


@njit(**KERNEL)
def gate_forward(gates, bias, index, z):
    """Set z = tanh(f) sigmoid(g), with one division.

    Args:
        gates: (n, 2G), Wf h and Wg h; becomes tanh(f) and sigmoid(g), f = Wf h + bias and g likewise.
        bias: (N, 2G) float32, with what conditions add.
        index: (n,) int64, which row of the bias each row takes.
        z: (n, G) output.
    """
    n, channels = z.shape
    for row in range(n):
        of_row = index[row]
        for c in range(0, channels, LANES):
            f = load(gates, row, c) + load(bias, of_row, c)
            g = load(gates, row, channels + c) + load(bias, of_row, channels + c)
            # e = e^(2 f), q = 1 + e^-g. One reciprocal serves both quotients: divisions are slow.
            e = _exp2(f * TWO_LOG2_E, TANH_SATURATES)  # tanh(f) = (e - 1) / (e + 1)
            q = _exp2(g * -LOG2_E, SIGMOID_SATURATES) + ONE  # sigmoid(g) = 1 / q
            p = e + ONE
            reciprocal = ONE / (p * q)
            tanh = (e - ONE) * q * reciprocal
            sigmoid = p * reciprocal
            store(gates, row, c, tanh)
            store(gates, row, channels + c, sigmoid)
            store(z, row, c, tanh * sigmoid)


@njit(**KERNEL)
def gate_backward(gates, dz, index, z, dgates, dbias):
    """Compute the gradient of ``gate_forward``.

    Args:
        gates: (n, 2G), tanh(f) and sigmoid(g).
        dz: (n, G).
        index: (n,) int64, as ``gate_forward``'s.
        z: (n, G) output.
        dgates: (n, 2G) output, with respect to f and g.
        dbias: (N, 2G) float32, each row's is added to.
    """
    n, channels = z.shape
    for row in range(n):
        of_row = index[row]
        for c in range(0, channels, LANES):
            tanh, sigmoid, d = load(gates, row, c), load(gates, row, channels + c), load(dz, row, c)
            product = tanh * sigmoid
            # z = tanh(f) s(g):  dz/df = s (1 - tanh^2),  dz/dg = tanh s (1 - s)
            df, dg = d * sigmoid * (ONE - tanh * tanh), d * product * (ONE - sigmoid)
            # z is computed again, for the products that follow: it is kept for the skips alone
            store(z, row, c, product)
            store(dgates, row, c, df)
            store(dgates, row, channels + c, dg)
            # dL/dbias sums over the rows that take this row of the bias
            store(dbias, of_row, c, load(dbias, of_row, c) + df)
            store(dbias, of_row, channels + c, load(dbias, of_row, channels + c) + dg)


@njit(**KERNEL)
def activate_forward(convolved, bias, index, is_relu, z):
    """Set z = max(f, 0) or tanh(f): a block without a gate.

    Args:
        convolved: (n, G), Wf h; becomes z, f = Wf h + bias.
        bias: (N, G) float32, with what conditions add.
        index: (n,) int64, which row of the bias each row takes.
        is_relu: which of the two.
        z: (n, G) output.
    """
    n, channels = z.shape
    for row in range(n):
        of_row = index[row]
        for c in range(0, channels, LANES):
            f = load(convolved, row, c) + load(bias, of_row, c)
            if is_relu:
                a = where_positive(f, f)
            else:
                e = _exp2(f * TWO_LOG2_E, TANH_SATURATES)
                a = (e - ONE) / (e + ONE)
            store(convolved, row, c, a)
            store(z, row, c, a)


@njit(**KERNEL)
def activate_backward(activated, dz, index, is_relu, z, dconvolved, dbias):
    """Compute the gradient of ``activate_forward``.

    Args:
        activated: (n, G), max(f, 0) or tanh(f).
        dz: (n, G).
        index: (n,) int64, as ``activate_forward``'s.
        is_relu: which of the two.
        z: (n, G) output.
        dconvolved: (n, G) output, with respect to f.
        dbias: (N, G) float32, each row's is added to.
    """
    n, channels = z.shape
    for row in range(n):
        of_row = index[row]
        for c in range(0, channels, LANES):
            a, d = load(activated, row, c), load(dz, row, c)
            # relu: 1 where z > 0. tanh: 1 - z^2
            df = where_positive(a, d) if is_relu else d * (ONE - a * a)
            store(z, row, c, a)
            store(dconvolved, row, c, df)
            store(dbias, of_row, c, load(dbias, of_row, c) + df)


@njit(**KERNEL)
def gather_taps(h, at, step, taps):
    """Lay a convolution's inputs side by side: taps[i, j C : (j + 1) C] = h[at + i + j step]."""
    n, channels = taps.shape[0], h.shape[1]
    for tap in range(taps.shape[1] // channels):
        for row in range(n):
            for c in range(0, channels, LANES):
                store(taps, row, tap * channels + c, load(h, at + tap * step + row, c))


@njit(**KERNEL)
def scatter_taps(taps, at, step, h):
    """Compute the gradient of ``gather_taps``: h[at + i + j step] += taps[i, j C : (j + 1) C]; h is float32."""
    n, channels = taps.shape[0], h.shape[1]
    for tap in range(taps.shape[1] // channels):
        for row in range(n):
            for c in range(0, channels, LANES):
                place = at + tap * step + row
                store(h, place, c, load(h, place, c) + load(taps, row, tap * channels + c))


@njit(**KERNEL)
def add_residual(stream, at, residual, following):
    """stream[at + i] += residual[i], and a copy of it in ``following``, in its precision; the stream is float32."""
    n, channels = residual.shape
    for row in range(n):
        for c in range(0, channels, LANES):
            h = load(stream, at + row, c) + load(residual, row, c)
            store(stream, at + row, c, h)
            store(following, at + row, c, h)


@njit(**KERNEL)
def copy_rows(source, at, target, target_row, target_column):
    """target[target_row + i, target_column + c] = source[at + i, c], in the target's precision."""
    n, channels = min(len(source) - at, len(target) - target_row), source.shape[1]
    for row in range(n):
        for c in range(0, channels, LANES):
            store(target, target_row + row, target_column + c, load(source, at + row, c))


@njit(**KERNEL)
def add_matrix(total, matrix):
    """Add a matrix to a total in float32."""
    for row in range(total.shape[0]):
        for c in range(0, total.shape[1], LANES):
            store(total, row, c, load(total, row, c) + load(matrix, row, c))


key_cache_by_sources(globals())
