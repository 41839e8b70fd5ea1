"""Inputs as integers, for products with int8 weights on processors that add products of integers.

A product's inputs are rounded to signed integers q of as few bits as leave the sum within 32: 15 and a sign up to 516
inputs, one less each time they double, more where the weights are small. Where the processor multiplies 16-bit integers
in pairs, that is all. Where it multiplies bytes, four in a lane, q + 2^15 = low + 256 high is kept as two planes, the
low bytes of all inputs and their high bytes, and each plane is multiplied by the weights as they are stored.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from wavegen.simd import (
    DOT_PRODUCT,
    FLOAT,
    INFINITE,
    INT8,
    INT16,
    INT32,
    INT64,
    LANES,
    SIGNLESS,
    VECTOR,
    WORDS,
    llvm_fma,
    llvm_loop,
    llvm_pointer,
    llvm_splat,
    llvm_words,
)

# Inputs that share a lane, and how many words of 32 bits they take: four in two words, of their low and of their high
# bytes, or two in one.
GROUP, PLANES = (4, 2) if DOT_PRODUCT == "vpdpbusd.512" else (2, 1)
ROUNDED = 2 * LANES  # inputs that are rounded in a turn; rows of integers are padded to it
MOST_BITS = 15  # of q, beside its sign
OFFSET = 1 << MOST_BITS  # added to q, so that its bytes have no sign; sums begin at -OFFSET sum W, to make up for it
UNIT = 16  # words in front of a row of rounded inputs, a line of the processor's cache: the first is their unit
BELOW = 1 - 2.0**-MOST_BITS  # times the largest of 15 bits, it is rounded to 32,767: 16 bits do not hold 32,768
MANTISSA_BITS, BIAS = 23, 127  # of a float32; its exponent's bits are its exponent plus the bias
ROUNDING = 1.5 * 2**MANTISSA_BITS  # added to a float32, it leaves the nearest integer in the low bits
NOT_A_NUMBER = 0x7FC00000
SMALLEST = 27  # the exponent's bits of 2^-100: inputs that are all smaller are rounded as if one were as large


def word_of(builder: ir.IRBuilder, n_inputs: ir.Value, plane: int, i: ir.Value) -> ir.Value:
    """Return which word of a row holds input i and those that share its lane."""
    at = builder.udiv(builder.add(builder.mul(n_inputs, INT64(plane)), i), INT64(GROUP))
    return builder.add(at, INT64(UNIT))


@intrinsic
def _round(typingctx, x, x_at, n_inputs, padded_inputs, bits, row, row_at):
    """Round inputs to integers of a number of bits and a sign: x[i] = unit q[i], the unit about a power of two.

    The row holds UNIT words, of which the first is the unit (NaN if an input is not finite), and behind them of each
    ROUNDED inputs words with q[i] in the low half and q[i + LANES] in the high half; or the low bytes of all these
    words' halves, and then the high bytes. What lies in x behind the inputs, up to ROUNDED - 1 numbers, is read and
    changes nothing: it meets weights of 0.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds, n_inputs, padded = signature.args, arguments[2], arguments[3]
        inputs = llvm_pointer(context, builder, kinds[0], arguments[0], arguments[1])
        row = llvm_pointer(context, builder, kinds[5], arguments[5], arguments[6])

        def load_words(at: ir.Value) -> ir.Value:
            return builder.load(builder.bitcast(builder.gep(inputs, [at]), WORDS.as_pointer()), align=4)

        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        def compare(at: ir.Value, highest: list[ir.Value]) -> list[ir.Value]:
            # without its sign, a float32 is the larger the larger its bits are as an integer
            bits = builder.and_(load_words(at), llvm_words(SIGNLESS))
            left = llvm_splat(builder, builder.trunc(builder.sub(n_inputs, at), INT32))
            is_input = builder.icmp_signed("<", ir.Constant(WORDS, list(range(LANES))), left)
            return [larger(builder.select(is_input, bits, llvm_words(0)), highest[0])]

        (highest,) = llvm_loop(builder, n_inputs, LANES, [llvm_words(0)], compare)
        distance = LANES // 2
        while distance:  # the largest of all lanes, in all lanes
            turned = ir.Constant(WORDS, [(lane + distance) % LANES for lane in range(LANES)])
            highest = larger(highest, builder.shuffle_vector(highest, highest, turned))
            distance //= 2
        # A float32 is below 2^(e - 126), e the 8 bits of its exponent; times 2^(bits + 126 - e), below 2^bits.
        shift = llvm_words(MANTISSA_BITS)
        exponent = larger(builder.lshr(highest, shift), llvm_words(SMALLEST))
        kept = llvm_splat(builder, builder.trunc(arguments[4], INT32))
        # Powers of two are made by writing their exponents.
        times = builder.shl(builder.sub(builder.add(llvm_words(BIAS - 1 + BIAS), kept), exponent), shift)
        unit = builder.shl(builder.sub(builder.add(exponent, llvm_words(1)), kept), shift)
        is_finite = builder.icmp_signed("<", highest, llvm_words(INFINITE))
        unit = builder.select(is_finite, unit, llvm_words(NOT_A_NUMBER))
        unit = builder.fmul(builder.bitcast(unit, VECTOR), ir.Constant(VECTOR, [1 / BELOW] * LANES))
        first = builder.bitcast(builder.gep(row, [INT64(0)]), FLOAT.as_pointer())
        builder.store(builder.extract_element(unit, INT32(0)), first)
        times = builder.fmul(builder.bitcast(times, VECTOR), ir.Constant(VECTOR, [BELOW] * LANES))
        fma, whole = llvm_fma(builder), ir.Constant(VECTOR, [ROUNDING] * LANES)

        def convert(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            low, high = (
                builder.bitcast(builder.call(fma, [builder.bitcast(load_words(place), VECTOR), times, whole]), WORDS)
                for place in (at, builder.add(at, INT64(LANES)))
            )
            words = builder.or_(builder.and_(low, llvm_words(0xFFFF)), builder.shl(high, llvm_words(16)))
            planes = [words]
            if PLANES == 2:
                halves, narrow = (ir.VectorType(kind, ROUNDED) for kind in (INT16, INT8))
                words = builder.bitcast(builder.xor(words, llvm_words(OFFSET << 16 | OFFSET)), halves)
                high_bytes = builder.lshr(words, ir.Constant(halves, [8] * ROUNDED))
                planes = [builder.trunc(part, narrow) for part in (words, high_bytes)]
            for plane, part in enumerate(planes):
                place = builder.gep(row, [word_of(builder, padded, plane, at)])
                builder.store(part, builder.bitcast(place, part.type.as_pointer()), align=4)
            return []

        llvm_loop(builder, n_inputs, ROUNDED, [], convert)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, types.int64, types.int64, row, types.int64), codegen


def inputs_for(weights, layer, x, x_at, x_step, rounded, rounded_step, n_streams):
    """Return a product's inputs as its weights take them, flat, where they begin, and their step.

    They are x itself, or integers where the weights are and the processor multiplies these.
    """


@overload(inputs_for)
def _inputs_for(weights, layer, x, x_at, x_step, rounded, rounded_step, n_streams):
    if weights.dtype != types.int8 or DOT_PRODUCT is None:
        return lambda weights, layer, x, x_at, x_step, rounded, rounded_step, n_streams: (x, x_at, x_step)

    def integers(weights, layer, x, x_at, x_step, rounded, rounded_step, n_streams):
        for s in range(n_streams):
            _round(x, x_at + s * x_step, layer[5], layer[1], layer[6], rounded, s * rounded_step)
        return rounded, 0, rounded_step

    return integers
