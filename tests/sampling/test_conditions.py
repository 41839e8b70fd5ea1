"""Every engine under conditions against the teacher-forced model; conditions made ahead change nothing."""

import itertools

import numpy as np
import pytest
import torch

from wavegen.audio.frames import Features
from wavegen.audio.quantize import Quantizer
from wavegen.data.conditioning import ClipCondition
from wavegen.model.building import load_weights
from wavegen.model.layers import Condition
from wavegen.model.outputs import GaussianMixture, LogisticMixture, Truncation
from wavegen.sampling.engines import ENGINES, build_engine, conditioning_rows
from wavegen.sampling.engines.packing import rounded_weights
from wavegen.sampling.engines.torch_engines import TorchQueueEngine
from wavegen.sampling.sampler import Request, Sampler, uniforms

TOLERANCE = 1e-4
KINDS = {
    "labels": {"n_labels": 3, "label_channels": 4},
    "mel": {"frame_channels": 5},
    "learned": {"frame_channels": 5, "upsampling": 5},
    "both": {"n_labels": 3, "label_channels": 4, "frame_channels": 5, "upsampling": 2},
    "features": {"frame_channels": 2, "upsampling": 4},  # no divisor of the hop
}
HOP = 10
FEATURES = Features(16000, HOP, (3.0, -1.0), (2.0, 0.1))
every_engine = pytest.mark.parametrize("name", ENGINES)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def one_thread(two_threads):
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(conditioning_rows, "BLOCK_ROWS", 6)  # several within these clips
    monkeypatch.setattr(conditioning_rows, "ON_ONE_CORE", 1000)


