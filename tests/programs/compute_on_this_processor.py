"""Check arithmetic on vectors, compiled for the processor in numba's environment, which has argv[1] lanes."""

import sys

import numpy as np
from numba import njit

from wavegen.simd import LANES, clamp, fma, load, splat, store, where_positive


@njit
def compute(a, b, out, narrow):
    x, y = load(a, 0, 0), load(b, 0, 0)
    store(out, 0, 0, x + y)
    store(out, 1, 0, x / y)
    store(out, 2, 0, fma(x, y, x))
    store(out, 3, 0, clamp(x, splat(np.float32(0.5))))
    store(out, 4, 0, where_positive(x, y))
    store(narrow, 0, 0, x)
    store(out, 5, 0, load(narrow, 0, 0))


assert int(sys.argv[1]) == LANES, LANES
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((1, LANES)).astype(np.float32) for _ in range(2))
out, narrow = np.zeros((6, LANES), np.float32), np.zeros((1, LANES), np.uint16)
compute(a, b, out, narrow)
x, y = a[0], b[0]
once = (x.astype(np.float64) * y + x).astype(np.float32)
np.testing.assert_array_equal(out[:5], [x + y, x / y, once, np.clip(x, -0.5, 0.5), np.where(x > 0, y, 0)])
bits = x.view(np.uint32)
rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)
np.testing.assert_array_equal(out[5], rounded.view(np.float32))
