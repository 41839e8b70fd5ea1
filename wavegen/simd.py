"""A register of float32 numbers as a value in numba's compiled code, so that a kernel reads as its equation.

numba leaves it to LLVM to find out that a loop can go through the vector registers, and LLVM often cannot: it must
prove that the arrays do not overlap. Here a kernel names its vectors:

    for c in range(0, channels, LANES):
        store(z, row, c, tanh(load(filter, row, c)) * sigmoid(load(gate, row, c)))

Arrays are two-dimensional and C-contiguous, float32 or bfloat16 (as uint16); the arithmetic is float32's.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.dispatcher import Dispatcher
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, overload, register_model


def vector_lanes(features: str) -> int:
    """Return the number of float32 in a vector register of a processor with these features."""
    if "+avx512f" in features:
        return 16
    return 8 if "+avx" in features else 4


FEATURES = str(cpu_target.target_context.codegen().magic_tuple())  # of the processor that numba compiles for
LANES = vector_lanes(FEATURES)
ROUNDS_TO_BFLOAT16 = "+avx512bf16" in FEATURES  # in one instruction, which takes subnormal numbers for zero
# The instruction that adds products of integers to 32-bit sums, a few to each: four of a byte without a sign and one
# with, or two of 16 bits, for another instruction to add; None: a processor has neither, or no numbers of this width.
DOT_PRODUCT = {
    16: "vpdpbusd.512" if "+avx512vnni" in FEATURES else "pmaddw.d.512" if "+avx512bw" in FEATURES else None,
    8: "pmadd.wd" if "+avx2" in FEATURES else None,
}.get(LANES)
# How kernels are compiled. numba counts the references to an array wherever a slice of it is made, by instructions that
# wait for all memory writes before them. Kernels do without: `_nrt` is a private option of numba's, with which what
# allocates does not compile.
KERNEL = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
# of a float32's bits: all but the sign, and the exponent, whose bits are all set in what is not finite
SIGNLESS, INFINITE = 0x7FFFFFFF, 0x7F800000
FLOAT, INT8, INT16, INT32, INT64 = ir.FloatType(), *(ir.IntType(bits) for bits in (8, 16, 32, 64))
VECTOR, WORDS, HALVES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT32, INT16))


def key_cache_by_sources(module: Mapping[str, Any], *sources: ModuleType) -> None:
    """Key the disk cache of a module's compiled functions by a hash of all source files that they are built on.

    numba itself recompiles a cached function only when the time or the size of its own file changes: it would continue
    with machine code that has older versions of imported functions in it.

    Args:
        module: the ``globals()`` of a module, after its last function.
        sources: the other modules of this package that its functions are built on.
    """
    files = [__file__, module["__file__"], *(str(source.__file__) for source in sources)]
    state = hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
    for function in module.values():
        if isinstance(function, Dispatcher) and function.py_func.__module__ == module["__name__"]:
            # numba compares it with the index on disk
            function._cache._cache_file._source_stamp = state  # type: ignore[attr-defined]


class VectorType(types.Type):
    """numba's type of a register."""

    def __init__(self) -> None:
        super().__init__(f"float32x{LANES}")


VECTOR_TYPE = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, data_model_manager: Any, kind: Any) -> None:
        super().__init__(data_model_manager, kind, VECTOR)


def llvm_words(value: int) -> ir.Constant:
    """Return a register with one integer in every lane."""
    return ir.Constant(WORDS, [value] * LANES)


def llvm_fma(builder: ir.IRBuilder) -> ir.Value:
    """Return LLVM's function of three registers that computes a b + c with one rounding."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f32")


def llvm_add_products(builder: ir.IRBuilder, sums: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    """Add the products of each lane's integers to its 32-bit sum, modulo 2^32: see ``DOT_PRODUCT``."""
    if DOT_PRODUCT == "vpdpbusd.512":
        kind = ir.FunctionType(WORDS, [WORDS] * 3)
        name = "llvm.x86.avx512.vpdpbusd.512"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [sums, a, b])
    pairs = ir.VectorType(INT16, 2 * LANES)
    kind = ir.FunctionType(WORDS, [pairs] * 2)
    name = f"llvm.x86.{'avx512' if LANES == 16 else 'avx2'}.{DOT_PRODUCT}"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.add(sums, builder.call(function, [builder.bitcast(each, pairs) for each in (a, b)]))


