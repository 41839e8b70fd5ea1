"""A step of training: whether it counts is decided on the device, and float16's loss scale adapts."""

import math

import numpy as np
import pytest
import torch

from wavegen.config.schema import TrainingConfig
from wavegen.data.conditioning import ConditionTable
from wavegen.data.windows import Batch
from wavegen.training.backends import FIRST_LOSS_SCALE, SCALE_INTERVAL, Dropout, LossScale, TorchBackend
from wavegen.training.step import STEPS_BEFORE_CAPTURE, GraphStep, Step


def settings(**values):
    return TrainingConfig(**{"steps": 10, "ema_decay": 0.9, **values})


def make_step(random_model, **values):
    model = random_model()
    return Step(model, None, settings(**values))


def random_batch(model, seed, size=4, n_targets=30):
    rng, steps = np.random.default_rng(seed), model.receptive_field - 1 + n_targets
    condition = None
    if model.conditioning is not None:
        labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=(size, 7))]
        frames = rng.standard_normal((size, 7, 4)).astype(np.float32)
        condition = ConditionTable(labels, frames, rng.integers(7, size=(size, steps)))
    inputs, targets = rng.integers(16, size=(size, steps)), rng.integers(16, size=(size, n_targets))
    return Batch(inputs, targets, rng.random(targets.shape) < 0.9, condition, seed * size)


def state_of(step):
    """All that a step changes, copied."""
    moments = [array for kind in step.optimizer.moments() for array in kind.values()]
    networks = [p.detach().numpy().copy() for network in (step.model, step.average) for p in network.parameters()]
    return [*networks, *moments, step.updates.numpy().copy()]


def gradients_of(step, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(parameter.shape, generator=generator) for parameter in step.model.parameters()]


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "nadam"])
@pytest.mark.parametrize("loss", [1.0, math.nan])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.0])
def test_a_step_that_is_not_finite_changes_nothing(random_model, optimizer, loss, value):
    step = make_step(random_model, optimizer=optimizer)
    step.update(2.0, gradients_of(step, 0), 1.0)
    before, gradients = state_of(step), gradients_of(step, 1)
    gradients[3].view(-1)[0] = value
    found = step.update(loss, gradients, torch.tensor(0.5)).tolist()
    same = [np.array_equal(old, new) for old, new in zip(before, state_of(step), strict=True)]
    if math.isfinite(loss) and math.isfinite(value):
        assert found[0] == loss
        assert not any(same)
    else:
        assert not all(map(math.isfinite, found))
        assert all(same)
        after = step.update(1.0, gradients_of(step, 2), 0.5).tolist()  # and the next one counts
        assert all(map(math.isfinite, after))
        assert not np.array_equal(before[0], state_of(step)[0])


def test_a_skipped_first_step_leaves_the_average_to_the_next(random_model):
    step = make_step(random_model)
    step.update(math.nan, gradients_of(step, 0), 1.0)
    step.update(1.0, gradients_of(step, 1), 1.0)
    for mine, averaged in zip(step.model.parameters(), step.average.parameters(), strict=True):
        assert torch.equal(mine, averaged)  # that of one update is its weights


def test_rates_on_the_device_are_those_on_the_host(random_model):
    host, device = make_step(random_model), make_step(random_model)
    for seed in range(3):
        host.update(1.0, gradients_of(host, seed), 0.25)
        device.update(torch.tensor(1.0), gradients_of(device, seed), torch.tensor(0.25))
    for mine, theirs in zip(state_of(host), state_of(device), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-8)


def test_the_loss_scale_halves_after_an_overflow_and_doubles_after_a_while():
    scale = LossScale(torch.device("cpu"))
    gradients = [torch.full((3,), 2.0 * FIRST_LOSS_SCALE)]
    scale.unscale(gradients)
    assert gradients[0].tolist() == [2.0] * 3
    scale.unscale([torch.tensor([1.0, math.inf])])
    assert float(scale.scale) == FIRST_LOSS_SCALE / 2
    for _ in range(SCALE_INTERVAL):
        scale.unscale([torch.ones(2)])
    assert float(scale.scale) == FIRST_LOSS_SCALE


def test_float16_gradients_are_near_those_of_float32(random_model):
    """Divided by so many targets, most of them are below what float16 can hold without the scale."""
    model, rng = random_model(), np.random.default_rng(0)
    inputs, targets = rng.integers(16, size=(4, model.receptive_field + 59)), rng.integers(16, size=(4, 60))
    batch = Batch(inputs, targets, np.ones(targets.shape, np.bool_))
    nats, exact = TorchBackend(model, "float32", 2, False).gradients(batch, 24_000_000)
    backend = TorchBackend(model, "float16", 2, False)

    def largest_error():
        rough_nats, rough = backend.gradients(batch, 24_000_000)
        assert float(rough_nats) == pytest.approx(float(nats), rel=1e-2)
        assert {gradient.dtype for gradient in rough} == {torch.float32}
        return max(float((a - b).norm() / b.norm()) for a, b in zip(rough, exact, strict=True))

    assert largest_error() < 0.1
    backend.scale = None
    assert largest_error() > 0.5


@pytest.mark.parametrize("form", [{}, {"n_labels": 3, "n_mels": 4}], ids=str)
@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_a_replayed_step_reads_each_batch(random_model, monkeypatch, form, rate):
    """On a pretended graph, which calls what was captured again: with its inputs where they were, as on CUDA."""
    wide = {name.replace("n_mels", "frame_channels"): n for name, n in form.items()}

    class Graph:
        def __init__(self, owner, step):
            self.owner, self.step = owner, step

        def replay(self):
            self.owner.result = self.step()

    monkeypatch.setattr(GraphStep, "_capture", lambda owner, step: setattr(owner, "graph", Graph(owner, step)))

    def trained(kind):
        model, said = random_model(**wide), []
        dropout = Dropout(1, rate) if rate else None
        backend = TorchBackend(model, "float32", 2, False, dropout=dropout)
        notice = (said.append,) if kind is GraphStep else ()
        step = kind(model, backend, settings(learning_rate=0.01), *notice)
        results, places = [], set()
        for i in range(8):
            batch = random_batch(model, seed=i)
            results.append(step(batch, int(batch.is_real.sum()), 1.0 / (1 + i))())
            if kind is GraphStep and i > STEPS_BEFORE_CAPTURE:
                places.add(tuple(leaf.data_ptr() for leaf in step.inputs if isinstance(leaf, torch.Tensor)))
        assert kind is Step or len(places) == 1
        return results, state_of(step)

    plain, replayed = trained(Step), trained(GraphStep)
    np.testing.assert_allclose(plain[0], replayed[0], rtol=1e-5)
    assert len({loss for loss, _ in plain[0]}) == 8
    for mine, theirs in zip(plain[1], replayed[1], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
