"""The fused engine: its packing, its precisions, and that neither neighbours, threads nor processors change a clip."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit

from command_line import run_interpreter
from mixtures import MIXTURES
from wavegen.config import load_config
from wavegen.errors import ModelError, UsageError
from wavegen.model.building import ACTIVATIONS, build_model, check_weights, load_weights, parameter_shapes
from wavegen.model.outputs import MEAN_UNIT, Softmax, Truncation
from wavegen.sampling.engines import COMPILED_DRAWS, build_engine, choose_engine
from wavegen.sampling.engines.draws import DRAWS, LARGEST_EXPONENT, draw_class, draw_from_mixture, exp, normal_quantile
from wavegen.sampling.engines.fused_kernel import (
    GATED,
    RELU,
    TANH,
    run,
)
from wavegen.sampling.engines.numba_fused import compile_kernel
from wavegen.sampling.engines.packing import (
    LARGEST_INT8,
    pack,
    pack_product,
    padded,
    round_to_bfloat16,
    rounded_weights,
)
from wavegen.sampling.engines.simd_matmul import ROUNDED, UNIT, build_tile_product, inputs_for
from wavegen.sampling.sampler import uniforms
from wavegen.simd import DOT_PRODUCT, LANES

INT8_TOLERANCE = 2e-3  # of outputs about 1, with inputs that are rounded to 14 bits and more

# Channels beside, at and beyond the tiles' widths of one, two and four registers.
SIZES = [
    {"residual_channels": 3, "gate_channels": 5, "skip_channels": 15, "head_channels": 9},
    {"residual_channels": 16, "gate_channels": 32, "skip_channels": 64, "head_channels": 128},
    {"residual_channels": 33, "gate_channels": 17, "skip_channels": 130, "head_channels": 70},
]


def weights_of(model):
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def teacher_forced(model, past, classes):
    heard = torch.from_numpy(np.concatenate([past[:, -model.receptive_field :], classes], axis=1))
    with torch.no_grad():
        return model(heard[:, :-1]).numpy()


def some(shape, classes=16, seed=0):
    return np.random.default_rng(seed).integers(0, classes, shape)


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes.values())))
@pytest.mark.parametrize("input_kind", ["embedding", "one_hot", "scalar"])
@pytest.mark.parametrize("classes", [2, 16, 100])
def test_has_the_teacher_forced_logits_at_all_widths(random_model, sizes, input_kind, classes):
    model = random_model(kernel_size=3, dilations=[1, 3, 2], input_kind=input_kind, classes=classes, **sizes)
    past, following = some((5, model.receptive_field), classes), some((5, 30), classes, seed=1)
    engine = build_engine("numba", model)
    engine.start(past)
    np.testing.assert_allclose(engine.force(following), teacher_forced(model, past, following), atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.0, 0.0])
@pytest.mark.parametrize("classes", [16, 65536])
@pytest.mark.parametrize("kind", [each for each in MIXTURES if each.kind in DRAWS])
def test_draws_from_a_mixture_as_torch_does(kind, classes, temperature):
    """The same parameters give the same class; both compute in float64, so that no u lies on an edge between them."""
    rng, n = np.random.default_rng(2), 3000
    distribution = kind(classes, 5)
    parameters = rng.normal(0, [2] * 5 + [0.5 / MEAN_UNIT] * 5 + [3] * 5, (n, 15)).astype(np.float32)
    u = rng.random(n)
    u[:2] = 0.0, 1 - 2**-53
    expected = distribution.draw(torch.from_numpy(parameters), torch.from_numpy(u), Truncation(temperature))
    of_mixture, shares = np.array([MEAN_UNIT, *distribution.scale_limits]), np.empty(5)
    drawn = [
        draw_from_mixture(row, 0, 5, classes, of_mixture, DRAWS[distribution.kind], number, temperature, shares)
        for row, number in zip(parameters, u, strict=True)
    ]
    np.testing.assert_array_equal(drawn, expected.numpy())


@pytest.mark.parametrize("temperature", [1.0, 0.99, 0.3, 2.0, 1e-40, 1e40])
@pytest.mark.parametrize("classes", [16, 100, 256])
def test_a_temperature_divides_the_logits(classes, temperature):
    """p(c) ~ exp((l[c] - max l) / temperature), and at 1 to the last bit the exponential of the difference."""
    rng = np.random.default_rng(3)
    for scale in (1.0, 10.0, 100.0):
        logits = rng.normal(0, scale, classes).astype(np.float32)
        p, sums = np.zeros(padded(classes, LANES), np.float32), np.zeros(classes)
        drawn = draw_class(logits, 0.4, temperature, classes, 1.0, p, sums)
        differences = logits - logits.max()
        expected = np.exp(differences.astype(np.float64) / temperature)
        np.testing.assert_allclose(p[:classes], expected, rtol=0, atol=1e-6)
        assert not p[classes:].any()
        if temperature == 1.0:
            exact = [exp(each) if each > -LARGEST_EXPONENT else np.float32(0) for each in differences]
            np.testing.assert_array_equal(p[:classes], exact)
            cdf = np.cumsum(np.float64(exact))
            assert drawn == np.searchsorted(cdf, 0.4 * cdf[-1], side="right")


def test_the_kernel_and_the_packing_number_outputs_and_activations_alike():
    assert list(DRAWS) == list(COMPILED_DRAWS)
    assert len(set(DRAWS.values())) == len(DRAWS)
    assert [ACTIVATIONS[number] for number in (GATED, RELU, TANH)] == ["gated", "relu", "tanh"]


def test_the_normal_quantile_has_all_digits():
    p = np.concatenate(
        [10.0 ** np.linspace(-300, -1, 500), np.linspace(0.001, 0.999, 1000), 1 - 2.0 ** np.arange(-53, -3)]
    )
    expected = torch.special.ndtri(torch.from_numpy(p)).numpy()
    np.testing.assert_allclose([normal_quantile(x) for x in p], expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(("precision", "tolerance"), [("bfloat16", 2.0**-8), ("int8", 0.5 / 127)])
def test_lower_precision_is_the_same_network_with_rounded_weights(random_model, precision, tolerance):
    """The weights differ by their rounding; beyond that the engine computes in float32, or with inputs of 14 bits."""
    model = random_model(residual_channels=20, gate_channels=18, dilations=[1, 2, 4])
    engine = build_engine("numba", model, precision)
    exact = weights_of(model)
    rounded = rounded_weights(exact, precision)
    for name, array in rounded.items():
        if name.endswith(("bias", "input.weight")):
            np.testing.assert_array_equal(array, exact[name])
            continue
        inputs = (0, 2) if array.ndim == 3 else (1,)  # int8 has one scale for each output
        largest = np.abs(exact[name]).max(inputs, keepdims=True) if precision == "int8" else np.abs(exact[name])
        assert (np.abs(array - exact[name]) <= tolerance * largest * 1.001).all()
        assert (array != exact[name]).any()
    load_weights(model, {name: array.copy() for name, array in rounded.items()})
    past, following = some((3, model.receptive_field)), some((3, 40), seed=1)
    engine.start(past)
    atol = INT8_TOLERANCE if precision == "int8" else 1e-4
    np.testing.assert_allclose(engine.force(following), teacher_forced(model, past, following), atol=atol)


@pytest.mark.skipif(DOT_PRODUCT is None, reason="the processor does not add products of integers")
@pytest.mark.parametrize("n_inputs", [5, 64, 1000, 4096])
@pytest.mark.parametrize("registers", [1, 2, 4])
@pytest.mark.parametrize(("streams", "unit"), [(1, 2.0**-5), (4, 2.0**-5), (1, 2.0**90), (1, 2.0**-110)])
def test_products_of_integers_are_exact_up_to_the_largest(streams, unit, registers, n_inputs):
    """The sums of the largest products, all of one sign, fit 32 bits."""
    tile_product, width = build_tile_product(streams, registers), registers * LANES

    @njit
    def multiply(weights, layer, x, rounded, bias, scale, start, y):
        rows, at, step = inputs_for(weights, layer, x, 0, layer[1], rounded, UNIT + layer[1], streams)
        tile_product(weights, 0, rows, at, step, layer[1], bias, scale, start, 0, y, 0, width)

    rng = np.random.default_rng(0)
    weights = rng.integers(-LARGEST_INT8, LARGEST_INT8 + 1, (n_inputs, width))
    weights[:, 0], weights[:, 1] = LARGEST_INT8, -LARGEST_INT8
    weights[0] = LARGEST_INT8  # of every output, whose scale is then 1
    exact, _, scale, start, bits, tiles = pack_product(weights.astype(np.float32), "int8")
    np.testing.assert_array_equal(exact, weights)
    assert bits == {5: 15, 64: 15, 1000: 14, 4096: 12}[n_inputs]
    n = padded(n_inputs, ROUNDED)
    x = rng.uniform(-(2**bits), 2**bits, (streams, n)).astype(np.float32)
    x[0] = x[:, 0] = np.nextafter(np.float32(2**bits), np.float32(0))  # takes all bits
    x[:, n_inputs:] = np.nan  # what lies there is not used
    q = np.rint(x[:, :n_inputs].astype(np.float64) * (1 - 2.0**-15)).astype(np.int64)
    y = np.zeros((streams, width), np.float32)
    bias = rng.uniform(0.5, 1, width).astype(np.float32) * np.float32(unit)
    layer = np.array([0, n, width, 0, 1, n_inputs, bits])
    rounded = np.zeros(streams * (UNIT + n), np.int32)
    flat = (x * np.float32(unit)).reshape(-1)
    multiply(tiles, layer, flat, rounded, bias, scale, start, y.reshape(-1))
    sums = q @ weights
    assert np.abs(sums).max() < 2**31
    np.testing.assert_allclose(y, sums * unit / (1 - 2.0**-15) + bias, rtol=2.5e-7)


@pytest.mark.parametrize("gate_channels", [17, 18, 20])
def test_int8_inputs_are_rounded_by_their_own_largest(random_model, gate_channels):
    """A block's z ends where the next block's begins, however loud that was a sample before."""
    model = random_model(gate_channels=gate_channels, dilations=[1, 2, 4, 8], activation="relu")
    with torch.no_grad():
        model.blocks[1].conv.weight *= 300
    load_weights(model, {k: v.copy() for k, v in rounded_weights(weights_of(model), "int8").items()})
    past, following = some((3, model.receptive_field)), some((3, 40), seed=1)
    engine = build_engine("numba", model, "int8")
    engine.start(past)
    expected = teacher_forced(model, past, following)
    assert np.abs(engine.force(following) - expected).max() < 2e-3 * np.abs(expected).max()


def test_bfloat16_rounds_as_torch_does():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    values[:6] = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, -3.0e38]
    expected = torch.from_numpy(values).bfloat16().view(torch.uint16).numpy()
    np.testing.assert_array_equal(round_to_bfloat16(values), expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_a_clips_last_bit_does_not_depend_on_count_or_threads(random_model, precision):
    model = random_model(residual_channels=40, gate_channels=24, skip_channels=100, head_channels=70)
    past, following = some((17, model.receptive_field)), some((17, 25), seed=1)
    numbers = np.stack([uniforms(3, clip, 0, 60) for clip in range(17)])
    expected_logits = expected_audio = None
    for count, threads in [(17, 1), (17, 2), (17, 5), (9, 1), (5, 2), (4, 1), (3, 1), (2, 2), (1, 1)]:
        engine = build_engine("numba", model, precision, threads)
        engine.start(past[:count])
        logits = engine.force(following[:count])
        engine.start(past[:count])
        audio = engine.generate(numbers[:count], Truncation(top_k=12))
        if expected_logits is None:
            expected_logits, expected_audio = logits, audio
        np.testing.assert_array_equal(logits, expected_logits[:count])
        np.testing.assert_array_equal(audio, expected_audio[:count])


# Of lesser processors than this one, with the lanes of their registers.
PROCESSORS = [("+avx2,+fma,+avx,+sse4.2", 8), ("+sse4.2", 4)]


def run_on_processor(program, features, lanes, cache):
    """Run one of ``tests/programs``, compiled for a processor with these features alone."""
    run_interpreter(
        [sys.executable, "-W", "error", str(Path(__file__).parents[1] / "programs" / program)],
        lanes,
        NUMBA_CPU_NAME="x86-64",
        NUMBA_CPU_FEATURES=features,
        NUMBA_CACHE_DIR=str(cache),
    )


@pytest.mark.parametrize(("features", "lanes"), PROCESSORS)
def test_other_processors_compute_the_same(tmp_path, features, lanes):
    run_on_processor("compute_on_this_processor.py", features, lanes, tmp_path)


# One with wide registers that does not add products of bytes; it takes one with wide registers to run it.
BEFORE_VNNI = "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd,+avx2,+fma,+avx,+sse4.2"


@pytest.mark.slow  # compiles the whole kernel
@pytest.mark.parametrize(("features", "lanes"), [*PROCESSORS, *([(BEFORE_VNNI, 16)] if LANES == 16 else [])])
def test_other_processors_have_the_teacher_forced_logits(tmp_path, features, lanes):
    run_on_processor("sample_on_this_processor.py", features, lanes, tmp_path)


def test_this_processor_is_used_as_wide_as_it_is():
    assert LANES in (4, 8, 16)


def test_the_kernel_is_kept_on_disk():
    compile_kernel("float32", print)
    assert run.stats.cache_path
    assert list(Path(run.stats.cache_path).glob("fused_kernel.run-*.nbi"))


def test_a_long_compilation_is_announced(monkeypatch):
    from wavegen.sampling.engines import numba_fused

    monkeypatch.setattr(numba_fused, "ANNOUNCED_AFTER_SECONDS", 0.0)
    said = []
    original = numba_fused.pack

    def slowly(*arguments):
        while not said:
            pass
        return original(*arguments)

    monkeypatch.setattr(numba_fused, "pack", slowly)
    compile_kernel("float32", said.append)
    assert said == ["preparing the sampling engine for this processor, which is compiled once: ten seconds or so"]


@pytest.mark.parametrize("output", COMPILED_DRAWS)
@pytest.mark.parametrize("kind", ["embedding", "one_hot", "scalar"])
def test_shapes_without_torch_are_the_models(kind, output):
    sizes = ["model.kernel_size=3", "model.skip_channels=50"]
    config = load_config("small", [f"model.input={kind}", f"output.kind={output}", *sizes])
    shapes = {name: tuple(parameter.shape) for name, parameter in build_model(config).named_parameters()}
    assert parameter_shapes(config) == shapes


def test_weights_that_do_not_fit_never_reach_the_kernel():
    config = load_config("small", ["model.dilation_cycle=2"])
    weights = weights_of(build_model(config))
    check_weights(weights, parameter_shapes(config))
    for spoilt, text in [
        ({**weights, "skip.weight": weights["skip.weight"][:, :-1]}, r"'skip.weight': expected the shape \(128, 128\)"),
        ({**weights, "head.bias": np.full(128, np.nan, np.float32)}, "weights are not finite: 'head.bias'"),
        ({name: array for name, array in weights.items() if name != "head.bias"}, "lacks 'head.bias'"),
    ]:
        with pytest.raises(ModelError, match=text):
            check_weights(spoilt, parameter_shapes(config))


def test_saturated_gates_are_no_trouble(random_model):
    """Warnings are errors here: an overflow on the way would show."""
    model = random_model()
    with torch.no_grad():
        for block in model.blocks:
            block.conv.bias.copy_(torch.linspace(-300, 300, len(block.conv.bias)))
    past, following = some((2, model.receptive_field + 5)), some((2, 20), seed=1)
    engine = build_engine("numba", model)
    engine.start(past)
    np.testing.assert_allclose(engine.force(following), teacher_forced(model, past, following), atol=1e-4)


def test_a_large_dilation_costs_no_more_work_per_sample(random_model):
    """The bytes that one step reads do not depend on the receptive field."""
    models = [random_model(dilations=dilations) for dilations in ([1, 2, 4], [1, 2, 1 << 14])]
    sizes = [pack(weights_of(m), m.config, Softmax(16), "float32").weights.tiles.nbytes for m in models]
    assert sizes[0] == sizes[1]


def test_only_what_was_asked_for_is_used(engine_source):
    assert choose_engine("auto", engine_source("cpu")) == "numba"
    assert choose_engine("auto", engine_source("cuda")) == "torch"
    with pytest.raises(
        UsageError,
        match="engine='numba': it runs on the CPU, and the device is cuda; give device='cpu' or",
    ):
        choose_engine("numba", engine_source("cuda"))
    with pytest.raises(UsageError, match="precision='int8': the torch engine has float32 only"):
        choose_engine("torch", engine_source("cpu"), "int8")
    with pytest.raises(UsageError, match="precision: expected one of auto, float32, bfloat16, int8, found 'int4'"):
        choose_engine("auto", engine_source("cpu"), "int4")


def test_an_output_without_a_compiled_draw_is_for_the_torch_engine(engine_source):
    assert choose_engine("auto", engine_source(output="regression")) == "torch"
    with pytest.raises(UsageError, match=r"engine='numba': it has no draw for output\.kind regression"):
        choose_engine("numba", engine_source(output="regression"))
