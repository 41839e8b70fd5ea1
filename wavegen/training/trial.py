"""A few steps of a training on noise, to take times from."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from wavegen.config import Config
from wavegen.model.building import build_model
from wavegen.training.backends import Backend, build_backend
from wavegen.training.compute import Compute, ComputePrecision
from wavegen.training.optimizer import Optimizer, clip_gradients
from wavegen.training.task_registry import task_type


class Trial:
    """A throw-away copy of the training, to take times from; what it learns is forgotten.

    Args:
        config: of the training.
        compute: how its steps are computed, by one process.
        device: to train on.
        most_targets: of its batch, which otherwise is the training's.
    """

    def __init__(self, config: Config, compute: Compute, device: torch.device, most_targets: int | None = None) -> None:
        self.config, self.compute = config, compute
        with torch.random.fork_rng(devices=[]):
            self.model = build_model(config).to(device)
        window = min(config.training.window_targets, most_targets or 1 << 62)
        n_windows = max(1, min(compute.batch_size, (most_targets or 1 << 62) // window))
        self.batch = task_type(config).noise(config, self.model, n_windows, window)
        self.n_targets = self.batch.is_real.size
        self._backends: dict[ComputePrecision, Backend] = {}

    def step_seconds(self, precision: ComputePrecision, steps: int) -> float:
        """Return the median time of a step, after one that warms up when it is the precision's first."""
        warm = precision in self._backends
        if not warm:
            compute = replace(self.compute, precision=precision)
            self._backends[precision] = build_backend(self.config, compute, self.model)
        optimizer = Optimizer(self.model, self.config.training)
        seconds = []
        for _ in range(steps if warm else 1 + steps):
            began = time.perf_counter()
            _, gradients = self._backends[precision].gradients(self.batch, self.n_targets)
            for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            clip_gradients(self.model.parameters(), 1.0)
            optimizer.step(factor=1e-3)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds if warm else seconds[1:]))
