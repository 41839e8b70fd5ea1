"""Matrix-vector products in vector registers, written in LLVM's language through numba.

A product y = b + W x is cut into tiles of up to four registers of outputs. A tile's outputs stay in registers while its
inputs go by, so that the only memory traffic is the weights, read once, in the order in which they lie. Every output
of floats is one chain of fused multiply-adds over the inputs in order, in every tile and with any number of streams:
that is why a stream's rounding does not depend on the others.

Weights are float32, bfloat16 (two inputs in one 32-bit word) or int8 (with a scale for each output). int8 weights meet
integers where the processor adds products of these: sums of integers are exact in any order. Elsewhere they are
converted to float32.

A product's inputs are rounded to signed integers q of as few bits as leave the sum within 32: 15 and a sign up to 516
inputs, one less each time they double, more where the weights are small. Where the processor multiplies 16-bit integers
in pairs, that is all. Where it multiplies bytes, four in a lane, q + 2^15 = low + 256 high is kept as two planes, the
low bytes of all inputs and their high bytes, and each plane is multiplied by the weights as they are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
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
    llvm_add_products,
    llvm_fma,
    llvm_loop,
    llvm_pointer,
    llvm_splat,
    llvm_words,
)

UNROLL = 4  # inputs in a turn of the loop; rows are padded to it
TILE_REGISTERS = 4  # times up to four streams: sixteen accumulators, half of AVX-512's registers
TILE_STREAMS = 4
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


def _load_group(builder: ir.IRBuilder, base: ir.Value, row: ir.Value, registers: int) -> list[ir.Value]:
    """Load the int8 weights of inputs that share a lane, which lie side by side, (inputs / GROUP, outputs, GROUP).

    Returns:
        A register for every LANES outputs, GROUP integers in each lane.
    """
    narrow, wide = (ir.VectorType(kind, GROUP * LANES) for kind in (INT8, INT16))
    weights = []
    for register in range(registers):
        at = builder.add(builder.mul(row, INT64(registers * LANES)), INT64(register * GROUP * LANES))
        loaded = builder.load(builder.bitcast(builder.gep(base, [at]), narrow.as_pointer()), align=1)
        weights.append(builder.bitcast(loaded if GROUP == 4 else builder.sext(loaded, wide), WORDS))
    return weights


KINDS = {types.float32: "float32", types.uint32: "bfloat16", types.int8: "int8"}


def build_tile_product(streams: int, registers: int) -> Callable[..., None]:
    """Build a tile's product for a number of streams, to be called from jitted code.

        product(weights, weight_at, x, x_at, x_step, n_inputs, bias, scale, start, bias_at, y, y_at, y_step)

    y[s, o] = bias[o] + scale[o] (start[o] + sum_i W[i, o] x[s, i]) for the tile's outputs o; scale and start are
    int8's. All arrays are flat; ``_at`` is where to begin, ``_step`` the distance from one stream to the next; n_inputs
    is a multiple of UNROLL. The weights' type gives their precision: float32, uint32 (pairs of bfloat16) or int8. x is
    float32, or for int8 weights int32, rounded as `_round` lays it out; n_inputs is then a multiple of ROUNDED.
    """

    @intrinsic
    def tile_product(
        typingctx, weights, weight_at, x, x_at, x_step, n_inputs, bias, scale, start, bias_at, y, y_at, y_step
    ):
        signature = types.void(
            weights, types.int64, x, types.int64, types.int64, types.int64, bias, scale, start, types.int64, y,
            types.int64, types.int64,
        )  # fmt: skip

        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            kinds = signature.args
            kind = KINDS[kinds[0].dtype]
            base = llvm_pointer(context, builder, kinds[0], arguments[0], arguments[1])
            inputs = llvm_pointer(context, builder, kinds[2], arguments[2], arguments[3])
            outputs = llvm_pointer(context, builder, kinds[10], arguments[10], arguments[11])
            biases, scales, starts = (
                llvm_pointer(context, builder, kinds[each], arguments[each], arguments[9]) for each in (6, 7, 8)
            )
            x_step, n_inputs, y_step = arguments[4], arguments[5], arguments[12]
            fma, zero = llvm_fma(builder), ir.Constant(VECTOR, [0.0] * LANES)

            def vector_at(pointer: ir.Value, register: int) -> ir.Value:
                return builder.bitcast(builder.gep(pointer, [INT64(register * LANES)]), VECTOR.as_pointer())

            scaled, is_integer = kind == "int8", kinds[2].dtype == types.int32
            # the sums begin at the bias; int8's at 0, for the scale is applied last: y = scale sum + b
            begin = [zero if scaled else builder.load(vector_at(biases, r), align=4) for r in range(registers)]

            def integer_loop(planes: Sequence[int], begin: list[ir.Value], chains: int) -> list[ir.Value]:
                """Add the products with these planes of the inputs; chain after chain, stream after stream."""

                def turn(row: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    for group in range(UNROLL // GROUP):
                        i = builder.add(row, INT64(group * GROUP))
                        weights = _load_group(builder, base, i, registers)
                        for plane, s in product(planes, range(streams)):
                            # the GROUP inputs of one lane, in all lanes: each sum takes GROUP products
                            at = word_of(builder, n_inputs, plane, i)
                            at = builder.add(at, builder.mul(x_step, INT64(s)))
                            value = llvm_splat(builder, builder.load(builder.gep(inputs, [at])))
                            first = ((group + plane) % chains * streams + s) * registers
                            for r in range(registers):
                                sums[first + r] = llvm_add_products(builder, sums[first + r], value, weights[r])
                    return sums

                return llvm_loop(builder, n_inputs, UNROLL, begin, turn)

            def integer_sums() -> list[ir.Value]:
                """Return sum_i W[i, o] q[s, i], which integers of 32 bits hold, whatever their parts add up to."""
                none, n = llvm_words(0), registers * streams
                places = (builder.bitcast(vector_at(starts, r), WORDS.as_pointer()) for r in range(registers))
                first = [builder.load(place, align=4) for place in places] * streams
                # q + 2^15 = low + 256 high; of one plane, the sums of every other group are added as they are
                shift = llvm_words(8 if PLANES == 2 else 0)

                def add_shifted(sums: list[ir.Value], others: list[ir.Value]) -> list[ir.Value]:
                    return [builder.add(a, builder.shl(b, shift)) for a, b in zip(sums, others, strict=True)]

                if streams == 1:  # a sum waits for the one before it; two do not wait for each other
                    both = integer_loop(range(PLANES), first + [none] * n, 2)
                    return add_shifted(both[:n], both[n:])
                if PLANES == 2:  # of several streams one after the other: both do not fit the registers
                    first = add_shifted(first, integer_loop([1], [none] * n, 1))
                return integer_loop([0], first, 1)

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
            sums = integer_sums() if is_integer else llvm_loop(builder, n_inputs, UNROLL, begin * streams, turn)
            for s in range(streams):
                place = builder.gep(outputs, [builder.mul(y_step, INT64(s))])
                for r in range(registers):
                    result = sums[s * registers + r]
                    if scaled:
                        scale_vector = builder.load(vector_at(scales, r), align=4)
                        if is_integer:
                            unit = builder.load(builder.gep(inputs, [builder.mul(x_step, INT64(s))]))
                            unit = llvm_splat(builder, builder.bitcast(unit, FLOAT))
                            scale_vector, result = builder.fmul(scale_vector, unit), builder.sitofp(result, VECTOR)
                        result = builder.call(fma, [result, scale_vector, builder.load(vector_at(biases, r), align=4)])
                    builder.store(result, vector_at(place, r), align=4)
            return context.get_dummy_value()

        return signature, codegen

    return cast(Callable[..., None], tile_product)


@intrinsic
def prefetch(typingctx, array, at):
    """Ask for a cache line that will be needed soon."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        pointer = builder.bitcast(
            llvm_pointer(context, builder, signature.args[0], arguments[0], arguments[1]), INT8.as_pointer()
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


# --- inputs as integers, for int8 weights --------------------------------------------------------------------------


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