def llvm_splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Set every lane of a register to one number of 32 bits."""
    undefined = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, value, INT32(0)), undefined, llvm_words(0))


def llvm_loop(
    builder: ir.IRBuilder,
    stop: ir.Value,
    step: int,
    begin: Sequence[ir.Value],
    turn: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
) -> list[ir.Value]:
    """Carry registers through the turns of a loop, one turn at least; return them as the last turn leaves them.

    Args:
        builder: where the loop is to stand; it ends behind the loop.
        stop: the index, 0, step, 2 step, ..., stays below.
        step: from one index to the next.
        begin: the registers before the first turn.
        turn: builds a turn from the index and the registers, without branches; returns the registers after it.
    """
    before, body, after = builder.block, builder.append_basic_block("turn"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    index, registers = builder.phi(INT64), [builder.phi(each.type) for each in begin]
    results = turn(index, list(registers))
    following = builder.add(index, INT64(step))
    carried = zip((index, *registers), (INT64(0), *begin), (following, *results), strict=True)
    for phi, first, last in carried:
        phi.add_incoming(first, before)
        phi.add_incoming(last, body)
    builder.cbranch(builder.icmp_signed("<", following, stop), body, after)
    builder.position_at_end(after)
    return results


def llvm_pointer(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, offset: ir.Value) -> ir.Value:
    """Point to an element of a flat array."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _place(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any, element: ir.Type) -> ir.Value:
    """Pointer to LANES elements of a two-dimensional array from (row, column)."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    width = builder.extract_value(array.shape, 1)
    at = builder.add(builder.mul(arguments[1], width), arguments[2])
    return builder.bitcast(builder.gep(array.data, [at]), element.as_pointer())


@intrinsic
def load(typingctx, array, row, column):
    """Load LANES numbers of a row, from a column on."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        if signature.args[0].dtype == types.float32:
            return builder.load(_place(context, builder, signature, arguments, VECTOR), align=4)
        halves = builder.load(_place(context, builder, signature, arguments, HALVES), align=2)
        return builder.bitcast(builder.shl(builder.zext(halves, WORDS), llvm_words(16)), VECTOR)

    return VECTOR_TYPE(array, types.int64, types.int64), codegen


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


def _bfloat16(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Round to bfloat16, as 16-bit words."""
    if ROUNDS_TO_BFLOAT16:
        return builder.bitcast(builder.fptrunc(value, ir.VectorType(_BFloat(), LANES)), HALVES)
    bits = builder.bitcast(value, WORDS)
    odd = builder.and_(builder.lshr(bits, llvm_words(16)), llvm_words(1))
    rounded = builder.lshr(builder.add(builder.add(bits, llvm_words(0x7FFF)), odd), llvm_words(16))
    return builder.trunc(rounded, HALVES)


@intrinsic
def store(typingctx, array, row, column, vector):
    """Write a register into a row, from a column on; bfloat16 is rounded to nearest, ties to even."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        value = arguments[3]
        if signature.args[0].dtype == types.float32:
            builder.store(value, _place(context, builder, signature, arguments, VECTOR), align=4)
        else:
            builder.store(_bfloat16(builder, value), _place(context, builder, signature, arguments, HALVES), align=2)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, VECTOR_TYPE), codegen


@intrinsic
def splat(typingctx, number):
    """Set every lane to one number."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return llvm_splat(builder, arguments[0])

    return VECTOR_TYPE(types.float32), codegen


@intrinsic
def shift_exponent(typingctx, vector, shifted):
    """Multiply a vector by 2^n, n the integer in the low bits of another one's mantissa: see ``exp2``."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        exponent = builder.shl(builder.bitcast(arguments[1], WORDS), llvm_words(23))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], WORDS), exponent), VECTOR)

    return VECTOR_TYPE(VECTOR_TYPE, VECTOR_TYPE), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """Compute a b + c with one rounding."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        return builder.call(llvm_fma(builder), arguments)

    return VECTOR_TYPE(VECTOR_TYPE, VECTOR_TYPE, VECTOR_TYPE), codegen


@intrinsic
def clamp(typingctx, vector, limit):
    """Keep every number between -limit and limit; what is not a number stays so."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        value, high = arguments
        low = builder.fsub(ir.Constant(VECTOR, [-0.0] * LANES), high)
        value = builder.select(builder.fcmp_ordered(">", value, high), high, value)
        return builder.select(builder.fcmp_ordered("<", value, low), low, value)

    return VECTOR_TYPE(VECTOR_TYPE, VECTOR_TYPE), codegen


@intrinsic
def where_positive(typingctx, condition, vector):
    """Return a vector's numbers where a condition's are above 0 or NaN, and 0 elsewhere."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        return builder.select(builder.fcmp_unordered(">", arguments[0], zero), arguments[1], zero)

    return VECTOR_TYPE(VECTOR_TYPE, VECTOR_TYPE), codegen


def _operator(python: Callable[..., Any], emit: str) -> None:
    """Define one of Python's operators for two vectors, or a vector and a number."""

    @intrinsic
    def apply(typingctx, a, b):
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            return getattr(builder, emit)(*arguments)

        return VECTOR_TYPE(VECTOR_TYPE, VECTOR_TYPE), codegen

    @overload(python)
    def both(a, b):
        if a is VECTOR_TYPE and b is VECTOR_TYPE:
            return lambda a, b: apply(a, b)
        if a is VECTOR_TYPE and b == types.float32:
            return lambda a, b: apply(a, splat(b))
        if b is VECTOR_TYPE and a == types.float32:
            return lambda a, b: apply(splat(a), b)
        return None


for _python, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_python, _emit)
