"""Dropout is a function of (seed, item), means what the paper says, and is in training alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.data.windows import Batch
from wavegen.errors import ConfigError
from wavegen.model.building import build_model
from wavegen.model.layers import activate
from wavegen.training.backends import Dropout, FusedBackend, TorchBackend, build_backend
from wavegen.training.compute import resolve_compute

CPU = torch.device("cpu")
N_STEPS = 50


def masks(model, items, seed=3, rate=0.25, n_steps=N_STEPS):
    """(steps, items, gate_channels) of each block."""
    dropped = Dropout(seed, rate).of_items(model, items, n_steps, CPU)
    return [mask.unflatten(0, (-1, len(items))) for mask in dropped.kept]


def test_masks_depend_on_seed_and_item_alone(random_model):
    model = random_model()
    together, *alone = (masks(model, items) for items in ([7, 8, 9], [7], [8], [9]))
    for block, mask in enumerate(together):
        assert torch.equal(mask, torch.cat([one[block] for one in alone], dim=1))
        assert not torch.equal(mask[:, 0], mask[:, 1])
        assert not torch.equal(mask[:, 0], masks(model, [7], seed=4)[block][:, 0])
    shortest = len(together[2])
    assert not torch.equal(together[0][:shortest, 0], together[2][:, 0])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_stays_is_scaled_to_the_same_mean(random_model, rate):
    """A false alarm in 1 of 30,000: four standard deviations; the seed is fixed."""
    dropped = Dropout(0, rate).of_items(random_model(), range(20), 1000, CPU)
    kept = torch.cat([mask.flatten() for mask in dropped.kept]).double()
    assert float(kept.mean()) == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / len(kept)) ** 0.5)
    assert dropped.scale == pytest.approx(1 / (1 - rate), rel=1e-4)


def batch_of(model, first=20, size=5, n_targets=30):
    rng = np.random.default_rng(0)
    inputs = rng.integers(model.classes, size=(size, model.receptive_field - 1 + n_targets))
    targets = rng.integers(model.classes, size=(size, n_targets))
    return Batch(inputs, targets, rng.random(targets.shape) < 0.9, None, first)


def expected(model, batch, dropout, n_targets):
    """Window by window, block by block: z times its mask, scaled, into the skip and the residual."""
    nats = torch.zeros((), dtype=torch.float64)
    skips = model.skip.weight.chunk(len(model.blocks), dim=1)
    for row, inputs in enumerate(batch.inputs):
        dropped = dropout.of_items(model, [batch.first + row], len(inputs), CPU)
        h, total = model.input(torch.from_numpy(inputs)), model.skip.bias
        for block, mask, skip in zip(model.blocks, dropped.kept, skips, strict=True):
            z = activate(block.conv(h, 1), "gated")
            z = torch.where(mask, z * dropped.scale, 0.0)
            total = total + (z @ skip.T)[-batch.targets.shape[1] :]
            h = h[len(h) - len(z) :] + (0 if block.residual is None else block.residual(z))
        losses = model.distribution.loss(model.predict(total), torch.from_numpy(batch.targets[row]))
        nats = nats + losses[torch.from_numpy(batch.is_real[row])].sum()
    loss = nats / n_targets
    return float(loss.detach()), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_loss_and_gradients_are_those_of_masked_outputs_however_sliced(random_model, slices, recompute):
    model, dropout = random_model(dtype=torch.float64), Dropout(1, 0.4)
    batch = batch_of(model)
    nats, gradients = TorchBackend(model, "float32", slices, recompute, dropout=dropout).gradients(batch, 100)
    exact_nats, exact = expected(model, batch, dropout, 100)
    assert nats == pytest.approx(exact_nats, rel=1e-12)
    torch.testing.assert_close(gradients, exact, rtol=1e-9, atol=1e-12)
    other, _ = TorchBackend(model, "float32", slices, recompute, dropout=dropout).gradients(
        replace(batch, first=batch.first + 1), 100
    )
    assert abs(other - nats) > 1e-6, "other items, other masks"


def dropping(*overrides):
    return load_config("small", ["model.dropout=0.1", *overrides])


def test_auto_takes_the_torch_backend_and_fused_is_refused():
    config = dropping()
    compute = resolve_compute(config, CPU)
    assert compute.backend == "torch"
    backend = build_backend(config, compute, build_model(config))
    assert isinstance(backend, TorchBackend)
    assert backend.dropout == Dropout(config.training.seed, 0.1)
    problem = r"training\.backend: expected auto, torch or compile with model\.dropout 0\.1, found 'fused'"
    with pytest.raises(ConfigError, match=problem):
        dropping("training.backend=fused")
    plain = load_config("small")
    assert isinstance(build_backend(plain, resolve_compute(plain, CPU), build_model(plain)), FusedBackend)
