"""The engine for many streams on a GPU: lays a WaveNet out for ``triton_kernel``, and keeps the streams' state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import on_device
from wavegen.model.layers import Condition, bias_of
from wavegen.model.outputs import ClassArray, Truncation, not_finite
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines import triton_kernel as kernel
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
        return self._run(
            uniforms.shape[1], kernel.GIVEN.value, truncation, numbers=self._steps(uniforms, torch.float32)
        )

    def generate_seeded(
        self, seed: int, clips: Sequence[int], first: int, n: int, truncation: Truncation
    ) -> ClassArray:
        """See ``SeededEngine``."""
        signed = np.array([seed], np.uint64).view(np.int64)
        seeds = self._put(np.array([signed[0], first]), torch.int64)
        padded = np.pad(np.asarray(clips, np.int64), (0, len(self.newest) - len(clips)), mode="edge")
        return self._run(n, kernel.SEEDED.value, truncation, seeds=seeds, clips=self._put(padded, torch.int64))

    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        n, streams = classes.shape[1], len(self.newest)
        logits = torch.empty((n, streams, self.padded_classes), dtype=torch.float32, device=self.device)
        self._run(n, kernel.FORCED.value, Truncation(), forced=self._steps(classes, torch.int32), trace=logits)
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
            kernel.generate[(streams // ROWS,)](
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
