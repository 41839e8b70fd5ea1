"""Vectors as values in compiled code: arithmetic, loads and stores, and that cached machine code is never stale."""

import importlib
import sys

import numpy as np
from numba import njit

from wavegen.simd import LANES, clamp, fma, load, splat, store, where_positive


def test_compiled_functions_are_compiled_again_when_what_they_are_built_on_changes(tmp_path, monkeypatch):
    """numba's own cache notices a change of the function's file alone."""

    def result(value):
        for name in ("below", "above"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "below.py").write_text(f"from numba import njit\n\n@njit\ndef value():\n    return {value}\n")
        importlib.invalidate_caches()
        above = importlib.import_module("above")
        return above.twice(), sum(above.twice.stats.cache_hits.values())

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two versions of a file within a second
    (tmp_path / "above.py").write_text(
        "import below\nfrom below import value\nfrom numba import njit\n"
        "from wavegen.simd import key_cache_by_sources\n\n"
        "@njit(cache=True)\ndef twice():\n    return 2 * value()\n\nkey_cache_by_sources(globals(), below)\n"
    )
    assert result(1) == (2, 0)
    assert result(1) == (2, 1)
    assert result(2) == (4, 0)


@njit
def arithmetic(a, b, out):
    x, y = load(a, 0, 0), load(b, 0, 0)
    store(out, 0, 0, x + y)
    store(out, 1, 0, x - y)
    store(out, 2, 0, x * y)
    store(out, 3, 0, x / y)
    store(out, 4, 0, fma(x, y, x))
    store(out, 5, 0, clamp(x, splat(np.float32(0.5))))
    store(out, 6, 0, np.float32(2.0) - x * np.float32(3.0))


def test_arithmetic_is_float32s():
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((1, LANES)).astype(np.float32) for _ in range(2))
    a[0, 0] = np.nan
    out = np.zeros((7, LANES), np.float32)
    arithmetic(a, b, out)
    x, y = a[0], b[0]
    expected = [x + y, x - y, x * y, x / y, (x.astype(np.float64) * y + x).astype(np.float32)]
    expected += [np.clip(x, -0.5, 0.5), np.float32(2.0) - x * np.float32(3.0)]
    np.testing.assert_array_equal(out, expected)  # a number that is none stays so, through clamp as well


@njit
def rectify(a, b, out):
    store(out, 0, 0, where_positive(load(a, 0, 0), load(b, 0, 0)))


def test_where_positive_takes_one_vector_where_the_other_is_above_zero_or_no_number():
    condition, taken, out = (np.zeros((1, LANES), np.float32) for _ in range(3))
    condition[0, :4] = [np.nan, 1e-30, -1.0, -0.0]
    taken[:] = np.arange(1, 1 + LANES)
    rectify(condition, taken, out)
    np.testing.assert_array_equal(out[0], [1.0, 2.0] + [0.0] * (LANES - 2))


@njit
def copy(source, row, column, target):
    store(target, row, column, load(source, row, column))


def test_bfloat16_is_rounded_to_nearest_as_torch_does():
    import torch

    rng = np.random.default_rng(1)
    numbers = (rng.standard_normal(5 * LANES) * 10.0 ** rng.integers(-30, 30, 5 * LANES)).astype(np.float32)
    numbers[:5] = [0.0, -0.0, np.inf, -np.inf, np.nan]
    numbers[5:9] = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF], np.uint32).view(np.float32)  # ties
    source = numbers.reshape(5, LANES)
    narrow = np.zeros((5, LANES), np.uint16)
    for row in range(5):
        copy(source, row, 0, narrow)
    expected = torch.from_numpy(source).to(torch.bfloat16)
    wide = np.zeros((5, LANES), np.float32)
    for row in range(5):
        copy(narrow, row, 0, wide)
    np.testing.assert_array_equal(wide, expected.float().numpy())


def test_rows_and_columns_are_the_arrays():
    source = np.arange(3 * 4 * LANES, dtype=np.float32).reshape(3, 4 * LANES)
    target = np.zeros_like(source)
    copy(source, 2, LANES, target)
    assert (target != 0).sum() == LANES
    np.testing.assert_array_equal(target[2, LANES : 2 * LANES], source[2, LANES : 2 * LANES])
