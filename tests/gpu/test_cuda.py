"""Training on a GPU: the captured step against the plain one, precisions, masks; run wherever there is one."""

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.config.schema import TrainingConfig
from wavegen.data.windows import Batch
from wavegen.model.building import build_model
from wavegen.training.backends import Dropout, TorchBackend
from wavegen.training.compute import precisions_of
from wavegen.training.step import GraphStep, Step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda")
SETTINGS = TrainingConfig(steps=10, learning_rate=0.01, ema_decay=0.9)


def random_batch(model, seed, size=4, n_targets=60):
    rng = np.random.default_rng(seed)
    inputs = rng.integers(model.classes, size=(size, model.receptive_field - 1 + n_targets))
    targets = rng.integers(model.classes, size=(size, n_targets))
    return Batch(inputs, targets, rng.random(targets.shape) < 0.9)


def trained(model, kind, *, precision="float32", slices=1, compiled=False, bad_step=None):
    """Ten steps; return the results and the weights."""
    model = model.to(CUDA)
    backend = TorchBackend(model, precision, slices, False, compiled)
    said = []
    notice = (said.append,) if kind is GraphStep else ()
    step, reads = kind(model, backend, SETTINGS, *notice), []
    for i in range(10):
        reads.append(step(random_batch(model, i), 0 if i == bad_step else 200, 1.0))  # x / 0 is not finite
    assert not said
    assert kind is Step or step.graph is not None
    return [read() for read in reads], [p.detach().cpu() for net in (model, step.average) for p in net.parameters()]


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16", "float16"])
def test_a_captured_step_is_the_plain_one(random_model, precision, slices):
    plain, graph = (trained(random_model(), kind, precision=precision, slices=slices) for kind in (Step, GraphStep))
    np.testing.assert_allclose(plain[0], graph[0], rtol=1e-3 if precision == "float32" else 5e-2)
    for mine, theirs in zip(plain[1], graph[1], strict=True):
        assert float((mine - theirs).norm() / theirs.norm()) < (1e-3 if precision == "float32" else 5e-2)


def test_a_captured_step_that_is_not_finite_changes_nothing(random_model):
    results, weights = trained(random_model(), GraphStep, bad_step=7)
    assert [i for i, pair in enumerate(results) if not np.isfinite(pair).all()] == [7]
    assert all(tensor.isfinite().all() for tensor in weights)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_a_compiled_step_is_captured_too(random_model):
    plain, graph = trained(random_model(), Step), trained(random_model(), GraphStep, compiled=True)
    np.testing.assert_allclose(plain[0], graph[0], rtol=1e-2)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_layers_are_float32_under_bfloat16(kind):
    config = load_config("rnn", [f"model.layers=[{{kind: {kind}, channels: 12}}]", "model.context=20"])
    model = build_model(config).to(CUDA)
    (layer,), seen = model.stack_layers, []
    layer.cell.register_forward_hook(lambda _, given, out: seen.extend([given[0].dtype, out[0].dtype]))
    _, gradients = TorchBackend(model, "bfloat16", 1, False).gradients(random_batch(model, 0), 200)
    assert seen == [torch.float32, torch.float32]
    assert all(gradient.isfinite().all() for gradient in gradients)
    model.copy()(torch.zeros((2, 40), dtype=torch.int64, device=CUDA))  # warns if its weights are in pieces


def test_masks_depend_on_seed_and_item_alone(random_model):
    model = random_model()
    together, *alone = (Dropout(3, 0.25).of_items(model, items, 50, CUDA) for items in ([7, 8], [7], [8]))
    for block, mask in enumerate(together.kept):
        expected = torch.stack([one.kept[block] for one in alone], dim=1).flatten(0, 1)
        assert mask.is_cuda
        assert torch.equal(mask, expected)


def test_precisions_of_this_card():
    assert precisions_of(CUDA) in (("tf32", "bfloat16"), ("float32", "float16"))
