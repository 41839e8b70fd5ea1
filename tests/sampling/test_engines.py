"""Every engine against the model's teacher-forced logits, and against each other."""

import numpy as np
import pytest
import torch

from mixtures import MIXTURES, engines_of
from wavegen.errors import ModelError, UsageError
from wavegen.model.outputs import MEAN_UNIT, LogisticMixture, Truncation
from wavegen.sampling.engines import ENGINES, build_engine
from wavegen.sampling.engines.torch_engines import TorchQueueEngine
from wavegen.sampling.sampler import uniforms

TOLERANCE = 1e-4  # of logits, in float32
SILENCE = 8

every_engine = pytest.mark.parametrize("name", ENGINES)


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    """As the sampler runs every engine."""
    torch.set_num_threads(1)


def random_classes(shape, seed):
    return np.random.default_rng(seed).integers(0, 16, shape)


def past_of(prime, field):
    """(B, T) primes behind silence, a receptive field of past or more."""
    silence = np.full((len(prime), max(0, field - prime.shape[1])), SILENCE)
    return np.concatenate([silence, prime], axis=1)


@torch.inference_mode()
def teacher_forced(model, past, classes):
    """(B, n, classes) logits of each of these classes, from one convolution over the whole clip."""
    heard = np.concatenate([past, classes], axis=1)[:, -classes.shape[1] - model.receptive_field : -1]
    return model(torch.from_numpy(heard)).numpy()


def in_chunks(total, lengths):
    """Slices of these lengths, over and over, that cover ``total``."""
    begin, turn = 0, 0
    while begin < total:
        yield slice(begin, min(begin + lengths[turn % len(lengths)], total))
        begin, turn = begin + lengths[turn % len(lengths)], turn + 1


def assert_same_logits(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE
    second, first = np.sort(expected, axis=-1)[..., -2:].transpose(2, 0, 1)
    clear = first - second > 1e-3
    assert clear.mean() > 0.9, "a test of argmax needs clear ones"
    assert np.array_equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


def assert_same_audio(model, past, numbers, truncation, a, b):
    """Two clips are equal until a draw whose u lies within the tolerance of a class boundary.

    Args:
        model: that drew them.
        past: (T,) what both clips have heard.
        numbers: (n,) their uniform numbers.
        truncation: temperature alone; top-k and top-p have edges of their own.
        a: (n,) one clip.
        b: (n,) the other.
    """
    differ = np.flatnonzero(a != b)
    if len(differ) == 0:
        return
    t = differ[0]
    logits = teacher_forced(model, past[None], a[None, : t + 1])[0, -1].astype(np.float64)
    scaled = logits / truncation.temperature
    p = np.exp(scaled - scaled.max())
    boundaries = np.cumsum(p / p.sum())
    # a change of every logit by e moves the cumulative probability P by at most P (1 - P) 2e <= e / 2
    assert np.abs(boundaries - numbers[t]).min() <= 0.5 * TOLERANCE / truncation.temperature, f"sample {t}"


def draw(name, model, past, numbers, truncation):
    engine = build_engine(name, model)
    engine.start(past)
    return engine.generate(numbers, truncation)


# --- forced ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 8, 9, 17])
@pytest.mark.parametrize("dilations", [[1, 2, 4, 8], [1, 3, 5], [7, 1, 2, 1], [6]], ids=str)
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
@pytest.mark.parametrize("name", ["numba", "torch"])
def test_the_queue_engines_have_the_teacher_forced_logits(random_model, name, kernel_size, dilations, batch):
    model = random_model(kernel_size=kernel_size, dilations=dilations)
    field = model.receptive_field
    engine = build_engine(name, model)
    assert engine.receptive_field == field
    for n_prime, lengths in [(0, [25]), (3, [1]), (field, [2, 11]), (field + 9, [7])]:
        past = past_of(random_classes((batch, n_prime), seed=1), field)
        classes = random_classes((batch, 25), seed=2)
        engine.start(past)
        found = np.concatenate([engine.force(classes[:, part]) for part in in_chunks(25, lengths)], axis=1)
        assert_same_logits(found, teacher_forced(model, past, classes))


@pytest.mark.parametrize("input_kind", ["embedding", "one_hot", "scalar"])
@every_engine
def test_every_engine_has_the_teacher_forced_logits(random_model, name, input_kind):
    model = random_model(kernel_size=3, dilations=[1, 2, 3], input_kind=input_kind)
    past = past_of(random_classes((3, 5), seed=3), model.receptive_field)
    classes = random_classes((3, 40), seed=4)
    engine = build_engine(name, model)
    engine.start(past)
    found = np.concatenate([engine.force(classes[:, part]) for part in in_chunks(40, [1, 16])], axis=1)
    assert found.dtype == np.float32
    assert_same_logits(found, teacher_forced(model, past, classes))


DISTRIBUTIONS = [kind(*sizes) for kind in MIXTURES for sizes in ((16, 1), (16, 7), (65536, 10))]


@pytest.mark.parametrize(
    ("distribution", "name"), [(each, name) for each in DISTRIBUTIONS for name in engines_of(each.kind)], ids=str
)
def test_every_engine_has_a_mixtures_teacher_forced_parameters(random_model, name, distribution):
    classes = distribution.classes
    model = random_model(dilations=[1, 3, 2], classes=classes, distribution=distribution, input_kind="scalar")
    rng = np.random.default_rng(18)
    past, following = (rng.integers(0, classes, (3, n)) for n in (model.receptive_field, 30))
    engine = build_engine(name, model)
    engine.start(past)
    found = np.concatenate([engine.force(following[:, part]) for part in in_chunks(30, [1, 11])], axis=1)
    assert found.shape == (3, 30, distribution.n_parameters)
    units = np.repeat([1.0, MEAN_UNIT, 1.0], distribution.components)
    assert np.abs((found - teacher_forced(model, past, following)) * units).max() <= TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7, 0.0])
