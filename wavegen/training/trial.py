"""A few steps of a training on noise, to take times from."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from wavegen.audio.quantize import build_quantizer
from wavegen.config import Config
from wavegen.data.conditioning import ClipCondition, build_conditioner, join_segments, stack_tables
from wavegen.data.windows import Batch
from wavegen.evaluation.likelihood import model_bits
from wavegen.model.building import build_model
from wavegen.sampling.engines import build_engine
from wavegen.sampling.sampler import Request, Sampler
from wavegen.training.backends import Backend, build_backend
from wavegen.training.compute import Compute, ComputePrecision
from wavegen.training.optimizer import Optimizer, clip_gradients


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
        self.quantizer = build_quantizer(config)
        self.batch = self._noise(most_targets or 1 << 62)
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

    def scoring_seconds(self, rate: int) -> float:
        """Return the time to score one second of much audio: the stretches of several clips keep all threads busy."""
        clips = [self.batch.inputs[0][:rate]] * (2 * torch.get_num_threads())
        conditions = [noise_condition(self.config, len(clip)) for clip in clips]
        model_bits(self.model, clips[:1], self.quantizer.silence, None, conditions[:1])
        began = time.perf_counter()
        model_bits(self.model, clips, self.quantizer.silence, None, conditions)
        return (time.perf_counter() - began) * rate / sum(map(len, clips))

    def sampling_seconds(self) -> float:
        """Return the time to generate one sample."""
        sampler = Sampler(build_engine("auto", self.model), self.quantizer)
        condition = noise_condition(self.config, 400)
        request = Request(n_samples=400, conditions=None if condition is None else [condition])
        chunks = sampler.stream(request, chunk=200)
        next(chunks)
        began = time.perf_counter()
        next(chunks)
        return (time.perf_counter() - began) / 200

    def _noise(self, most_targets: int) -> Batch:
        """Draw a batch: (B, field - 1 + T) inputs, (B, T) targets, all of them real."""
        window = min(self.config.training.window_targets, most_targets)
        size = max(1, min(self.compute.batch_size, most_targets // window))
        rng = np.random.default_rng(0)
        shape = (size, self.model.receptive_field - 1 + window)
        if self.config.is_series:
            values = rng.standard_normal((*shape, self.config.output.horizon), dtype=np.float32)
            return Batch(values[:, :, 0], values[:, -window:], np.ones((size, window), dtype=np.bool_))
        inputs = rng.integers(self.model.classes, size=shape)
        targets = rng.integers(self.model.classes, size=(size, window))
        condition, steps = noise_condition(self.config, inputs.shape[1]), inputs.shape[1]
        rows = None
        if condition is not None:
            rows = stack_tables([join_segments([(condition, 0, steps)], condition.most_rows(steps, 1), steps)] * size)
        return Batch(inputs, targets, np.ones(targets.shape, dtype=np.bool_), rows)


def noise_condition(config: Config, n_samples: int) -> ClipCondition | None:
    """Return the condition of a clip of noise; None in a model without conditions."""
    conditioner = build_conditioner(config)
    noise = np.random.default_rng(1).integers(config.quantization.classes, size=n_samples)
    return conditioner.of_clip(noise, conditioner.labels[0] if conditioner.labels else None)
