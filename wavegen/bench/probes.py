"""The limits of one CPU core: memory bandwidth and multiply-adds per second."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import njit

from wavegen.sampling.engines.packing import aligned
from wavegen.simd import LANES, fma, load, splat, store

REGISTERS = 8  # of accumulators: as many chains as fill two pipelines of four cycles' latency
BEST_OF = 5
PROBE_SECONDS = 0.05


@njit(nogil=True, error_model="numpy")
def _read(rows, repeats, total):
    """Add up (n, REGISTERS * LANES) float32 rows, several times, into (1, LANES)."""
    a = b = c = d = e = f = g = h = splat(np.float32(0.0))
    for _ in range(repeats):
        for row in range(rows.shape[0]):
            a, b = a + load(rows, row, 0), b + load(rows, row, LANES)
            c, d = c + load(rows, row, 2 * LANES), d + load(rows, row, 3 * LANES)
            e, f = e + load(rows, row, 4 * LANES), f + load(rows, row, 5 * LANES)
            g, h = g + load(rows, row, 6 * LANES), h + load(rows, row, 7 * LANES)
    store(total, 0, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))  # so that nothing is optimized away


@njit(nogil=True, error_model="numpy")
def _multiply_add(repeats, total):
    """Make a fused multiply-add in each of the registers, several times; their sum goes into (1, LANES)."""
    x, y = splat(np.float32(0.5)), splat(np.float32(1.0))
    a = b = c = d = e = f = g = h = splat(np.float32(0.0))
    for _ in range(repeats):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
    store(total, 0, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))


def written_buffer(n_floats: int) -> npt.NDArray[np.float32]:
    """Return (n_floats,) ones that begin at a cache line.

    They are written, for pages that never were are all one page of zeros, which stays in the cache however large the
    buffer is.
    """
    buffer: npt.NDArray[np.float32] = aligned(np.ones(n_floats, np.float32))
    return buffer


def read_bandwidth(n_bytes: int) -> float:
    """Measure the bytes per second at which one core reads a buffer of this size; best of 5."""
    width, total = REGISTERS * LANES, np.zeros((1, LANES), np.float32)
    rows = written_buffer(max(1, n_bytes // (4 * width)) * width).reshape(-1, width)
    return rows.nbytes * _rate(lambda repeats: _read(rows, repeats, total))


def multiply_add_rate() -> float:
    """Measure the multiply-adds per second of one core, in registers; best of 5."""
    total = np.zeros((1, LANES), np.float32)
    return REGISTERS * LANES * _rate(lambda repeats: _multiply_add(repeats, total))


def _rate(work: Callable[[int], object]) -> float:
    """Return turns per second: of enough for PROBE_SECONDS, the best of BEST_OF."""
    work(1)  # compiles
    repeats, seconds = 1, 0.0
    while seconds < PROBE_SECONDS:
        repeats *= 2
        seconds = _time(work, repeats)
    return repeats / min(_time(work, repeats) for _ in range(BEST_OF))


def _time(work: Callable[[int], object], repeats: int) -> float:
    began = time.perf_counter()
    work(repeats)
    return time.perf_counter() - began
