"""The fused CPU engine: compiled for this processor by numba; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Timer
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.config.schema import ModelConfig
from wavegen.data.conditioning import ClipCondition
from wavegen.model.outputs import ClassArray, Distribution, Softmax, Truncation, not_finite
from wavegen.sampling.engines.conditioning_rows import Piece, PrecomputedRows
from wavegen.sampling.engines.fused_kernel import NOT_FINITE, Draws, GateBias, Queues, Work, run
from wavegen.sampling.engines.packing import PackedNetwork, Precision, aligned, pack, padded
from wavegen.sampling.engines.simd_matmul import ROUNDED, UNIT
from wavegen.simd import LANES

Float32 = npt.NDArray[np.float32]
ANNOUNCED_AFTER_SECONDS = 4.0  # to load compiled code takes a second, and more on a busy machine
NOTHING_FORCED = np.zeros((0, 0), np.int64)
NOTHING_ADDED = np.zeros((0, 0, 0, 0), np.float32)


def compile_kernel(precision: Precision, notice: Callable[[str], None]) -> None:
    """Compile the kernel if the cache lacks it, with a notice: the first time on a machine takes ten seconds."""
    sentence = "preparing the sampling engine for this processor, which is compiled once: ten seconds or so"
    announcement = Timer(ANNOUNCED_AFTER_SECONDS, notice, [sentence])
    announcement.start()
    try:
        shapes = {"input": (2, 1), "blocks.0.conv": (2, 2, 1), "skip": (1, 1), "head": (1, 1), "output": (2, 1)}
        tiny = {f"{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
        engine = NumbaFusedEngine(tiny, ModelConfig(cycles=1, dilation_cycle=[1]), Softmax(2), precision)
        engine.start(np.zeros((1, engine.receptive_field), np.int64))
        engine.generate(np.zeros((1, 1)), Truncation())
    finally:
        announcement.cancel()


class NumbaFusedEngine:
    """Implements ``Engine`` in compiled code.

    Args:
        weights: by `wavegen.model.wavenet.WaveNet`'s parameter names.
        model: the section of the configuration.
        distribution: of a sample.
        precision: of the weights.
        threads: that share the streams; each stream stays whole, so this changes nothing in its audio.
    """

    def __init__(
        self,
        weights: Mapping[str, npt.NDArray[Any]],
        model: ModelConfig,
        distribution: Distribution,
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:
        self.distribution = distribution
        self.network = pack(weights, model, distribution, precision)
        self.weights, self.threads = weights, threads
        self.ahead: PrecomputedRows | None = None
        self.n_made = 0
        self.groups: list[_Streams] = []

    @property
    def receptive_field(self) -> int:
        return self.network.receptive_field

    def padding(self, silence: int) -> int:
        return silence

    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        if (conditions is None) != ("conditioning.projection" not in self.weights):
            raise ValueError("expected conditions for a conditioned network, and none for another")
        self.ahead = None if conditions is None else PrecomputedRows(self.weights, conditions, LANES)
        self.n_made = 0
        n_groups = min(self.threads, len(past))
        # (S, T) in parts, one for each thread: a stream's audio does not depend on the part it is in
        shares = np.array_split(past[:, -self.receptive_field :], n_groups)
        tables = np.array_split(np.zeros(len(past), np.int64) if self.ahead is None else self.ahead.table_of, n_groups)
        # what conditions add meanwhile, (tables, blocks, outputs of a convolution)
        before = [None] * len(past) if self.ahead is None else self.ahead.before()
        self.groups = []
        for share, table_of in zip(shares, tables, strict=True):
            # (S, sum of reaches * R): what each stream's past leaves in its queues, by one parallel pass over all of it
            held = [self.network.queues_after(clip[:-1], before[i]) for clip, i in zip(share, table_of, strict=True)]
            self.groups.append(_Streams(self.network, np.stack(held), share[:, -1].astype(np.int64), table_of))

    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        self.distribution.check(truncation)
        return self._run(uniforms, None, truncation)[0]

    def force(self, classes: ClassArray) -> Float32:
        return self._run(np.zeros(classes.shape), classes, Truncation())[1]

    def _run(
        self, uniforms: npt.NDArray[np.float64], forced: ClassArray | None, truncation: Truncation
    ) -> tuple[ClassArray, Float32]:
        """Take all streams through as many samples as there are uniform numbers, the groups side by side."""
        n, groups = uniforms.shape[1], self.groups
        pieces = [Piece(n, NOTHING_ADDED, np.zeros(n, np.int64))]
        if self.ahead is not None:
            pieces = list(self.ahead.pieces(self.n_made, n))
        self.n_made += n
        # (S, n) -> one (S of a thread, n) for each group
        ends = np.cumsum([len(group.last) for group in groups])[:-1]
        numbers = np.split(uniforms, ends)
        takes = [None] * len(groups) if forced is None else np.split(forced, ends)

        def run_group(group: _Streams, u: npt.NDArray[np.float64], take: ClassArray | None) -> tuple[Any, Any]:
            return group.run(pieces, u, take, truncation)

        if len(groups) == 1:
            return run_group(groups[0], numbers[0], takes[0])
        with ThreadPoolExecutor(len(groups)) as pool:
            drawn, outputs = zip(*pool.map(run_group, groups, numbers, takes), strict=True)
        # (S of a thread, n) -> (S, n), the streams in their order
        return np.concatenate(drawn), np.concatenate(outputs)


@dataclass
class _Streams:
    """Streams that step together: their queues and work space.

    Args:
        network: the packed weights.
        queues: (S, slots * residual_channels) each stream's ring buffers.
        last: (S,) the newest sample of each.
        table_of: (S,) which table of what conditions add each takes.
    """

    network: PackedNetwork
    queues: Float32
    last: ClassArray
    table_of: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        shape, weights = self.network.shape, self.network.weights
        widths = [int(n) for n in weights.layers[-3:, 2]]  # of skip, head and output, padded
        streams, depth = len(self.last), len(weights.reaches)

        def room(width: int) -> Float32:
            return aligned(np.zeros((streams, padded(width + ROUNDED, LANES)), np.float32))

        # block b's ring: reach_b rows of R numbers
        begins = np.concatenate([[0], np.cumsum(weights.reaches)[:-1]]) * shape.residual_channels
        self.state = Queues(self.queues, begins, np.zeros(depth, np.int64), self.last)
        self.work = Work(
            taps=room(shape.kernel_size * shape.residual_channels),
            h=room(shape.residual_channels),
            gates=room(2 * shape.gate_channels),
            z=room(depth * shape.gate_channels),
            residual=room(shape.residual_channels),
            skip=room(widths[0]),
            head=room(widths[1]),
            output=room(widths[2]),
            rounded=aligned(
                np.zeros((streams, UNIT + padded(int(weights.layers[:, 1].max()), ROUNDED) // 2), np.int32)
            ),
            p=np.zeros(padded(widths[-1], LANES), np.float32),
            shares=np.zeros(shape.n_parameters),
        )

    def run(
        self,
        pieces: Sequence[Piece],
        uniforms: npt.NDArray[np.float64],
        forced: ClassArray | None,
        truncation: Truncation,
    ) -> tuple[ClassArray, Float32]:
        """Take the streams through as many samples as there are uniform numbers; return them, and forced ones' outputs.

        A table of gate biases covers some samples: the kernel is called for each, and the parts are joined along time.
        """
        shape, results, done = self.network.shape, [], 0
        for piece in pieces:
            part = slice(done, done + piece.n)
            done += piece.n
            draws = Draws(
                uniforms=np.ascontiguousarray(uniforms[:, part]),
                forced=NOTHING_FORCED if forced is None else np.ascontiguousarray(forced[:, part]),
                temperature=float(truncation.temperature),
                top_k=shape.classes if truncation.top_k is None else truncation.top_k,
                top_p=1.0 if truncation.top_p is None else float(truncation.top_p),
                drawn=np.empty((len(uniforms), piece.n), np.int64),
                traced=np.empty((0 if forced is None else len(forced), piece.n, shape.n_parameters), np.float32),
            )
            gate_bias = GateBias(np.ascontiguousarray(piece.table, np.float32), self.table_of, piece.row_of)
            if run(shape, self.network.weights, gate_bias, self.state, self.work, draws) == NOT_FINITE:
                raise not_finite()
            results.append((draws.drawn, draws.traced))
        drawn, outputs = zip(*results, strict=True)
        return np.concatenate(drawn, axis=1), np.concatenate(outputs, axis=1)
