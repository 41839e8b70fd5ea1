"""Inputs as integers, for products with int8 weights on processors that add products of integers.

A product's inputs are rounded to as many bits, beside a sign, as leave the sum within 32: 15 up to 516 inputs, one less
each time they double. Where the processor multiplies 16-bit integers in pairs, that is all. Where it multiplies
bytes, four in a lane, an integer is split in two, q + 2^15 = lower + 256 upper, and each half meets the weights as they
are stored.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from wavegen.simd import (
    DOT_PRODUCT,
    FLOAT,
    INT8,
    INT16,
    INT32,
    INT64,
    LANES,
    VECTOR,
    WORDS,
    llvm_fma,
    llvm_loop,
    llvm_pointer,
    llvm_splat,
)

# Inputs that share a lane, and how many words of 32 bits they take: four in two words, of their lower and upper bytes,
# or two in one.
GROUP, PLANES = (4, 2) if DOT_PRODUCT == "vpdpbusd.512" else (2, 1)
ROUNDED = 2 * LANES  # inputs that are rounded in a turn; rows of integers are padded to it
UNIT = 16  # words in front of a row of rounded inputs, a line of the processor's cache: the first is their unit
BELOW = 1 - 2.0**-15
SMALLEST = 27  # the exponent's bits of 2^-100: inputs that are all smaller are rounded as if one were as large
INFINITE = 0x7F800000  # the exponent of a float32's bits, which are all set in what is not finite


def word_of(builder: ir.IRBuilder, n_inputs: ir.Value, plane: int, i: ir.Value) -> ir.Value:
    """Return which word of a row holds input i and those that share its lane."""
    at = builder.sdiv(builder.add(builder.mul(n_inputs, INT64(plane)), i), INT64(GROUP))
    return builder.add(at, INT64(UNIT))


@intrinsic
def _round(typingctx, x, x_at, n_inputs, padded_inputs, bits, row, row_at):
    """Round inputs to integers of a number of bits and a sign, in pairs: x[i] = unit q[i], the unit about a power of two.

    Of ROUNDED inputs a 16-bit register's lane holds q[i] below and q[i + LANES] above. The row holds these, or the
    lower bytes of all and then the upper bytes, behind UNIT words of which the first is the unit: NaN if an input is
    not finite. What lies in x behind the inputs, up to ROUNDED numbers, is read and not used.
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        kinds, n_inputs, padded = signature.args, arguments[2], arguments[3]
        inputs = llvm_pointer(context, builder, kinds[0], arguments[0], arguments[1])
        row = llvm_pointer(context, builder, kinds[5], arguments[5], arguments[6])

        def words_of(value: int) -> ir.Constant:
            return ir.Constant(WORDS, [value] * LANES)

        def load_words(at: ir.Value) -> ir.Value:
            words = builder.bitcast(builder.gep(inputs, [at]), WORDS.as_pointer())
            left = llvm_splat(builder, builder.trunc(builder.sub(n_inputs, at), INT32))
            is_input = builder.icmp_signed("<", ir.Constant(WORDS, list(range(LANES))), left)
            return builder.select(is_input, builder.load(words, align=4), words_of(0))

        def larger(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.icmp_signed(">", a, b), a, b)

        def compare(at: ir.Value, highest: list[ir.Value]) -> list[ir.Value]:
            # without its sign, a float32 is the larger the larger its bits are as an integer
            return [larger(builder.and_(load_words(at), words_of(0x7FFFFFFF)), highest[0])]

        (highest,) = llvm_loop(builder, n_inputs, LANES, [words_of(0)], compare)
        distance = LANES // 2
        while distance:  # the largest of all lanes, in all lanes
            turned = ir.Constant(WORDS, [(lane + distance) % LANES for lane in range(LANES)])
            highest = larger(highest, builder.shuffle_vector(highest, highest, turned))
            distance //= 2
        # A float32 is below 2^(e - 126), e the 8 bits of its exponent; times 2^(bits + 126 - e), below 2^bits.
        exponent = larger(builder.lshr(highest, words_of(23)), words_of(SMALLEST))
        kept = llvm_splat(builder, builder.trunc(arguments[4], INT32))
        times = builder.shl(builder.sub(builder.add(words_of(126 + 127), kept), exponent), words_of(23))
        unit = builder.shl(builder.sub(builder.add(exponent, words_of(1)), kept), words_of(23))
        is_finite = builder.icmp_signed("<", highest, words_of(INFINITE))
        unit = builder.select(is_finite, unit, words_of(0x7FC00000))
        unit = builder.fmul(builder.bitcast(unit, VECTOR), ir.Constant(VECTOR, [1 / BELOW] * LANES))
        first = builder.bitcast(builder.gep(row, [INT64(0)]), FLOAT.as_pointer())
        builder.store(builder.extract_element(unit, INT32(0)), first)
        # a little less, so that the largest is not rounded to 2^bits
        times = builder.fmul(builder.bitcast(times, VECTOR), ir.Constant(VECTOR, [BELOW] * LANES))
        # 1.5 2^23 + q, |q| < 2^22, is rounded to a whole number, whose lowest bits are q's
        fma, whole = llvm_fma(builder), ir.Constant(VECTOR, [1.5 * 2**23] * LANES)

        def convert(at: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            low, high = (
                builder.bitcast(builder.call(fma, [builder.bitcast(load_words(place), VECTOR), times, whole]), WORDS)
                for place in (at, builder.add(at, INT64(LANES)))
            )
            words = builder.or_(builder.and_(low, words_of(0xFFFF)), builder.shl(high, words_of(16)))
            planes = [words]
            if PLANES == 2:
                # q + 2^15 = lower + 256 upper, bytes without a sign; the sums begin at -2^15 sum W, to make up for it
                halves, narrow = (ir.VectorType(kind, ROUNDED) for kind in (INT16, INT8))
                words = builder.bitcast(builder.xor(words, words_of(0x80008000)), halves)
                upper = builder.lshr(words, ir.Constant(halves, [8] * ROUNDED))
                planes = [builder.trunc(part, narrow) for part in (words, upper)]
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
