"""The triton engine against the teacher-forced logits and the other engines.

Run by ``test_triton.py`` in a process of its own: in Triton's interpreter on the CPU, or on a GPU.
"""

import os

import numpy as np
import pytest
import torch

from wavegen.data.conditioning import ClipCondition
from wavegen.errors import ModelError
from wavegen.model.layers import Condition
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines.torch_engines import TorchQueueEngine
from wavegen.sampling.engines.triton_engine import TritonEngine
from wavegen.sampling.sampler import uniforms

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") else "cuda"
TOLERANCES = {"float32": 1e-4, "float16": 2e-2}
if DEVICE == "cuda":  # the interpreter's products in bfloat16 are wrong
    TOLERANCES["bfloat16"] = 2e-1


def some(shape, seed, classes=16):
    return np.random.default_rng(seed).integers(classes, size=shape)


@torch.inference_mode()
def teacher_forced(model, past, classes, condition=None):
    heard = np.concatenate([past, classes], axis=1)[:, -classes.shape[1] - model.receptive_field : -1]
    return model(torch.from_numpy(heard).to(DEVICE), condition).cpu().numpy()


FORMS = {
    "plain": {},
    "three taps": {"kernel_size": 3, "dilations": [1, 3, 2]},
    "four taps": {"kernel_size": 4, "dilations": [2, 1]},
    "one block": {"dilations": [5]},
    "wide": {"residual_channels": 18, "gate_channels": 20, "skip_channels": 40, "head_channels": 33, "classes": 20},
    "scalar": {"input_kind": "scalar"},
    "one-hot": {"input_kind": "one_hot"},
    "without biases": {"bias": False},
}


def slow_but(values, fast):
    """Parameters, of which the interpreter runs a few in the fast tests."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.mark.parametrize("precision", slow_but(TOLERANCES, ["float32"]))
@pytest.mark.parametrize("form", slow_but(FORMS, ["three taps", "wide"]))
def test_it_has_the_teacher_forced_logits(random_model, form, precision):
    model = random_model(**FORMS[form]).to(DEVICE)
    past, classes = some((3, model.receptive_field + 2), 1), some((3, 10), 2)
    engine = TritonEngine(model, precision)
    engine.start(past)
    found = np.concatenate([engine.force(part) for part in (classes[:, :1], classes[:, 1:])], axis=1)
    expected = teacher_forced(model, past, classes)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCES[precision]


def test_it_has_the_teacher_forced_logits_of_labels(random_model):
    model = random_model(n_labels=3, label_channels=4).to(DEVICE)
    weights = np.random.default_rng(3).dirichlet(np.ones(3), size=2).astype(np.float32)
    conditions = [ClipCondition(weights[i % 2]) for i in (0, 1, 0)]
    past, classes = some((3, model.receptive_field), 1), some((3, 12), 2)
    engine = TritonEngine(model)
    engine.start(past, conditions)
    stop = past.shape[1] + classes.shape[1] - 1
    condition = Condition.of([one.rows(0, stop) for one in conditions], torch.device(DEVICE))
    condition = condition._replace(row_of=condition.row_of[:, -(model.receptive_field + classes.shape[1] - 1) :])
    assert np.abs(engine.force(classes) - teacher_forced(model, past, classes, condition)).max() <= 1e-4


TRUNCATIONS = [
    Truncation(),
    Truncation(temperature=0.6),
    Truncation(temperature=0),
    Truncation(temperature=1e-40),
    Truncation(top_k=4),
    Truncation(top_k=1),
    Truncation(top_k=60000),
    Truncation(top_p=0.8),
    Truncation(top_p=1e-6),
    Truncation(1.4, top_k=9, top_p=0.9),
]


@pytest.mark.parametrize(
    "truncation", slow_but(TRUNCATIONS, [TRUNCATIONS[0], TRUNCATIONS[2], TRUNCATIONS[-1]]), ids=str
)
def test_it_draws_the_torch_engines_audio(random_model, truncation):
    """Chance of a false alarm: engines differ by 1e-6, and 30 draws have an edge that close with < 1e-2; the seed is
    fixed."""
    model = random_model(dilations=[1, 2]).to(DEVICE)
    past = some((2, model.receptive_field), 4)
    numbers = np.stack([uniforms(6, clip, 0, 15) for clip in range(2)])
    drawn = []
    for engine in (TorchQueueEngine(model, capture=False), TritonEngine(model)):
        engine.start(past)
        drawn.append(engine.generate(numbers, truncation))
    assert np.array_equal(*drawn)
    assert drawn[0].dtype == drawn[1].dtype


def test_among_equals_the_lower_class_is_kept_first(random_model):
    model = random_model().to(DEVICE)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.zero_()
        model.output.bias[[3, 7, 11, 12]] = 2.0  # four of equal weight; the others less
    past, numbers = some((1, model.receptive_field), 5), np.linspace(0, 1, 10, endpoint=False)[None]
    for truncation, kept in (
        (Truncation(top_k=2), {3, 7}),
        (Truncation(top_k=5), {0, 3, 7, 11, 12}),
        (Truncation(top_k=4, top_p=0.5), {3, 7}),
        (Truncation(top_k=4, top_p=0.51), {3, 7, 11}),
    ):
        engine = TritonEngine(model)
        engine.start(past)
        assert set(engine.generate(numbers, truncation)[0]) == kept


@pytest.mark.parametrize("seed", [0, 7, (1 << 64) - 1])
def test_its_own_draws_are_the_projects(random_model, seed):
    model = random_model().to(DEVICE)
    past, clips = some((3, model.receptive_field), 6), [0, 5, 1 << 40]
    given, seeded = TritonEngine(model), TritonEngine(model)
    given.start(past)
    seeded.start(past)
    for first, n in ((0, 5), (5, 1), (6, 13)):
        numbers = np.stack([uniforms(seed, clip, first, first + n) for clip in clips])
        expected = given.generate(numbers, Truncation())
        assert np.array_equal(seeded.generate_seeded(seed, clips, first, n, Truncation()), expected)


def test_a_clip_is_the_same_whatever_runs_beside_it(random_model):
    model = random_model(kernel_size=3).to(DEVICE)
    past = some((18, model.receptive_field), 7)
    together, alone = TritonEngine(model), TritonEngine(model)
    together.start(past)
    every = together.generate_seeded(1, range(18), 0, 12, Truncation(top_p=0.9))
    for clip in (0, 15, 17):
        alone.start(past[clip : clip + 1])
        assert np.array_equal(alone.generate_seeded(1, [clip], 0, 12, Truncation(top_p=0.9))[0], every[clip])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, inside the interpreter
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error(random_model, value):
    model = random_model().to(DEVICE)
    with torch.no_grad():
        model.output.bias[3] = value
    engine = TritonEngine(model)
    engine.start(some((2, model.receptive_field), 8))
    with pytest.raises(ModelError, match="outputs are not finite"):
        engine.generate(np.full((2, 3), 0.5), Truncation())
