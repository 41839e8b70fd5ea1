"""How fast this machine generates and trains: a row for each way to do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from wavegen.bench.probes import multiply_add_rate, read_bandwidth
from wavegen.config import Config
from wavegen.device import available_cores
from wavegen.model.truncation import Truncation
from wavegen.model.wavenet import WaveNet, build_model
from wavegen.sampling.engines import PRECISIONS, build_engine
from wavegen.sampling.engines.packing import Precision
from wavegen.training.freeze import Trial

REPEATS = 5
ROW_SECONDS = 0.15  # for each repeat
CLIPS = (1, 2, 16)


@dataclass(frozen=True)
class Row:
    """One measurement: the median of several repeats.

    Args:
        work: generate or train.
        engine: of sampling; torch for training.
        precision: of the weights, or of training's matrix products.
        batch: clips made together, or windows in a step.
        threads: used.
        samples_per_second: generated in all clips, or trained on.
        times_real_time: the same over the sample rate.
        share_of_limit: generating's speed over what the machine's memory and arithmetic allow; None for others.
    """

    work: str
    engine: str
    precision: str
    batch: int
    threads: int
    samples_per_second: float
    times_real_time: float
    share_of_limit: float | None

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Machine:
    """What one core can do, measured in the same run.

    Args:
        bytes_per_second: by precision, reading a buffer as large as the weights in it.
        multiply_adds_per_second: in registers.
    """

    bytes_per_second: dict[str, float]
    multiply_adds_per_second: float


def measure(config: Config, model: WaveNet | None, notice: Callable[[str], None]) -> tuple[Machine, Iterator[Row]]:
    """Measure this machine with a model.

    Args:
        config: of the model.
        model: with its weights; None for random ones.
        notice: is told what is going on.

    Returns:
        What the machine can do, and an iterator of rows, each measured as it is asked for.
    """
    if model is None:
        torch.manual_seed(0)
        model = build_model(config)
        torch.nn.init.normal_(model.output.weight, std=0.1)
    model = model.cpu().eval()
    notice("measuring the machine")
    bytes_of = {precision: _weight_bytes(model, precision) for precision in PRECISIONS}
    machine = Machine({name: read_bandwidth(n) for name, n in bytes_of.items()}, multiply_add_rate())
    return machine, _rows(config, model, machine, bytes_of, notice)


def _weight_bytes(model: WaveNet, precision: Precision) -> int:
    return model.multiply_adds * {"float32": 4, "bfloat16": 2, "int8": 1}[precision]


def _rows(
    config: Config, model: WaveNet, machine: Machine, bytes_of: dict[Precision, int], notice: Callable[[str], None]
) -> Iterator[Row]:
    cores = available_cores()
    rate = config.audio.sample_rate_hz
    plans: list[tuple[str, Precision, int, int]] = [
        ("numba", precision, clips, threads)
        for precision in PRECISIONS
        for threads in _thread_counts(cores)
        for clips in sorted({*CLIPS, cores})
        if clips >= threads
    ]
    plans += [("torch", "float32", clips, 1) for clips in (1, 16)]
    for engine, precision, clips, threads in plans:
        notice(f"generate: {engine}, {precision}, {clips} clips, {threads} threads")
        speed = _generation_speed(model, engine, precision, clips, threads)
        limit = None
        if engine == "numba":
            per_thread = -(-clips // threads)
            step_seconds = max(
                bytes_of[precision] / machine.bytes_per_second[precision],
                per_thread * model.multiply_adds / machine.multiply_adds_per_second,
            )
            limit = speed / (clips / step_seconds)
        yield Row("generate", engine, precision, clips, threads, speed, speed / rate, limit)
    for training_precision in ("float32", "bfloat16"):
        for threads in _thread_counts(cores):
            notice(f"train: {training_precision}, {threads} threads")
            speed = _training_speed(config, training_precision, threads)
            yield Row(
                "train", "torch", training_precision, config.training.batch_size, threads, speed, speed / rate, None
            )


def _thread_counts(cores: int) -> Sequence[int]:
    return (1,) if cores == 1 else (1, cores)


def _generation_speed(model: WaveNet, name: str, precision: Precision, clips: int, threads: int) -> float:
    """Samples per second in all clips."""
    engine = build_engine(name, model, precision, threads)
    engine.start(np.full((clips, model.receptive_field), model.classes // 2, np.int64))
    rng = np.random.default_rng(0)
    n_samples, seconds = 16, 0.0
    while seconds < ROW_SECONDS:
        n_samples *= 2
        uniforms = rng.random((clips, n_samples))
        began = time.perf_counter()
        engine.generate(uniforms, Truncation())
        seconds = time.perf_counter() - began
    speeds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        engine.generate(uniforms, Truncation())
        speeds.append(clips * n_samples / (time.perf_counter() - began))
    return float(np.median(speeds))


def _training_speed(config: Config, precision: str, threads: int) -> float:
    """Targets per second."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        settings = config.training
        trial = Trial(config, torch.device("cpu"), settings.batch_size, settings.window_targets)
        return settings.batch_size * settings.window_targets / trial.step_seconds(precision, REPEATS)
    finally:
        torch.set_num_threads(before)
