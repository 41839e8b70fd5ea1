"""Fixtures of all tests: a cache and an environment of their own, threads, seeds, and tiny random models."""

import os
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # workers share the processor; before numpy is imported

import torch
from torch import nn

from wavegen.config.schema import ModelConfig
from wavegen.model.layers import Condition
from wavegen.model.outputs import MEAN_UNIT, Mixture, Softmax
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines import EngineSource

OF_TERMINALS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
OF_JOBS = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory):
    """Use a cache of the tests' own, and an environment in which messages are the same everywhere.

    Subprocesses inherit this.
    """
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WAVEGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("TERM", "xterm-256color")
        for name in (*OF_TERMINALS, *OF_JOBS):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def same_seed():
    """Seed every test, so that its random numbers do not depend on the tests before it."""
    torch.manual_seed(0)


def some_condition(model, inputs):
    """A table of six random rows for each sequence, and an index that comes back to each of them."""
    if model.conditioning is None:
        return None
    batch, steps = inputs.shape
    n_labels, frame_channels = model.conditioning.n_labels, model.conditioning.frame_channels
    labels = torch.randn(batch, 6, n_labels).softmax(dim=-1) if n_labels else None
    frames = torch.randn(batch, 6, frame_channels) if frame_channels else None
    n_rows = 6 * (model.conditioning.upsampling if frame_channels else 1)
    return Condition(labels, frames, torch.randint(n_rows, (batch, steps)))


@pytest.fixture(scope="session")
def engine_source():
    """Describe a model for engines, as far as the choice of an engine depends on it."""

    def build(device_type="cpu", *, output="softmax", has_frames=False, **model):
        distribution = SimpleNamespace(kind=output)
        return EngineSource(ModelConfig(**model), device_type, distribution, dict, lambda _: None, has_frames)

    return build


@pytest.fixture(scope="session")
def random_model():
    """Build a small network in which no two sizes are equal, and whose predictions depend strongly on its inputs."""

    def build(
        *,
        seed=0,
        dtype=torch.float32,
        classes=16,
        distribution=None,
        dilations=(1, 2, 4),
        input_kind="embedding",
        n_labels=0,
        frame_channels=0,
        upsampling=1,
        **sizes,
    ):
        plain = {"kernel_size": 2, "residual_channels": 6, "gate_channels": 5, "skip_channels": 7, "head_channels": 9}
        chosen = {"cycles": 1, "dilation_cycle": list(dilations), "input": input_kind, **plain, **sizes}
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            distribution = distribution or Softmax(classes)
            model = WaveNet(classes, distribution, ModelConfig(**chosen), n_labels, frame_channels, upsampling)
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    nn.init.normal_(parameter, std=0.3)
                if name.startswith("conditioning."):
                    nn.init.normal_(parameter, std=0.5)
                if name.endswith("gain"):
                    parameter *= 1.3
            # every logit moves with what was heard, by 1.5 or so around a small mean: audio that tells models apart
            nn.init.normal_(model.output.weight)
            inputs = torch.randint(model.classes, (1, model.receptive_field + 300))
            logits = model(inputs, condition=some_condition(model, inputs))[0]
            model.output.weight *= 1.5 / logits.std(dim=0)[:, None]
            if model.output.bias is not None:
                model.output.bias += (model.output.bias - logits.mean(dim=0)) * 1.5 / logits.std(dim=0)
            if isinstance(model.distribution, Mixture):  # means all over the range, scales of a few bins
                n = model.distribution.components
                for parameter in (model.output.weight, model.output.bias):
                    parameter[n : 2 * n] *= 0.3 / MEAN_UNIT
                model.output.bias[2 * n :] -= 2.0
        return model.to(dtype).eval()

    return build
