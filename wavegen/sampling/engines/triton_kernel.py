"""The sampling loop of a gated WaveNet as one Triton kernel: a program carries some streams through many samples.

A program holds the state of M streams in registers, and reads the weights from the GPU's cache at every sample. Queues
lie in its memory. Programs never wait for each other: a stream's samples do not depend on what runs beside it.

Products of float32 are made of three in TF32, which keeps 22 bits: in float32 itself they would not fit the registers.
Compiled only where the engine is used. Sizes are powers of two, 16 or more; the engine pads with zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl

GIVEN, SEEDED, FORCED = (tl.constexpr(mode) for mode in range(3))  # where a sample's uniform number comes from
LOWEST, HIGHEST = tl.constexpr(-(1 << 31)), tl.constexpr((1 << 31) - 1)


@triton.jit
def philox(seed, clip, sample):
    """Return the word that draws a sample: Philox4x64-10 with the key (seed, clip), see ``sampler.uniforms``."""
    c0 = clip * 0 + (sample // 4).to(tl.uint64)
    c1, c2, c3 = clip * 0, clip * 0, clip * 0
    k0, k1 = clip * 0 + seed, clip
    # multipliers and Weyl constants: Salmon et al., 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"
    m0, m1 = clip * 0 + 0xD2E7470EE14C6C93, clip * 0 + 0xCA5A826395121157
    for _ in tl.static_range(10):
        high0, low0, high1, low1 = tl.umulhi(m0, c0), m0 * c0, tl.umulhi(m1, c2), m1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B97F4A7C15, k1 + 0xBB67AE8584CAA73B
    word = sample % 4
    return tl.where(word == 0, c0, tl.where(word == 1, c1, tl.where(word == 2, c2, c3)))


@triton.jit
def _kept(keys, weights, limit):
    """Return which classes stay while those ranked before them weigh less than a limit; among equals the lower first.

    Args:
        keys: (M, A) int32, ordered as the logits.
        weights: (M, A) of each class.
        limit: (M,).
    """
    # bisection for the smallest v such that all classes with keys above v weigh less than the limit
    low, high = limit.to(tl.int32) * 0 + LOWEST, limit.to(tl.int32) * 0 + HIGHEST
    for _ in range(32):
        middle = (low & high) + ((low ^ high) >> 1)  # no overflow
        fits = tl.sum(tl.where(keys > middle[:, None], weights, 0.0), 1) < limit
        high = tl.where(fits, middle, high)
        low = tl.where(fits, low, middle + 1)
    above = tl.sum(tl.where(keys > high[:, None], weights, 0.0), 1)
    ties = tl.where(keys == high[:, None], weights, 0.0)
    before = above[:, None] + tl.cumsum(ties, 1) - ties
    return (keys > high[:, None]) | ((keys == high[:, None]) & (before < limit[:, None]))


@triton.jit
def draw(logits, u, temperature, top_k, top_p, GREEDY: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr):
    """Draw a class for each stream, as ``wavegen.model.outputs.Softmax`` does, in float32.

    Args:
        logits: (M, A), -inf beyond the classes.
        u: (M,) in [0, 1).
        temperature, top_k, top_p: floats; ``top_k`` and ``top_p`` count where ``TOP_K`` and ``TOP_P`` are set.
    """
    if GREEDY:
        return tl.argmax(logits, 1).to(tl.int32)
    p = tl.exp((logits - tl.max(logits, 1)[:, None]) / temperature)
    if TOP_K or TOP_P:
        bits = logits.to(tl.int32, bitcast=True)
        keys = bits ^ ((bits >> 31) & HIGHEST)  # ordered as the floats
        if TOP_K:
            p = tl.where(_kept(keys, p * 0.0 + 1.0, u * 0.0 + top_k), p, 0.0)
        if TOP_P:
            p = tl.where(_kept(keys, p, top_p * tl.sum(p, 1)), p, 0.0)
    cdf = tl.cumsum(p, 1)
    total = tl.max(cdf, 1)
    # the first class whose cumulative probability exceeds u; beyond all, the last that is possible
    drawn = tl.sum((cdf <= (u * total)[:, None]).to(tl.int32), 1)
    last = tl.sum((cdf < total[:, None]).to(tl.int32), 1)
    return tl.minimum(drawn, last)


@triton.jit
def generate(
    newest, queue, offsets, rings, slots, dilations,  # state: see TritonEngine
    table, taps, bias, bias_of, residual, skip, skip_bias, head, head_bias, output, output_bias,  # weights
    numbers, seeds, clips, forced, drawn, logits_out, hidden, finite,  # draws, results, scratch
    streams, steps, classes, temperature, top_k, top_p,
    LAYERS: tl.constexpr, TAPS: tl.constexpr, R: tl.constexpr, G: tl.constexpr, S: tl.constexpr, H: tl.constexpr,
    A: tl.constexpr, M: tl.constexpr, HEAD_TILE: tl.constexpr, OUTPUT_TILE: tl.constexpr, MODE: tl.constexpr,
    CONDITIONED: tl.constexpr, GREEDY: tl.constexpr, TOP_K: tl.constexpr, TOP_P: tl.constexpr, TRACE: tl.constexpr,
):  # fmt: skip
    """Make some samples of M streams; the sizes are those of the padded network."""
    DTYPE: tl.constexpr = queue.dtype.element_ty
    rows = tl.program_id(0) * M + tl.arange(0, M)
    r, g, s, a = tl.arange(0, R), tl.arange(0, G), tl.arange(0, S), tl.arange(0, A)
    h_in = tl.arange(0, H)
    h_tile, a_tile = tl.arange(0, HEAD_TILE), tl.arange(0, OUTPUT_TILE)
    y = tl.load(newest + rows)
    seed, first = tl.load(seeds).to(tl.uint64, bitcast=True), tl.load(seeds + 1)
    clip = tl.load(clips + rows).to(tl.uint64, bitcast=True)
    table_of = tl.load(bias_of + rows)
    is_class = (a < classes)[None, :]
    ok = 1
    for t in tl.range(0, steps, num_stages=1):
        h = tl.load(table + y[:, None] * R + r[None, :])  # (M, R) float32
        total = tl.zeros((M, S), tl.float32) + tl.load(skip_bias + s)[None, :]
        for layer in tl.range(0, LAYERS, num_stages=1):
            # Phase 1, gates: the newest tap is h itself, the older ones are slots of the ring
            ring, at = tl.load(rings + layer), tl.load(slots + layer) + t
            place = queue + tl.load(offsets + layer).to(tl.int64) * streams * R  # (ring, streams, R)
            inside = (rows[:, None] * R + r[None, :]).to(tl.int64)
            tl.store(place + (at % ring).to(tl.int64) * streams * R + inside, h.to(DTYPE))
            added = bias + layer * 2 * G + g[None, :]
            if CONDITIONED:
                added += table_of[:, None] * (LAYERS * 2 * G)
            f = tl.zeros((M, G), tl.float32) + tl.load(added)
            k = tl.zeros((M, G), tl.float32) + tl.load(added + G)
            weight = taps + (layer * TAPS + TAPS - 1) * 2 * R * G + r[:, None] * G + g[None, :]
            f = tl.dot(h.to(DTYPE), tl.load(weight), f, input_precision="tf32x3")
            k = tl.dot(h.to(DTYPE), tl.load(weight + R * G), k, input_precision="tf32x3")
            dilation = tl.load(dilations + layer)
            for tap in tl.range(1, TAPS, num_stages=1):  # tap steps before the newest
                slot = ((at + ring - tap * dilation) % ring).to(tl.int64)
                past = tl.load(place + slot * streams * R + inside, cache_modifier=".cg")
                weight = taps + (layer * TAPS + TAPS - 1 - tap) * 2 * R * G + r[:, None] * G + g[None, :]
                f = tl.dot(past.to(DTYPE), tl.load(weight), f, input_precision="tf32x3")
                k = tl.dot(past.to(DTYPE), tl.load(weight + R * G), k, input_precision="tf32x3")
            # z = tanh(f) sigmoid(k), both by exp, which overflows to inf and not to nan
            z = (2.0 / (1.0 + tl.exp(-2.0 * f)) - 1.0) / (1.0 + tl.exp(-k))
            # Phase 2, residual and skip: h <- h + Wr z, skips <- skips + Ws z
            to_h = tl.load(residual + layer * G * R + g[:, None] * R + r[None, :])
            h = tl.dot(z.to(DTYPE), to_h, h, input_precision="tf32x3")
            to_skips = tl.load(skip + layer * G * S + g[:, None] * S + s[None, :])
            total = tl.dot(z.to(DTYPE), to_skips, total, input_precision="tf32x3")
        # Phase 3, head: in tiles of columns, through memory, because a whole matrix does not fit beside the others
        x = tl.maximum(total, 0.0)
        for tile in tl.range(0, H, HEAD_TILE, num_stages=1):
            c = tile + h_tile
            part = tl.zeros((M, HEAD_TILE), tl.float32) + tl.load(head_bias + c)[None, :]
            part = tl.dot(x.to(DTYPE), tl.load(head + s[:, None] * H + c[None, :]), part, input_precision="tf32x3")
            tl.store(hidden + rows[:, None] * H + c[None, :], tl.maximum(part, 0.0))
        tl.debug_barrier()  # another thread reads what this one has written
        x = tl.load(hidden + rows[:, None] * H + h_in[None, :], cache_modifier=".cg")
        shown = logits_out + rows[:, None] * A
        if TRACE:
            shown += (t + tl.zeros((1, 1), tl.int64)) * streams * A
        for tile in tl.range(0, A, OUTPUT_TILE, num_stages=1):
            c = tile + a_tile
            part = tl.zeros((M, OUTPUT_TILE), tl.float32) + tl.load(output_bias + c)[None, :]
            part = tl.dot(x.to(DTYPE), tl.load(output + h_in[:, None] * A + c[None, :]), part, input_precision="tf32x3")
            tl.store(shown + c[None, :], part)
        tl.debug_barrier()
        logits = tl.load(shown + a[None, :], cache_modifier=".cg")
        is_finite = (tl.abs(logits) < float("inf")) | (is_class == 0)  # nan is not less
        ok = tl.minimum(ok, tl.min(is_finite.to(tl.int32)))
        # Phase 4, draw
        if MODE == FORCED:
            y = tl.load(forced + t * streams + rows)
        else:
            if MODE == SEEDED:
                word = philox(seed, clip, first + t)
                u = (word >> 40).to(tl.float32) * 5.9604644775390625e-08  # 2^-24
            else:
                u = tl.load(numbers + t * streams + rows)
            y = draw(tl.where(is_class, logits, float("-inf")), u, temperature, top_k, top_p, GREEDY, TOP_K, TOP_P)
            y = tl.minimum(y, classes - 1)
            tl.store(drawn + t * streams + rows, y)
        tl.debug_barrier()  # the next step writes over the scratch, and reads what this one has queued
    tl.store(newest + rows, y)
    tl.store(finite + tl.program_id(0), ok)
