"""Training on a pretended GPU: nothing waits, and all is computed where it should be."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gpu.pretended import DEVICE, Recorder
from wavegen.config import load_config
from wavegen.model import stack
from wavegen.model.building import build_model
from wavegen.training.backends import Dropout, build_backend
from wavegen.training.compute import resolve_compute
from wavegen.training.step import Step
from wavegen.training.task import task_type

SMALL = ["training.batch_size=2", "training.window_targets=64", "training.accumulation=2", "training.backend=torch"]


@pytest.mark.parametrize("preset", ["small", "paper", "speakers", "clipped-residual", "vocoder"])
def test_no_gradient_waits_for_the_device_or_leaves_it(preset):
    config = load_config(
        preset, [*SMALL, "output.kind=softmax", "quantization.kind=mu_law", "quantization.classes=256"]
    )
    model = build_model(config).to(DEVICE)
    backend = build_backend(config, resolve_compute(config, torch.device("cuda")), model)
    batch = task_type(config).noise(config, model, 2, 64)
    with Recorder() as recorder:
        loss, gradients = backend.gradients(batch, 128)
    assert {tensor.device for tensor in (loss, *gradients)} == {DEVICE}
    assert [tensor.shape for tensor in gradients] == [parameter.shape for parameter in model.parameters()]
    assert recorder.waits == recorder.copies_back == []
    assert len(recorder.names) > 100
    assert ("_fft_r2c" in recorder.names) == (preset == "vocoder")  # mel frames are computed there


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_no_update_waits_for_the_device(optimizer):
    config = load_config("small", [f"training.optimizer={optimizer}"])
    with FakeTensorMode(), torch.device("cuda"):
        model = build_model(config)
        model.copy = lambda: build_model(config)  # a pretended tensor is not copied without a warning
        step = Step(model, None, config.training)
        gradients = [torch.zeros_like(parameter) for parameter in model.parameters()]
        for _ in range(2):  # the first one allocates
            with Recorder() as recorder:
                result = step.update(torch.zeros(()), gradients, 1.0)
    assert (result.device.type, result.shape) == ("cuda", (2,))
    assert recorder.waits == recorder.copies_back == []
    assert "_fused_adamw_" in recorder.names


def test_the_recorder_sees_what_waits():
    tensor = torch.ones(3, device=DEVICE)
    with Recorder() as recorder:
        float(tensor.sum())
    assert recorder.waits == ["_local_scalar_dense"]
    with FakeTensorMode(), Recorder() as recorder:
        torch.ones(3, device="cuda").cpu()
    assert recorder.copies_back == [(3,)]


def test_autocast_is_off_in_recurrent_layers_on_a_gpu(monkeypatch):
    """cuDNN's would be float16, whatever type was asked for; a CPU has its own."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    with stack._without_cudnn_autocast(torch.device("cuda")):
        assert not torch.is_autocast_enabled("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    with torch.autocast("cuda", torch.bfloat16):
        assert torch.is_autocast_enabled("cuda")
        with stack._without_cudnn_autocast(torch.device("cuda")):
            assert not torch.is_autocast_enabled("cuda")
    with torch.autocast("cpu", torch.bfloat16), stack._without_cudnn_autocast(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")


def test_masks_that_torch_draws_depend_on_seed_and_item_alone():
    shapes, cpu = [(40, 6), (30, 5)], torch.device("cpu")

    def masks(items, seed=3):
        threshold = 1 << 14  # a quarter of the levels
        return [
            mask.unflatten(0, (-1, len(items)))
            for mask in Dropout(seed, 0.25)._drawn_by_torch(shapes, items, threshold, cpu)
        ]

    together, *alone = (masks(items) for items in ([7, 8, 9], [7], [8], [9]))
    for block, mask in enumerate(together):
        assert mask.shape == (shapes[block][0], 3, shapes[block][1])
        assert torch.equal(mask, torch.cat([one[block] for one in alone], dim=1))
        assert not torch.equal(mask[:, 0], mask[:, 1])
        assert not torch.equal(mask[:, 0], masks([7], seed=4)[block][:, 0])
    kept = np.concatenate([mask.numpy().ravel() for mask in together])
    assert kept.mean() == pytest.approx(0.75, abs=4 * (0.25 * 0.75 / kept.size) ** 0.5)
