"""Trainings of tiny models, begun and resumed as ``wavegen train`` does it."""

import numpy as np
import torch

from wavegen.runs.run_folder import RunFolder
from wavegen.training.process_group import Group
from wavegen.training.start import resume_run, start_run

ON_CPU = Group(device=torch.device("cpu"))
RATE_HZ = 4000
TINY = [
    f"audio.sample_rate_hz={RATE_HZ}",
    "model.cycles=1",
    "model.dilation_cycle=5",
    "model.residual_channels=12",
    "model.gate_channels=12",
    "model.skip_channels=16",
    "model.head_channels=16",
    "training.batch_size=4",
    "training.window_targets=100",
    "training.steps=10",
    "training.threads=1",
    "training.precision=float32",
    "training.audition_every=0",
]


def begin(config, run, said=None, init_from=None):
    """Begin a training in a new run folder; notices are added to a list."""
    notice = (lambda text: None) if said is None else said.append
    return start_run(config, RunFolder(run), ON_CPU, notice, init_from=init_from)


def go_on(run, requested=lambda frozen: frozen, accept=False):
    """The training of a run folder, from its newest checkpoint."""
    return resume_run(RunFolder(run), requested, accept, ON_CPU, lambda text: None)


def newest(run):
    """The newest checkpoint of a run, none of whose checkpoints is damaged."""
    checkpoint, damaged = RunFolder(run).load_newest()
    assert not damaged
    return checkpoint


def assert_same_state(one, other):
    """Two trainings are the same to the last bit: weights, averages, and the optimizer's moments."""
    assert one.step == other.step
    for mine, others in zip(
        (one.weights, one.average, *one.moments), (other.weights, other.average, *other.moments), strict=True
    ):
        assert mine.keys() == others.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, others[name], err_msg=name)
