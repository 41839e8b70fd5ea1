"""The engine for many streams on a GPU: the sampling loop of a gated WaveNet as one Triton kernel.

A program carries some streams through many samples. It holds the state of M streams in registers, and reads the weights
from the GPU's cache at every sample. Queues lie in its memory. Programs never wait for each other: a stream's samples
do not depend on what runs beside it.

Products of float32 are made of three in TF32, which keeps 22 bits: in float32 itself they would not fit the registers.
Compiled only where the engine is used. Sizes are powers of two, 16 or more; the engine pads with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import on_device
from wavegen.model.layers import Condition, bias_of
from wavegen.model.outputs import ClassArray, Truncation, not_finite
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines.conditioning_rows import PrecomputedRows
from wavegen.sampling.engines.torch_engines import NetworkEngine

ROWS = 16  # streams in a program: the fewest rows of a matrix product
TILE_BYTES = 32768  # of a matrix in the head that is held at a time: an RTX card's programs have 99 KB for all
LOWEST_TEMPERATURE = 1e-30  # of float32 exponents; below, the likeliest class is drawn anyway
PRIMED_ROWS = 32  # streams whose past is computed at a time
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def widened(n: int) -> int:
    """Return the next power of two, 16 or more."""
    return max(16, 1 << (n - 1).bit_length())


class TritonEngine(NetworkEngine):
    """Implements ``Engine`` and ``SeededEngine``.

    Sums and the stream between the blocks are float32. In bfloat16 the products' inputs are rounded too, not the
    weights alone.

    Args:
        model: gated, with a softmax, without frames and weight norm; on the device to run on.
        precision: of the products: float32, bfloat16 or float16.
    """

    model: WaveNet

    def __init__(self, model: WaveNet, precision: str = "float32") -> None:
        super().__init__(model)
        self.dtype = DTYPES[precision]
        blocks = model.residual_blocks
        taps, convolved, residual = blocks[0].conv.weight.shape
        gate, skip, head = convolved // 2, model.skip.out_features, model.head.out_features
        self.classes, self.width = model.distribution.classes, widened(residual)
        R, G, S, H, A = (widened(n) for n in (residual, gate, skip, head, self.classes))
        self.padded_classes, self.gates = A, G
        item = self.dtype.itemsize
        self.sizes = {"LAYERS": len(blocks), "TAPS": taps, "R": R, "G": G, "S": S, "H": H, "A": A, "M": ROWS}
        self.sizes |= {"HEAD_TILE": _tile(S, H, item), "OUTPUT_TILE": _tile(H, A, item)}
        with torch.inference_mode():
            table = model.input(torch.arange(self.classes, device=self.device))  # (classes, residual)
            conv = torch.stack([block.conv.weight for block in blocks])  # (L, taps, 2 gate, residual)
            # (L, taps, 2, gate, residual) -> (L, taps, 2, residual, gate)
            conv = conv.view(len(blocks), taps, 2, gate, residual).transpose(3, 4)
            none = conv.new_zeros(residual, gate)  # of the last block
            joined = [none if block.residual is None else block.residual.weight for block in blocks]
            # (skip, L gate) -> (L, gate, skip)
            skips = model.skip.weight.t().reshape(len(blocks), gate, skip)
            self.weights = [
                _padded(table, (A, R)).float(),
                _padded(conv, (*conv.shape[:3], R, G)).to(self.dtype),
                _padded(torch.stack(joined).mT, (len(blocks), G, R)).to(self.dtype),
                _padded(skips, (len(blocks), G, S)).to(self.dtype),
                _padded(bias_of(model.skip), (S,)).float(),
                _padded(model.head.weight.t(), (S, H)).to(self.dtype),
                _padded(bias_of(model.head), (H,)).float(),
                _padded(model.output.weight.t(), (H, A)).to(self.dtype),
                _padded(bias_of(model.output), (A,)).float(),
            ]
            self.conv_bias = torch.stack([bias_of(block.conv) for block in blocks])  # (L, 2 gate)
        reaches = [block.conv.reach for block in blocks]
        self.rings = torch.tensor([reach + 1 for reach in reaches])
        self.offsets = torch.cumsum(self.rings, 0) - self.rings  # slots before each block's
        self.dilations = torch.tensor(model.config.dilations)
        self.n_streams = self.n_made = 0

    @torch.inference_mode()
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        self.n_streams, self.n_made = len(past), 0
        newest = np.pad(past[:, -self.receptive_field :], ((0, -len(past) % ROWS), (0, 0)), mode="edge")
        streams = len(newest)
        kinds = [0] * streams  # which condition each stream has
        bias = self.conv_bias[None]  # (conditions, L, 2 gate)
        if conditions:
            every = [*conditions, *[conditions[-1]] * (streams - len(conditions))]
            rows = PrecomputedRows(self.model.arrays(), every)
            kinds = rows.table_of.tolist()
            bias = bias + torch.from_numpy(rows.before()).to(self.device)
        self.bias = _padded(bias.view(*bias.shape[:2], 2, -1), (*bias.shape[:2], 2, self.gates)).float()
        self.bias_of = torch.tensor(kinds, dtype=torch.int32, device=self.device)
        self.newest = self._put(newest[:, -1], torch.int32)
        self.queue = torch.zeros((int(self.rings.sum()), streams, self.width), dtype=self.dtype, device=self.device)
        self._fill_queues(newest, kinds, conditions)

    def _fill_queues(self, past: ClassArray, kinds: list[int], conditions: Sequence[ClipCondition] | None) -> None:
        """Compute what the streams' queues hold; streams with the same past and condition are computed once."""
        keyed = np.concatenate([past, np.array(kinds)[:, None]], axis=1)
        _, firsts, which = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
        for begin in range(0, len(firsts), PRIMED_ROWS):
            some = firsts[begin : begin + PRIMED_ROWS]
            condition = None
            if conditions:
                each = [conditions[min(i, len(conditions) - 1)] for i in some]
                # a step of the past at t predicts the sample at t + 1, so that the newest, -1, is not among them
                condition = Condition.of([one.rows(2 - past.shape[1], 1) for one in each], self.device)
            held = self.model.queues(torch.from_numpy(past[some, :-1]).to(self.device), condition)
            place = torch.from_numpy(which.reshape(-1) - begin).to(self.device)
            mine = ((place >= 0) & (place < len(some))).nonzero()[:, 0]
            for offset, rows in zip(self.offsets.tolist(), held, strict=True):
                # (reach, some, R): slot 0 is for the first new sample, 1 .. reach hold the past, oldest first
                slots = self.queue[offset + 1 : offset + 1 + len(rows)]
                slots[:, mine, : rows.shape[2]] = rows[:, place[mine]].to(self.dtype)

    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        return self._run(uniforms.shape[1], GIVEN.value, truncation, numbers=self._steps(uniforms, torch.float32))

    def generate_seeded(
        self, seed: int, clips: Sequence[int], first: int, n: int, truncation: Truncation
    ) -> ClassArray:
        """See ``SeededEngine``."""
        signed = np.array([seed], np.uint64).view(np.int64)
        seeds = self._put(np.array([signed[0], first]), torch.int64)
        padded = np.pad(np.asarray(clips, np.int64), (0, len(self.newest) - len(clips)), mode="edge")
        return self._run(n, SEEDED.value, truncation, seeds=seeds, clips=self._put(padded, torch.int64))

    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        n, streams = classes.shape[1], len(self.newest)
        logits = torch.empty((n, streams, self.padded_classes), dtype=torch.float32, device=self.device)
        self._run(n, FORCED.value, Truncation(), forced=self._steps(classes, torch.int32), trace=logits)
        # (n, streams, A) -> (S, n, classes)
        forced: npt.NDArray[np.float32] = logits.transpose(0, 1)[: self.n_streams, :, : self.classes].cpu().numpy()
        return forced

    @torch.inference_mode()
    def _run(
        self, n: int, mode: int, truncation: Truncation, trace: Tensor | None = None, **given: Tensor
    ) -> ClassArray:
        streams, device = len(self.newest), self.device
        nothing = torch.zeros(max(2, streams), dtype=torch.int64, device=device)  # two seeds, or a clip of each stream
        drawn = torch.zeros((n, streams), dtype=torch.int32, device=device)
        scratch = torch.empty((streams, self.padded_classes), dtype=torch.float32, device=device)
        hidden = torch.empty((streams, self.sizes["H"]), dtype=torch.float32, device=device)
        finite = torch.ones(streams // ROWS, dtype=torch.int32, device=device)
        slots = self._put(self.n_made % self.rings.numpy(), torch.int32)
        shape = [self._put(numbers.numpy(), torch.int32) for numbers in (self.offsets, self.rings, self.dilations)]
        table, taps, *others = self.weights
        with on_device(device):
            generate[(streams // ROWS,)](
                self.newest, self.queue, shape[0], shape[1], slots, shape[2],
                table, taps, self.bias, self.bias_of, *others,
                given.get("numbers", scratch), given.get("seeds", nothing), given.get("clips", nothing),
                given.get("forced", drawn), drawn, scratch if trace is None else trace, hidden, finite,
                streams, n, self.classes, max(truncation.temperature, LOWEST_TEMPERATURE),
                float(truncation.top_k or self.classes), float(truncation.top_p or 1.0),
                **self.sizes, MODE=mode, CONDITIONED=len(self.bias) > 1, GREEDY=truncation.temperature == 0,
                TOP_K=truncation.top_k is not None, TOP_P=truncation.top_p is not None, TRACE=trace is not None,
                num_warps=4 if self.width <= 32 else 8, num_stages=1,
            )  # fmt: skip
        self.n_made += n
        if not bool(finite.all()):
            raise not_finite()
        # (n, streams) -> (S, n)
        classes: ClassArray = drawn.t()[: self.n_streams].cpu().numpy().astype(np.int64)
        return classes

    def _steps(self, rows: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
        """Lay rows of streams, (S, n), out as the kernel reads them, (n, streams)."""
        padded = np.pad(rows, ((0, len(self.newest) - len(rows)), (0, 0)), mode="edge")
        return self._put(np.ascontiguousarray(padded.T), dtype)

    def _put(self, array: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)


def _tile(inputs: int, outputs: int, item: int) -> int:
    """Return the columns of a matrix that are held at a time."""
    return min(outputs, max(16, TILE_BYTES // (inputs * item)))


def _padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor with zeros behind its numbers, contiguous."""
    wide = tensor.new_zeros(shape)
    wide[tuple(slice(n) for n in tensor.shape)] = tensor
    return wide


# --- the kernel ----------------------------------------------------------------------------------------------------

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
