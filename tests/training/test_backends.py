"""Every backend computes the same loss and gradients, however the batch is sliced."""

import itertools
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._inductor.config as inductor

from mixtures import MIXTURES
from wavegen.config import load_config
from wavegen.data.conditioning import ConditionTable
from wavegen.data.windows import Batch
from wavegen.device import torch_threads
from wavegen.errors import TrainingError
from wavegen.model.layers import Condition
from wavegen.model.outputs import LogisticMixture
from wavegen.training.backends import FusedBackend, RecurrentBackend, TorchBackend, build_backend, slices_of
from wavegen.training.compute import resolve_compute


@pytest.fixture
def batch(random_model):
    model, rng = random_model(), np.random.default_rng(0)
    inputs = rng.integers(model.classes, size=(5, model.receptive_field - 1 + 60))
    targets = rng.integers(model.classes, size=(5, 60))
    return Batch(inputs, targets, rng.random(targets.shape) < 0.9)


def conditioned(batch, steps):
    """The batch with labels and frames, a table of seven rows for each window."""
    rng, size = np.random.default_rng(1), len(batch.inputs)
    labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=(size, 7))]
    frames = rng.standard_normal((size, 7, 4)).astype(np.float32)
    rows = ConditionTable(labels, frames, rng.integers(14, size=(size, steps)))
    return replace(batch, condition=rows)


def expected(model, batch, n_targets):
    condition = slices_of(batch, 1)[0][3]
    if condition is not None:
        wide = model.skip.weight.dtype
        condition = Condition(condition.labels.to(wide), condition.frames.to(wide), condition.row_of)
    inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
    losses = model.distribution.loss(model(inputs, condition=condition), targets)
    loss = losses[torch.from_numpy(batch.is_real)].sum() / n_targets
    return float(loss.detach()), list(torch.autograd.grad(loss, list(model.parameters())))


def build(kind, model, slices, recompute=False, threads=2):
    if kind == "fused":
        return FusedBackend(model, "float32", slices, recompute, threads)
    return TorchBackend(model, "float32", slices, recompute)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("kind", ["fused", "torch"])
def test_loss_and_gradients_are_those_of_the_whole_batch(random_model, batch, kind, slices, recompute):
    model = random_model()
    n_targets = int(batch.is_real.sum())
    nats, gradients = build(kind, model, slices, recompute).gradients(batch, n_targets)
    exact_nats, exact = expected(random_model(dtype=torch.float64), batch, n_targets)
    assert nats == pytest.approx(exact_nats, rel=1e-5)
    for mine, theirs in zip(gradients, exact, strict=True):
        assert mine.shape == theirs.shape
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("distribution", [kind(16, 3) for kind in MIXTURES], ids=str)
@pytest.mark.parametrize("kind", ["fused", "torch"])
def test_a_mixtures_loss_and_gradients_are_those_of_the_whole_batch(random_model, batch, kind, distribution):
    model = random_model(distribution=distribution)
    n_targets = int(batch.is_real.sum())
    nats, gradients = build(kind, model, 2).gradients(batch, n_targets)
    exact_nats, exact = expected(random_model(distribution=distribution, dtype=torch.float64), batch, n_targets)
    assert nats == pytest.approx(exact_nats, rel=1e-5)
    for mine, theirs in zip(gradients, exact, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("kind", [FusedBackend, TorchBackend])
def test_a_mixtures_loss_is_float32_with_bfloat16_products(random_model, batch, kind, monkeypatch):
    model, dtypes = random_model(distribution=LogisticMixture(16, 3)), []

    def loss(self, parameters, targets):
        nats = original(self, parameters, targets)
        dtypes.append(nats.dtype)
        return nats

    original = LogisticMixture.loss
    monkeypatch.setattr(LogisticMixture, "loss", loss)
    more = (1,) if kind is FusedBackend else ()
    kind(model, "bfloat16", 2, False, *more).gradients(batch, 300)
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 5])
@pytest.mark.parametrize("kind", ["fused", "torch"])
def test_conditions_have_gradients_too(random_model, batch, kind, slices, recompute):
    shape = {"n_labels": 3, "label_channels": 5, "frame_channels": 4, "upsampling": 2}
    model, exact_model = random_model(**shape), random_model(**shape, dtype=torch.float64)
    batch = conditioned(batch, batch.inputs.shape[1])
    nats, gradients = build(kind, model, slices, recompute).gradients(batch, 250)
    exact_nats, exact = expected(exact_model, batch, 250)
    assert nats == pytest.approx(exact_nats, rel=1e-5)
    for mine, theirs in zip(gradients, exact, strict=True):
        assert float(theirs.norm()) > 0
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_change_no_bit_of_conditions(random_model, batch, precision):
    model = random_model(n_labels=3, label_channels=5, frame_channels=4, upsampling=2)
    batch = conditioned(batch, batch.inputs.shape[1])
    results = [FusedBackend(model, precision, 4, False, threads).gradients(batch, 300) for threads in (1, 2, 4)]
    for nats, gradients in results[1:]:
        assert nats == results[0][0]
        assert all(torch.equal(mine, first) for mine, first in zip(gradients, results[0][1], strict=True))