def conditions_of(kind, count, n_frames=20, seed=1):
    """One for each clip, all different."""
    rng, shape = np.random.default_rng(seed), KINDS[kind]
    if kind == "features":
        frames = rng.normal(FEATURES.mean, FEATURES.scale, (count, n_frames, 2)).astype(np.float32)
        return [ClipCondition(None, each, HOP, shape["upsampling"], FEATURES.normalize) for each in frames]
    return [
        ClipCondition(
            rng.dirichlet(np.ones(3)).astype(np.float32) if "n_labels" in shape else None,
            rng.normal(-5, 4, (n_frames, 5)).astype(np.float32) if "frame_channels" in shape else None,
            HOP,
            shape.get("upsampling", 1),
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def teacher_forced(model, past, classes, conditions):
    """(B, n, classes) logits of each of these classes, which are sample 0 and the following of their clips."""
    field, n = model.receptive_field, classes.shape[1]
    heard = torch.from_numpy(np.concatenate([past[:, -field:], classes], axis=1)[:, :-1])
    rows = [condition.rows(1 - field, n) for condition in conditions]
    device = model.skip.weight.device
    return model(heard.to(device), condition=Condition.of(rows, device)).cpu().numpy()


def some(shape, seed):
    return np.random.default_rng(seed).integers(0, 16, shape)


def in_chunks(engine, classes, length):
    parts = [engine.force(classes[:, i : i + length]) for i in range(0, classes.shape[1], length)]
    return np.concatenate(parts, axis=1)


# The reference takes a clip at a time, and a long time: many clips of it are for the long tests.
MANY = pytest.param("reference", 9, marks=pytest.mark.slow)
ENGINES_AND_BATCHES = [MANY, *(pair for pair in itertools.product(ENGINES, (1, 3, 9)) if pair != MANY.values)]


@pytest.mark.parametrize(("name", "batch"), ENGINES_AND_BATCHES)
@every_kind
def test_every_engine_has_the_teacher_forced_logits(random_model, name, kind, batch):
    model = random_model(kernel_size=3, dilations=[1, 2, 3], **KINDS[kind])
    past, classes = some((batch, model.receptive_field + 4), 2), some((batch, 75), 3)
    conditions = conditions_of(kind, batch)
    expected = teacher_forced(model, past, classes, conditions)
    engine = build_engine(name, model)
    for length in (75, 7):
        engine.start(past, conditions)
        np.testing.assert_allclose(in_chunks(engine, classes, length), expected, atol=TOLERANCE)
    engine.start(past, conditions_of(kind, batch, seed=5))
    others = engine.force(classes[:, :20])
    assert np.abs(others - expected[:, :20]).max() > 0.1, "conditions count"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@every_kind
def test_lower_precision_rounds_the_weights_alone(random_model, kind, precision):
    model = random_model(residual_channels=20, gate_channels=18, **KINDS[kind])
    past, classes, conditions = some((5, model.receptive_field), 2), some((5, 60), 3), conditions_of(kind, 5)
    engine = build_engine("numba", model, precision)
    exact = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    load_weights(model, {k: v.copy() for k, v in rounded_weights(exact, precision).items()})
    engine.start(past, conditions)
    expected = teacher_forced(model, past, classes, conditions)
    np.testing.assert_allclose(
        engine.force(classes), expected, atol=20 * TOLERANCE if precision == "int8" else TOLERANCE
    )


@pytest.mark.parametrize("distribution", [LogisticMixture(16, 3), GaussianMixture(16, 1)], ids=str)
@every_engine
def test_conditions_and_mixtures_go_together(random_model, name, distribution):
    model = random_model(distribution=distribution, input_kind="scalar", **KINDS["both"])
    past, classes, conditions = some((3, model.receptive_field), 2), some((3, 60), 3), conditions_of("both", 3)
    engine = build_engine(name, model)
    engine.start(past, conditions)
    expected = teacher_forced(model, past, classes, conditions)
    np.testing.assert_allclose(engine.force(classes), expected, atol=TOLERANCE, rtol=TOLERANCE)


@every_kind
def test_engines_draw_the_same_audio(random_model, kind):
    """Chance of a false alarm: of 300 draws one lies within 1e-6 of an edge, below 1%; the seed is fixed."""
    model = random_model(**KINDS[kind])
    past, conditions = some((2, model.receptive_field), 4), conditions_of(kind, 2)
    numbers = np.stack([uniforms(5, clip, 0, 150) for clip in range(2)])
    drawn = []
    for name in ENGINES:
        engine = build_engine(name, model)
        engine.start(past, conditions)
        drawn.append(engine.generate(numbers, Truncation()))
    assert all(np.array_equal(drawn[0], other) for other in drawn[1:])


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@every_kind
def test_chunks_count_and_threads_change_no_bit(random_model, kind, precision):
    model = random_model(residual_channels=40, gate_channels=24, **KINDS[kind])
    past, classes, conditions = some((9, model.receptive_field), 6), some((9, 110), 7), conditions_of(kind, 9)
    expected = None
    for count, threads, length in [(9, 1, 110), (9, 2, 3), (4, 1, 50), (3, 2, 110), (1, 1, 1)]:
        engine = build_engine("numba", model, precision, threads)
        engine.start(past[:count], conditions[:count])
        found = in_chunks(engine, classes[:count], length)
        expected = found if expected is None else expected
        np.testing.assert_array_equal(found, expected[:count])


@every_kind
def test_the_torch_engines_chunks_and_count_change_no_bit(random_model, kind):
    model = random_model(**KINDS[kind])
    past, classes, conditions = some((9, model.receptive_field), 6), some((9, 110), 7), conditions_of(kind, 9)
    engine = build_engine("torch", model)
    engine.start(past, conditions)
    expected = engine.force(classes)
    for count, length in [(9, 13), (1, 110), (3, 1)]:
        engine.start(past[:count], conditions[:count])
        np.testing.assert_array_equal(in_chunks(engine, classes[:count], length), expected[:count])


def test_streaming_is_streaming_whatever_the_chunk(random_model):
    """Through the sampler: chunks, an endless request, and rows that are asked for when they are needed."""
    asked = []

    class Frames:
        def __init__(self, frames):
            self.frames = frames

        def __len__(self):
            return len(self.frames)

        def __getitem__(self, part):
            asked.append(part.stop)
            return self.frames[part]

    model = random_model(**KINDS["both"])
    (plain,) = conditions_of("both", 1, n_frames=300)
    lazy = ClipCondition(plain.label, Frames(plain.frames), HOP, 2)
    sampler = Sampler(build_engine("numba", model), Quantizer("mu_law", 16))
    request = Request(900, count=2, conditions=[plain, plain])
    expected = np.concatenate(list(sampler.stream_classes(request)), axis=1)
    for chunk in (1, 37, 60, 10_000):
        found = np.concatenate(list(sampler.stream_classes(request, chunk)), axis=1)
        np.testing.assert_array_equal(found, expected)
    endless = sampler.stream_classes(Request(None, count=2, conditions=[lazy, lazy]), chunk=50)
    begun = np.concatenate([next(endless) for _ in range(6)], axis=1)
    np.testing.assert_array_equal(begun, expected[:, :300])
    assert max(asked) <= 300 // HOP + 12, "no frame long before its time"


def test_clips_of_one_condition_share_its_rows(random_model):
    model = random_model(**KINDS["both"])
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    a, b = conditions_of("both", 2)
    rows = conditioning_rows.PrecomputedRows(weights, [a, b, a, a])
    assert rows.table_of.tolist() == [0, 1, 0, 0]
    assert [piece.table.shape[0] for piece in rows.pieces(0, 200)] == [2] * 7
    engine = build_engine("numba", model)
    past, classes = np.repeat(some((1, model.receptive_field), 8), 4, axis=0), np.repeat(some((1, 90), 9), 4, axis=0)
    engine.start(past, [a, b, a, a])
    found = engine.force(classes)
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


@every_kind
def test_a_start_begins_at_the_first_frame_again(random_model, kind):
    model = random_model(**KINDS[kind])
    past, classes, conditions = some((2, model.receptive_field), 1), some((2, 75), 2), conditions_of(kind, 2)
    for name in ENGINES:
        engine = build_engine(name, model)
        engine.start(past, conditions)
        once = engine.force(classes)
        engine.start(past, conditions)
        np.testing.assert_array_equal(engine.force(classes), once)


def test_the_fused_engine_refuses_a_missing_condition(random_model):
    engine = build_engine("numba", random_model(**KINDS["labels"]))
    with pytest.raises(ValueError, match="expected conditions for a conditioned network, and none for another"):
        engine.start(some((1, engine.receptive_field), 1))


def test_a_step_leaves_what_is_added_where_it_is(random_model):
    """A CUDA graph holds addresses: buffers may not move."""
    engine = build_engine("torch", random_model(**KINDS["both"]))
    engine.start(some((2, engine.receptive_field), 1), conditions_of("both", 2))
    (group,) = engine.groups
    before = [tensor.data_ptr() for tensor in group.step.added]
    engine.generate(np.full((2, 60), 0.4), Truncation())
    assert [tensor.data_ptr() for tensor in group.step.added] == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_kind
def test_the_queue_engine_on_cuda_has_the_cpus_logits(random_model, kind):
    model = random_model(dilations=[1, 2, 4, 8], **KINDS[kind])
    past, classes, conditions = some((33, model.receptive_field), 2), some((33, 120), 3), conditions_of(kind, 33)
    expected = teacher_forced(model, past, classes, conditions)
    numbers = np.stack([uniforms(7, clip, 0, 150) for clip in range(33)])
    drawn = []
    for capture in (True, False):
        engine = TorchQueueEngine(model.to("cuda"), capture=capture)
        engine.start(past, conditions)
        np.testing.assert_allclose(engine.force(classes), expected, atol=1e-3)
        engine.start(past, conditions)
        drawn.append(np.concatenate([engine.generate(part, Truncation()) for part in np.split(numbers, 3, axis=1)], 1))
    assert np.array_equal(*drawn)
