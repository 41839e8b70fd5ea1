"""Draw a class from a distribution's parameters and a uniform number, in compiled code.

The same functions as in ``wavegen.model.outputs``; tests compare them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from wavegen.config.schema import OutputKind
from wavegen.sampling.engines import simd_matmul
from wavegen.sampling.engines.simd_matmul import power_of_two
from wavegen.simd import KERNEL, LANES, key_cache_by_sources

SOFTMAX, LOGISTIC_MIXTURE, GAUSSIAN_MIXTURE = range(3)
DRAWS: dict[OutputKind, int] = {
    "softmax": SOFTMAX,
    "logistic_mixture": LOGISTIC_MIXTURE,
    "gaussian_mixture": GAUSSIAN_MIXTURE,
}
SMALLEST_UNIFORM = 2.0**-53
SQRT_HALF, SQRT_TWO_PI = math.sqrt(0.5), math.sqrt(2.0 * math.pi)
# exp(x) = 2^n exp(r), r = x - n ln 2 in [-ln2/2, ln2/2]: Cephes' expf, S. Moshier; its error is below 2 ulp
LOG2_E = np.float32(1.44269504088896341)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
C0, C1, C2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
C3, C4, C5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
ONE, TWO, HALF, ZERO = np.float32(1.0), np.float32(2.0), np.float32(0.5), np.float32(0.0)
LARGEST_EXPONENT = np.float32(87.0)
LARGEST_FACTOR = 1e30  # of the smallest temperatures: the likeliest class's 0 times infinity would not be a number


@njit(**KERNEL)
def exp(x):
    """Compute e^x in float32, x clamped to +-87: the polynomial is of degree 7 in r."""
    # n = round(x / ln 2), r = x - n ln 2; ln 2 in two parts, so that the high one times n is exact
    clamped = min(max(x, -LARGEST_EXPONENT), LARGEST_EXPONENT)
    n = np.floor(clamped * LOG2_E + HALF)
    r = clamped - n * LN2_HIGH - n * LN2_LOW
    # e^r = 1 + r + r^2 series(r)
    series = ((((C0 * r + C1) * r + C2) * r + C3) * r + C4) * r + C5
    return (series * r * r + r + ONE) * power_of_two(np.int32(n))


@njit(**KERNEL, fastmath={"nnan", "nsz"})
def _highest(logits):
    """Return the largest of finite numbers, compared side by side, since none of them is NaN."""
    highest = logits[0]
    for c in range(1, len(logits)):
        highest = max(highest, logits[c])
    return highest


@njit(**KERNEL)
def draw_class(logits, u, temperature, top_k, top_p, p, sums):
    """Draw a class as `wavegen.model.outputs.Softmax` does.

    Args:
        logits: (classes,), finite.
        u: the uniform number.
        temperature, top_k, top_p: of the distribution.
        p: work space for the probabilities, padded to whole registers with zeros.
        sums: work space, a number for each register of p at least.
    """
    n_classes, highest = len(logits), _highest(logits)
    if temperature == 0.0:
        for c in range(n_classes):
            if logits[c] == highest:
                return c
    # p(c) ~ exp((l[c] - max l) / temperature)
    factor = np.float32(min(1.0 / temperature, LARGEST_FACTOR))
    for c in range(n_classes):
        distance = (logits[c] - highest) * factor
        p[c] = exp(distance) if distance > -LARGEST_EXPONENT else ZERO
    if top_k < n_classes or top_p < 1.0:
        _truncate(p, n_classes, top_k, top_p)
    # sums of a register's classes each: chains of additions that do not wait for each other
    total, n_sums = 0.0, (n_classes + LANES - 1) // LANES
    for i in range(n_sums):
        share = 0.0
        for probability in p[i * LANES : (i + 1) * LANES]:
            share += probability
        sums[i] = share
        total += share
    # the first class whose cumulative probability exceeds u; beyond all, the last that is possible
    target, below, i = u * total, 0.0, 0
    while i < n_sums - 1 and below + sums[i] <= target:
        below += sums[i]
        i += 1
    for c in range(i * LANES, n_classes):
        below += p[c]
        if below > target:
            return c
    for c in range(n_classes - 1, 0, -1):
        if p[c] > ZERO:
            return c
    return 0


@njit(**KERNEL | {"_nrt": True})  # it allocates
def _truncate(p, n_classes, top_k, top_p):
    """Set to 0 what top-k, then top-p leave out; among equals the lower class is kept first."""
    # a stable sort, the likeliest first: among equals the lower class comes first
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


@njit(**KERNEL)
def normal_quantile(p):
    """Compute the quantile of the standard normal distribution at p, 0 < p < 1, to about 15 digits."""
    tail = min(p, 1.0 - p)
    # the lower tail's quantile within 4.5e-4 (Abramowitz and Stegun, 26.2.23)
    r = math.sqrt(-2.0 * math.log(tail))
    x = (2.515517 + r * (0.802853 + r * 0.010328)) / (1.0 + r * (1.432788 + r * (0.189269 + r * 0.001308))) - r
    # Halley's steps, of which each triples the digits: e = (F(x) - tail) / F'(x), x <- x - e / (1 + x e / 2)
    for _ in range(2):
        error = (0.5 * math.erfc(-x * SQRT_HALF) - tail) * SQRT_TWO_PI * math.exp(0.5 * x * x)
        x -= error / (1.0 + 0.5 * x * error)
    return x if p < 0.5 else -x


@njit(**KERNEL)
def quantile(kind, p):
    """Invert F of a mixture's components; NaN for a kind without one."""
    if kind == LOGISTIC_MIXTURE:
        return math.log(p) - math.log1p(-p)
    if kind == GAUSSIAN_MIXTURE:
        return normal_quantile(p)
    return math.nan


@njit(**KERNEL)
def draw_from_mixture(parameters, at, components, n_classes, mixture, kind, u, temperature, shares):
    """Draw a class as `wavegen.model.outputs.Mixture` does, in float64."""
    best, highest = 0, parameters[at]
    for k in range(components):
        if parameters[at + k] > highest:
            best, highest = k, parameters[at + k]
    if temperature == 0.0:
        place = mixture[0] * parameters[at + components + best]
    else:
        total, last = 0.0, 0
        for k in range(components):
            # the components' shares: softmax(logits / temperature), not normalized
            shares[k] = math.exp((np.float64(parameters[at + k]) - highest) / temperature)
            total += shares[k]
            if shares[k] > 0.0:
                last = k
        # u chooses a component; its remainder, uniform again, chooses the place within
        target, before, k = u * total, 0.0, 0
        while k < last and before + shares[k] <= target:
            before += shares[k]
            k += 1
        left = min(max((target - before) / shares[k], SMALLEST_UNIFORM), 1.0 - SMALLEST_UNIFORM)
        # x = m + s temperature F^-1(left)
        log_scale = min(max(np.float64(parameters[at + 2 * components + k]), mixture[1]), mixture[2])
        spread = math.exp(log_scale) * temperature
        place = mixture[0] * parameters[at + components + k] + spread * quantile(kind, left)
    # [-1, 1] -> [0, classes): the bin that the place lies in
    return np.int64(math.floor(min(max((place + 1.0) * (0.5 * n_classes), 0.0), n_classes - 1.0)))


key_cache_by_sources(globals(), simd_matmul)
