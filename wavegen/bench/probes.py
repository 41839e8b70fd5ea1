"""The limits of one CPU core: memory bandwidth and multiply-adds per second."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from wavegen.simd import INT32, INT64, LANES, VECTOR, llvm_fma, llvm_loop

READ_REGISTERS = (2, 4, 8, 12)  # of the loops that are tried: which is fastest depends on processor and cache
CACHE_LINE = 64  # bytes
FMA_REGISTERS = 12  # enough chains to fill two pipelines of four cycles' latency, in sixteen registers
BEST_OF = 5
PROBE_SECONDS = 0.05


@cache
def _reader(n_registers: int) -> Any:
    """Return a function that adds a float32 buffer up, several times, in so many accumulators."""

    @intrinsic
    def read(typingctx, buffer, n_turns):  # a turn is one vector for each accumulator
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data

            def turn(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                first = builder.mul(index, INT64(n_registers * LANES))
                places = [builder.gep(data, [builder.add(first, INT64(i * LANES))]) for i in range(n_registers)]
                vectors = [builder.load(builder.bitcast(place, VECTOR.as_pointer()), align=4) for place in places]
                return [builder.fadd(total, vector) for total, vector in zip(sums, vectors, strict=True)]

            return _looped(builder, arguments[1], n_registers, turn)

        return types.float32(buffer, types.int64), codegen

    @njit(nogil=True)
    def read_repeatedly(buffer, n_turns, repeats):
        total = np.float32(0.0)
        for _ in range(repeats):
            total += read(buffer, n_turns)
        return total

    return read_repeatedly


@intrinsic
def _multiply_add(typingctx, n_turns):
    """Multiply and add in FMA_REGISTERS registers; a turn is one fused multiply-add for each."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        fma = llvm_fma(builder)
        factor, term = (ir.Constant(VECTOR, [value] * LANES) for value in (0.5, 1.0))

        def turn(index: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            return [builder.call(fma, [total, factor, term]) for total in sums]

        return _looped(builder, arguments[0], FMA_REGISTERS, turn)

    return types.float32(types.int64), codegen


def _looped(
    builder: ir.IRBuilder, n_turns: ir.Value, n_registers: int, turn: Callable[..., list[ir.Value]]
) -> ir.Value:
    """Loop over registers from 0 on; return their sum's first lane, so that nothing is optimized away."""
    results = llvm_loop(builder, n_turns, 1, [ir.Constant(VECTOR, [0.0] * LANES)] * n_registers, turn)
    return builder.extract_element(reduce(builder.fadd, results), INT32(0))


@njit(nogil=True)
def _multiply_add_repeatedly(n_turns):
    return _multiply_add(n_turns)


def written_buffer(n_floats: int) -> npt.NDArray[np.float32]:
    """Return (n_floats,) ones that begin at a cache line.

    They are written, for pages that never were are all one page of zeros, which stays in the cache however large the
    buffer is.
    """
    memory = np.empty(n_floats + CACHE_LINE // 4, np.float32)
    first = -memory.ctypes.data % CACHE_LINE // 4
    buffer = memory[first : first + n_floats]
    buffer.fill(1.0)
    return buffer


def read_bandwidth(n_bytes: int) -> float:
    """Measure the bytes per second at which one core reads a buffer of this size: the best loop, best of 5."""
    rates = []
    for n_registers in READ_REGISTERS:
        n_turns = max(1, n_bytes // (4 * n_registers * LANES))
        buffer = written_buffer(n_turns * n_registers * LANES)
        read = _reader(n_registers)
        rates.append(buffer.nbytes * _rate(lambda repeats: read(buffer, n_turns, repeats)))  # noqa: B023 (called here)
    return max(rates)


def multiply_add_rate() -> float:
    """Measure the multiply-adds per second of one core, in registers; best of 5."""
    return FMA_REGISTERS * LANES * _rate(_multiply_add_repeatedly)


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