@pytest.mark.parametrize("distribution", [each for each in DISTRIBUTIONS if each.classes == 16], ids=str)
def test_engines_draw_the_same_audio_from_a_mixture(random_model, distribution, temperature):
    """Chance of a false alarm: engines differ by 1e-6, and 300 draws have an edge that close with < 1e-2; the seed
    is fixed."""
    model = random_model(distribution=distribution, input_kind="scalar")
    past = past_of(random_classes((2, 30), seed=19), model.receptive_field)
    numbers = np.stack([uniforms(9, clip, 0, 150) for clip in range(2)])
    truncation = Truncation(temperature=temperature)
    reference, *others = (draw(name, model, past, numbers, truncation) for name in engines_of(distribution.kind))
    assert len(np.unique(reference)) > 3
    for drawn in others:
        assert np.array_equal(drawn, reference)


@every_engine
def test_a_mixtures_classes_are_not_ranked_by_any_engine(random_model, name):
    model = random_model(distribution=LogisticMixture(16, 3))
    past = past_of(random_classes((1, 0), seed=20), model.receptive_field)
    with pytest.raises(UsageError, match=r"^top_k: not with this model, whose output \(mixture of"):
        draw(name, model, past, np.full((1, 5), 0.5), Truncation(top_k=3))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("layer", ["skip", "head"])
def test_a_hidden_number_that_is_not_finite_is_an_error_in_every_precision(random_model, layer, precision):
    model = random_model(activation="relu")
    with torch.no_grad():
        model.get_submodule(layer).bias[0] = np.inf
    past = past_of(random_classes((2, 0), seed=21), model.receptive_field)
    engine = build_engine("numba", model, precision)
    engine.start(past)
    with pytest.raises(ModelError, match="outputs are not finite"):
        engine.generate(np.full((2, 5), 0.5), Truncation())


@every_engine
def test_a_mixture_that_is_not_finite_is_an_error(random_model, name):
    model = random_model(distribution=LogisticMixture(16, 3))
    with torch.no_grad():
        model.output.bias[-1] = np.nan
    past = past_of(random_classes((2, 0), seed=21), model.receptive_field)
    with pytest.raises(ModelError, match="outputs are not finite"):
        draw(name, model, past, np.full((2, 5), 0.5), Truncation())