def test_the_head_in_stretches_is_the_head(random_model, batch, monkeypatch):
    model = random_model()
    whole = build("fused", model, 1).gradients(batch, 100)
    monkeypatch.setattr("wavegen.training.backends.HEAD_ROWS", 64)
    parts = build("fused", model, 1).gradients(batch, 100)
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    for mine, theirs in zip(parts[1], whole[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_change_no_bit(random_model, batch, precision):
    model = random_model()
    results = [FusedBackend(model, precision, 4, False, threads).gradients(batch, 300) for threads in (1, 2, 3, 4, 7)]
    for nats, gradients in results[1:]:
        assert nats == results[0][0]
        assert all(torch.equal(mine, first) for mine, first in zip(gradients, results[0][1], strict=True))


@pytest.mark.parametrize("kind", ["fused", "torch"])
def test_a_slice_without_a_real_target_adds_nothing(random_model, batch, kind):
    model = random_model()
    silent = Batch(batch.inputs[:2], batch.targets[:2], batch.is_real[:2] & np.array([[True], [False]]))
    nats, gradients = build(kind, model, 2).gradients(silent, int(silent.is_real.sum()))
    alone = Batch(silent.inputs[:1], silent.targets[:1], silent.is_real[:1])
    expected_nats, expected_gradients = build(kind, model, 1).gradients(alone, int(alone.is_real.sum()))
    assert nats == pytest.approx(float(expected_nats), rel=1e-6)
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


def test_bfloat16_stays_near_float32(random_model, batch):
    model = random_model(residual_channels=32, gate_channels=32, skip_channels=64, head_channels=64)
    exact = expected(model, batch, 300)[1]
    rough = FusedBackend(model, "bfloat16", 2, False, 2).gradients(batch, 300)[1]
    for mine, theirs in zip(rough, exact, strict=True):
        assert mine.dtype == torch.float32
        assert float((mine - theirs).norm() / theirs.norm()) < 0.1


def test_an_error_in_one_worker_is_not_lost_and_leaves_nobody_computing(random_model, batch, monkeypatch):
    backend = build("fused", random_model(), 5)
    whole, calls, running = backend.of_slice, itertools.count(), []

    def first_breaks(*args):
        if next(calls) == 0:
            raise MemoryError
        running.append(1)
        try:
            time.sleep(0.05)
            return whole(*args)
        finally:
            running.pop()

    monkeypatch.setattr(backend, "of_slice", first_breaks)
    threads = torch.get_num_threads()
    with pytest.raises(MemoryError):
        backend.gradients(batch, 300)
    assert not running
    assert torch.get_num_threads() == threads
    monkeypatch.undo()
    assert backend.gradients(batch, 300)[0] == build("fused", random_model(), 5).gradients(batch, 300)[0]


def test_one_thread_is_one_thread(random_model):
    """Also inside the matrix library, which by default takes all cores in every thread."""
    model, rng = random_model(residual_channels=128, gate_channels=128), np.random.default_rng(0)
    inputs = rng.integers(model.classes, size=(1, model.receptive_field - 1 + 8000))
    batch = Batch(inputs, inputs[:, -8000:], np.ones((1, 8000), dtype=np.bool_))
    backend = FusedBackend(model, "float32", 1, False, 1)
    backend.gradients(batch, 8000)

    def cores():
        began, busy = time.perf_counter(), time.process_time()
        backend.gradients(batch, 8000)
        return (time.process_time() - busy) / (time.perf_counter() - began)

    # now and then a thread of another test has something to do
    assert any(cores() < 1.2 for _ in range(9))


def test_one_window_and_many_threads(random_model, batch):
    one = Batch(batch.inputs[:1], batch.targets[:1], batch.is_real[:1])
    nats, _ = FusedBackend(random_model(), "float32", 1, False, 8).gradients(one, 50)
    assert nats == pytest.approx(expected(random_model(dtype=torch.float64), one, 50)[0], rel=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("dilations", [[1], pytest.param([1, 2, 4], marks=pytest.mark.slow)], ids=str)
def test_compiled_is_the_same(random_model, batch, dilations):
    model = random_model(dilations=dilations)
    batch = replace(batch, inputs=batch.inputs[:, -(model.receptive_field - 1 + 60) :])
    with inductor.patch(compile_threads=1):  # more are processes, which import torch
        nats, gradients = TorchBackend(model, "float32", 1, False, compiled=True).gradients(batch, 300)
    exact_nats, exact = expected(random_model(dilations=dilations, dtype=torch.float64), batch, 300)
    assert nats == pytest.approx(exact_nats, rel=1e-5)
    for mine, theirs in zip(gradients, exact, strict=True):
        assert float((mine.double() - theirs).norm() / theirs.norm()) < 1e-4


def test_what_cannot_be_compiled_says_what_to_choose(random_model, batch, monkeypatch):
    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nmore of it")

    monkeypatch.setattr(torch, "compile", lambda _: broken)
    with pytest.raises(TrainingError, match=r"cannot compile the model here \(no compiler\); choose auto"):
        TorchBackend(random_model(), "float32", 1, False, compiled=True).gradients(batch, 300)


def test_the_configuration_chooses():
    from wavegen.model.building import build_model

    cpu = torch.device("cpu")
    cases = [("small", "auto", FusedBackend), ("small", "fused", FusedBackend), ("small", "torch", TorchBackend)]
    for preset, name, kind in (*cases, ("rnn", "auto", RecurrentBackend), ("dense-skips", "auto", TorchBackend)):
        config = load_config(preset, [f"training.backend={name}", "training.precision=float32"])
        assert isinstance(build_backend(config, resolve_compute(config, cpu), build_model(config)), kind)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize(("slices", "threads"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_a_recurrent_networks_slices_side_by_side_are_the_whole_batch(kind, slices, threads):
    from wavegen.model.building import build_model

    layers = f"model.layers=[{', '.join([f'{{kind: {kind}, channels: 12}}'] * 2)}]"
    config = load_config("rnn", [layers, "model.context=20"])
    torch.manual_seed(0)
    model, rng = build_model(config), np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():  # no output layer of zeros
            parameter.normal_(std=0.3)
    inputs, targets = rng.integers(256, size=(5, 19 + 60)), rng.integers(256, size=(5, 60))
    batch = Batch(inputs, targets, rng.random(targets.shape) < 0.9)
    n_targets = int(batch.is_real.sum())
    with torch_threads(1):
        whole_nats, whole = TorchBackend(model, "float32", 1, False).gradients(batch, n_targets)
    backend = RecurrentBackend(model, "float32", slices, threads)
    nats, gradients = backend.gradients(batch, n_targets)
    assert nats == pytest.approx(float(whole_nats), rel=1e-5)
    for found, wanted in zip(gradients, whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    again = RecurrentBackend(model, "float32", slices, 1).gradients(batch, n_targets)
    assert nats == again[0]  # however many threads
    assert all(torch.equal(a, b) for a, b in zip(gradients, again[1], strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_computes_the_same(random_model, batch, dtype):
    model = random_model().cuda()
    precision = "bfloat16" if dtype == torch.bfloat16 else "float32"
    nats, gradients = TorchBackend(model, precision, 2, False).gradients(batch, 300)
    exact_nats, exact = expected(random_model(dtype=torch.float64), batch, 300)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-3
    assert nats == pytest.approx(exact_nats, rel=tolerance)
    for mine, theirs in zip(gradients, exact, strict=True):
        assert float((mine.cpu().double() - theirs).norm() / theirs.norm()) < tolerance
