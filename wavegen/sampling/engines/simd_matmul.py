"""Matrix-vector products in vector registers, written in LLVM's language through numba.

A product y = b + W x is cut into tiles of up to four registers of outputs. A tile's outputs stay in registers while its
inputs go by, so that the only memory traffic is the weights, read once, in the order in which they lie. Every output
of floats is one chain of fused multiply-adds over the inputs in order, in every tile and with any number of streams:
that is why a stream's rounding does not depend on the others.

Weights are float32, bfloat16 (two inputs in one 32-bit word) or int8 (with a scale for each output). Where the
processor multiplies 16-bit integers in pairs, int8 weights meet inputs that are rounded to as many bits as leave the
sum within 32 (16 up to 512 inputs, 14 at 2,048, one less each time they double): sums of integers are exact in any
order. Elsewhere they are converted to float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

from wavegen.simd import (
    DOT_PRODUCT,
    FLOAT,
    INT16,
    INT32,
    INT64,
    LANES,
    VECTOR,
    WORDS,
    llvm_add_products,
    llvm_fma,
    llvm_loop,
    llvm_splat,
)

UNROLL = 4  # inputs in a turn of the loop; rows are padded to it
# of a float32's bits: all but the sign, and the exponent, whose bits are all set in what is not finite
SIGNLESS, INFINITE = np.int32(0x7FFFFFFF), np.int32(0x7F800000)
UNIT = 2  # 16-bit integers in front of a row of rounded inputs: a float32, their unit

TILE_REGISTERS = 4  # times up to four streams: sixteen accumulators, half of AVX-512's registers
TILE_STREAMS = 4

INT8 = ir.IntType(8)


def _load_weights(
    builder: ir.IRBuilder, kind: str, base: ir.Value, row: ir.Value, registers: int
) -> list[list[ir.Value]]:
    """Load the weights of UNROLL inputs: for each input a list of float vectors, one for each register.

    Args:
        builder: at the place to load.
        kind: float32, bfloat16 or int8.
        base: pointer to the tile's first weight.
        row: number of the first input.
        registers: registers of outputs in the tile.
    """
    width = registers * LANES
    if kind == "bfloat16":
        # A 32-bit word holds the weights of two inputs: the even one's is its upper half, a float32 when the lower is
        # cleared; the odd one's is its lower half, a float32 when shifted up.
        pairs = []
        for pair in range(UNROLL // 2):
            first = builder.mul(builder.add(builder.lshr(row, INT64(1)), INT64(pair)), INT64(width))
            high, low = [], []
            for register in range(registers):
                at = builder.gep(base, [builder.add(first, INT64(register * LANES))])
                words = builder.load(builder.bitcast(at, WORDS.as_pointer()), align=4)
                mask, shift = ir.Constant(WORDS, [0xFFFF0000] * LANES), ir.Constant(WORDS, [16] * LANES)
                high.append(builder.bitcast(builder.and_(words, mask), VECTOR))
                low.append(builder.bitcast(builder.shl(words, shift), VECTOR))
            pairs += [high, low]
        return pairs
    rows = []
    for step in range(UNROLL):
        # weight (input, output) lies at input * width + output within the tile
        first = builder.mul(builder.add(row, INT64(step)), INT64(width))
        vectors = []
        for register in range(registers):
            at = builder.gep(base, [builder.add(first, INT64(register * LANES))])
            if kind == "float32":
                vectors.append(builder.load(builder.bitcast(at, VECTOR.as_pointer()), align=4))
            else:
                narrow = builder.load(builder.bitcast(at, ir.VectorType(INT8, LANES).as_pointer()), align=1)
                vectors.append(builder.sitofp(builder.sext(narrow, WORDS), VECTOR))
        rows.append(vectors)
    return rows


def _load_pairs(builder: ir.IRBuilder, base: ir.Value, row: ir.Value, registers: int) -> list[ir.Value]:
    """Load the int8 weights of inputs row and row + 1, which lie side by side, (inputs / 2, outputs, 2).

    Returns:
        A register for every LANES outputs, two 16-bit integers in each lane.
    """
    narrow, wide = (ir.VectorType(kind, 2 * LANES) for kind in (INT8, INT16))
    weights = []
    for register in range(registers):
        at = builder.add(builder.mul(row, INT64(registers * LANES)), INT64(register * 2 * LANES))
        loaded = builder.load(builder.bitcast(builder.gep(base, [at]), narrow.as_pointer()), align=1)
        weights.append(builder.bitcast(builder.sext(loaded, wide), WORDS))
    return weights


def _data(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, offset: ir.Value) -> ir.Value:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


KINDS = {types.float32: "float32", types.uint32: "bfloat16", types.int8: "int8"}


def build_tile_product(streams: int, registers: int) -> Callable[..., None]:
    """Build a tile's product for a number of streams, to be called from jitted code.

        product(weights, weight_at, x, x_at, x_step, n_inputs, bias, scale, bias_at, y, y_at, y_step)

    y[s, o] = bias[o] + scale[o] * sum_i W[i, o] x[s, i] for the tile's outputs o; the scale is int8's only. All arrays
    are flat; ``_at`` is where to begin, ``_step`` the distance from one stream to the next; n_inputs is a multiple of
    UNROLL. The weights' type gives their precision: float32, uint32 (pairs of bfloat16) or int8. x is float32, or int16
    for int8 weights: integers, behind their unit.
    """

    @intrinsic
    def product(typingctx, weights, weight_at, x, x_at, x_step, n_inputs, bias, scale, bias_at, y, y_at, y_step):
        signature = types.void(
            weights, types.int64, x, types.int64, types.int64, types.int64, bias, scale, types.int64, y, types.int64,
            types.int64,
        )  # fmt: skip

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            kind = KINDS[kinds[0].dtype]
            base = _data(context, builder, kinds[0], arguments[0], arguments[1])
            inputs = _data(context, builder, kinds[2], arguments[2], arguments[3])
            outputs = _data(context, builder, kinds[9], arguments[9], arguments[10])
            biases = _data(context, builder, kinds[6], arguments[6], arguments[8])
            scales = _data(context, builder, kinds[7], arguments[7], arguments[8])
            x_step, n_inputs, y_step = arguments[4], arguments[5], arguments[11]
            fma, zero = llvm_fma(builder), ir.Constant(VECTOR, [0.0] * LANES)

            def vector_at(pointer: ir.Value, register: int) -> ir.Value:
                return builder.bitcast(builder.gep(pointer, [INT64(register * LANES)]), VECTOR.as_pointer())

            scaled, is_integer = kind == "int8", kinds[2].dtype == types.int16
            # the sums begin at the bias; int8's at 0, for the scale is applied last: y = scale sum + b
            begin = [zero if scaled else builder.load(vector_at(biases, r), align=4) for r in range(registers)]
            if is_integer:
                begin = [ir.Constant(WORDS, [0] * LANES)] * registers

            def integer_turn(row: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                for pair in range(UNROLL // 2):
                    i = builder.add(row, INT64(2 * pair))
                    weights = _load_pairs(builder, base, i, registers)
                    for s in range(streams):
                        # x[s, i] and x[s, i + 1] in all lanes: sums[s] += W[i, :] x[s, i] + W[i + 1, :] x[s, i + 1]
                        at = builder.add(builder.add(i, INT64(UNIT)), builder.mul(x_step, INT64(s)))
                        two = builder.bitcast(builder.gep(inputs, [at]), INT32.as_pointer())
                        value = llvm_splat(builder, builder.load(two, align=2))
                        for r in range(s * registers, (s + 1) * registers):
                            sums[r] = llvm_add_products(builder, sums[r], weights[r % registers], value)
                return sums

            def turn(row: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                # each weight is loaded once and used for all streams of the tile
                rows = _load_weights(builder, kind, base, row, registers)
                for step in range(UNROLL):
                    for s in range(streams):
                        at = builder.add(builder.add(row, INT64(step)), builder.mul(x_step, INT64(s)))
                        # x[s, i] in all lanes: sums[s] += W[i, :] x[s, i]
                        value = llvm_splat(builder, builder.load(builder.gep(inputs, [at])))
                        for r in range(s * registers, (s + 1) * registers):
                            sums[r] = builder.call(fma, [value, rows[step][r % registers], sums[r]])
                return sums

            # streams * registers sums, stream after stream, which stay in registers
            sums = llvm_loop(builder, n_inputs, UNROLL, begin * streams, integer_turn if is_integer else turn)
            for s in range(streams):
                place = builder.gep(outputs, [builder.mul(y_step, INT64(s))])
                for r in range(registers):
                    result = sums[s * registers + r]
                    if scaled:
                        scale_vector = builder.load(vector_at(scales, r), align=4)
                        if is_integer:
                            unit = builder.bitcast(
                                builder.gep(inputs, [builder.mul(x_step, INT64(s))]), FLOAT.as_pointer()
                            )
                            unit = llvm_splat(builder, builder.load(unit, align=2))
                            scale_vector, result = builder.fmul(scale_vector, unit), builder.sitofp(result, VECTOR)
                        result = builder.call(fma, [result, scale_vector, builder.load(vector_at(biases, r), align=4)])
                    builder.store(result, vector_at(place, r), align=4)
            return context.get_dummy_value()

        return signature, codegen

    return cast(Callable[..., None], product)


@njit(nogil=True, error_model="numpy")
def _round(x, largest, row):
    """Round inputs to integers up to ``largest``: x[i] = unit row[UNIT + i]; the unit is NaN if one is not finite."""
    # without its sign, a float32 is the larger the larger its bits are as an integer; integers compare side by side
    bits, highest = x.view(np.int32), np.int32(0)
    for i in range(len(bits)):
        highest = max(highest, bits[i] & SIGNLESS)
    unit, rounded = row[:UNIT].view(np.float32), row[UNIT:]
    row[:UNIT].view(np.int32)[0] = highest
    most = unit[0]  # the same bits
    unit[0] = most / np.float32(largest) if highest < INFINITE else np.float32(np.nan)
    per_unit = np.float32(largest) / most if 0 < highest < INFINITE else np.float32(0.0)
    for i in range(len(x)):
        rounded[i] = np.int16(np.rint(x[i] * per_unit))
    rounded[len(x) :] = 0  # padding


def inputs_for(weights, layer, x, x_at, x_step, rounded, n_streams):
    """Return a product's inputs as its weights take them, flat, where they begin, and their step.

    They are x itself, or integers where the weights are and the processor multiplies these.
    """


@overload(inputs_for)
def _inputs_for(weights, layer, x, x_at, x_step, rounded, n_streams):
    if weights.dtype != types.int8 or DOT_PRODUCT is None:
        return lambda weights, layer, x, x_at, x_step, rounded, n_streams: (x, x_at, x_step)

    def integers(weights, layer, x, x_at, x_step, rounded, n_streams):
        padded, n_inputs, largest = layer[1], layer[5], layer[6]
        for s in range(n_streams):
            at = x_at + s * x_step
            _round(x[at : at + n_inputs], largest, rounded[s, : UNIT + padded])
        return rounded.reshape(-1), 0, rounded.shape[1]

    return integers


@intrinsic
def prefetch(typingctx, array, at):
    """Ask for a cache line that will be needed soon."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(
            _data(context, builder, signature.args[0], arguments[0], arguments[1]), INT8.as_pointer()
        )
        kind = ir.FunctionType(ir.VoidType(), [INT8.as_pointer(), *[INT32] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, INT32(0), INT32(3), INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def power_of_two(typingctx, exponent):
    """2^n as float32 for an int32 n from -126 to 127, by writing it into the exponent's bits."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        # float32: sign, 8 bits of exponent + 127, 23 bits of mantissa
        biased = builder.add(arguments[0], INT32(127))
        return builder.bitcast(builder.shl(biased, INT32(23)), FLOAT)

    return types.float32(types.int32), codegen