@every_engine
def test_forced_and_generated_samples_follow_each_other(random_model, name):
    model = random_model()
    engine = build_engine(name, model)
    past = past_of(random_classes((2, 20), seed=5), model.receptive_field)
    engine.start(past)
    forced = random_classes((2, 10), seed=6)
    engine.force(forced)
    drawn = engine.generate(np.full((2, 10), 0.5), Truncation())
    more = random_classes((2, 5), seed=7)
    found = engine.force(more)
    heard = np.concatenate([past, forced, drawn], axis=1)
    assert_same_logits(found, teacher_forced(model, heard, more))


@every_engine
def test_a_start_forgets_what_was_before(random_model, name):
    model = random_model()
    past = past_of(random_classes((2, 20), seed=8), model.receptive_field)
    numbers = np.stack([uniforms(1, clip, 0, 30) for clip in range(2)])
    engine = build_engine(name, model)
    engine.start(random_classes((5, 30), seed=9))
    engine.generate(np.full((5, 3), 0.3), Truncation())
    engine.start(past)
    again = engine.generate(numbers, Truncation())
    assert np.array_equal(again, draw(name, model, past, numbers, Truncation()))


# --- drawn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize(("kernel_size", "dilations"), [(2, [1, 2, 4, 8]), (3, [1, 3, 2])])
def test_engines_draw_the_same_audio(random_model, kernel_size, dilations, temperature):
    model = random_model(kernel_size=kernel_size, dilations=dilations)
    truncation = Truncation(temperature=temperature)
    past = past_of(random_classes((3, 30), seed=10), model.receptive_field)
    numbers = np.stack([uniforms(5, clip, 0, 150) for clip in range(3)])
    reference, *others = (draw(name, model, past, numbers, truncation) for name in ("reference", "torch", "numba"))
    for drawn in others:
        assert drawn.dtype == np.int64
        for clip in range(3):
            assert_same_audio(model, past[clip], numbers[clip], truncation, reference[clip], drawn[clip])
    assert len(np.unique(reference)) > 8, "a test of equality needs varied audio"


@pytest.mark.parametrize(
    "truncation",
    [Truncation(temperature=0), Truncation(top_k=4), Truncation(top_p=0.8), Truncation(0.8, top_k=9, top_p=0.9)],
    ids=str,
)
def test_engines_draw_the_same_audio_when_truncated(random_model, truncation):
    """Chance of a false alarm: engines differ by 1e-6, and 240 draws have an edge that close with < 1e-2; the seed
    is fixed."""
    model = random_model()
    past = past_of(random_classes((2, 30), seed=11), model.receptive_field)
    numbers = np.stack([uniforms(6, clip, 0, 120) for clip in range(2)])
    reference, queue, fused = (draw(name, model, past, numbers, truncation) for name in ("reference", "torch", "numba"))
    assert np.array_equal(reference, queue)
    assert np.array_equal(reference, fused)


def test_draws_on_the_very_edge_are_the_same_audio_too(random_model):
    """Every u is a boundary of the reference's classes, where the engines' rounding decides."""
    model, truncation = random_model(), Truncation()
    past = past_of(random_classes((1, 30), seed=12), model.receptive_field)
    reference = build_engine("reference", model)
    reference.start(past)
    numbers, drawn = np.empty(40), np.empty((1, 0), dtype=np.int64)
    for t in range(40):
        next_sample = np.append(drawn, [[0]], axis=1)
        p = np.exp(teacher_forced(model, past, next_sample)[0, -1].astype(np.float64))
        numbers[t] = np.cumsum(p / p.sum())[t % 15]
        drawn = np.append(drawn, reference.generate(numbers[None, t : t + 1], truncation), axis=1)
    for name in ("torch", "numba"):
        other = draw(name, model, past, numbers[None], truncation)
        assert_same_audio(model, past[0], numbers, truncation, drawn[0], other[0])


