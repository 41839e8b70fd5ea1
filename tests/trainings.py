"""Trainings of tiny models, begun and resumed as ``wavegen train`` does it."""

from collections.abc import Callable
from pathlib import Path

import torch

from wavegen.config import Config
from wavegen.training import launch
from wavegen.training.distributed import Group
from wavegen.training.run_folder import RunFolder
from wavegen.training.trainer import Trainer

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
    "training.threads=2",
    "training.precision=float32",
    "training.audition_every=0",
]


def begin(config: Config, run: Path, said: list[str] | None = None, init_from: Path | None = None) -> Trainer:
    """A training in a new run folder; what the user is told is added to a list."""
    notice = (lambda text: None) if said is None else said.append
    return launch.new_run(config, RunFolder(run), ON_CPU, [], notice, init_from=init_from)


def go_on(run: Path, requested: Callable[[Config], Config] = lambda frozen: frozen, accept: bool = False) -> Trainer:
    """The training of a run folder, from its newest checkpoint."""
    return launch.resume(RunFolder(run), requested, accept, ON_CPU, [], lambda text: None)