def test_a_slightly_wrong_engine_is_not_the_same_audio(random_model):
    """The check itself: with one logit off by 0.05 the audio differs, and no boundary is near enough to excuse it.

    Chance of a false alarm: a u within 5e-5 of one of 16 boundaries, 0.2%; the seed is fixed.
    """
    right, wrong = random_model(), random_model()
    with torch.no_grad():
        wrong.output.bias[6] += 0.05
    past = past_of(random_classes((1, 30), seed=12), right.receptive_field)
    numbers = uniforms(8, 0, 0, 400)
    a, b = (draw("torch", model, past, numbers[None], Truncation())[0] for model in (right, wrong))
    with pytest.raises(AssertionError, match="sample"):
        assert_same_audio(right, past[0], numbers, Truncation(), a, b)


@every_engine
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "truncation", [Truncation(), Truncation(temperature=0), Truncation(top_k=3, top_p=0.5)], ids=str
)
def test_outputs_that_are_not_finite_are_an_error(random_model, name, value, truncation):
    model = random_model()
    with torch.no_grad():
        model.output.bias[3] = value
    past = past_of(random_classes((2, 0), seed=13), model.receptive_field)
    with pytest.raises(ModelError, match="outputs are not finite: its weights are damaged, or its training diverged"):
        draw(name, model, past, np.full((2, 5), 0.5), truncation)


# --- choosing ----------------------------------------------------------------------------------------------------


def test_engines_by_name(random_model):
    model = random_model()
    kinds = {name: type(build_engine(name, model)) for name in ENGINES}
    assert len(set(kinds.values())) == len(ENGINES)
    assert type(build_engine("auto", model)) in kinds.values()
    with pytest.raises(
        UsageError, match=r"^engine: expected one of auto, numba, torch, reference, triton, found 'magic'$"
    ):
        build_engine("magic", model)


def test_a_step_leaves_its_buffers_where_they_are(random_model):
    """A CUDA graph holds addresses: no buffer that lives from step to step may move."""
    engine = build_engine("torch", random_model(kernel_size=3))
    engine.start(random_classes((2, engine.receptive_field), seed=16))
    (group,) = engine.groups

    def addresses():
        state = (*group.step.buffers, group.step.z, group.last, group.uniform, group.finite)
        return [tensor.data_ptr() for tensor in state]

    before = addresses()
    engine.generate(np.full((2, 20), 0.4), Truncation(0.9, top_k=5, top_p=0.9))
    assert addresses() == before
    assert int(group.step.steps) == 20


# --- on a GPU ----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch", [1, 9, 33])
def test_the_queue_engine_on_cuda_has_the_cpus_logits_and_no_clip_sees_its_neighbours(random_model, batch):
    model = random_model(
        kernel_size=3,
        dilations=[1, 2, 4, 8],
        residual_channels=32,
        gate_channels=32,
        skip_channels=128,
        head_channels=128,
    )
    past = past_of(random_classes((batch, 40), seed=14), model.receptive_field)
    classes = random_classes((batch, 60), seed=15)
    numbers = np.stack([uniforms(7, clip, 0, 200) for clip in range(batch)])
    expected = teacher_forced(model, past, classes)

    engine = build_engine("torch", model.to("cuda"))
    assert engine.capture
    engine.start(past)
    found = engine.force(classes)
    assert_same_logits(found, expected)
    engine.start(past[:1])
    assert np.array_equal(engine.force(classes[:1]), found[:1])

    drawn = draw("torch", model, past, numbers, Truncation(top_k=12, top_p=0.95))
    alone = draw("torch", model, past[:1], numbers[:1], Truncation(top_k=12, top_p=0.95))
    assert np.array_equal(alone, drawn[:1])
    uncaptured = TorchQueueEngine(model, capture=False)
    uncaptured.start(past)
    assert np.array_equal(uncaptured.generate(numbers, Truncation(top_k=12, top_p=0.95)), drawn)
