"""Measure generation and training on this machine, a row for each configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, product

import numpy as np
import torch

from wavegen.bench import Row
from wavegen.bench.probes import multiply_add_rate, read_bandwidth
from wavegen.bench.training import measure_training, ways_to_train
from wavegen.config import Config
from wavegen.device import available_cores, choose_device
from wavegen.model.building import build_model
from wavegen.model.network import Network
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines import PRECISIONS, EngineSource, SeededEngine, build_engine
from wavegen.sampling.engines.packing import Precision
from wavegen.simd import DOT_PRODUCT
from wavegen.text import pluralize
from wavegen.training.compute import precisions_of
from wavegen.training.task import noise_condition

REPEATS = 5
LONGEST_CLIP = 1 << 20  # samples that conditions are made for
ROW_SECONDS = 0.15  # for each repeat
WEIGHT_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
CLIPS = (1, 2, 16)
TORCH_CLIPS, TRITON_CLIPS = (1, 32, 256), (32, 512, 2112)  # on a GPU


@dataclass(frozen=True)
class Machine:
    """The limits of one core, measured in the same run.

    Args:
        bytes_per_second: by precision, reading a buffer as large as the weights in it.
        multiply_adds_per_second: in registers.
    """

    bytes_per_second: dict[Precision, float]
    multiply_adds_per_second: float


def measure(
    config: Config, model: Network | None, device_name: str, notice: Callable[[str], None]
) -> tuple[Machine, Iterator[Row]]:
    """Measure this machine with a model.

    Args:
        config: of the model.
        model: with its weights; None for random ones.
        device_name: what to measure; auto is the CPU, and the GPU where there is one.
        notice: called with each step of the measurement, in words.

    Returns:
        The machine's limits, and an iterator of rows, each measured on demand.
    """
    device = choose_device(device_name)
    if model is None:
        torch.manual_seed(0)
        model = build_model(config)
        with torch.no_grad():  # a softmax's first weights are 0
            for parameter in model.get_submodule("output").parameters():
                parameter.normal_(std=0.1)
    model = model.cpu().eval()
    notice("measuring, in five minutes or so (large networks take longer); Ctrl-C prints what was measured by then")
    bandwidths = {name: read_bandwidth(model.multiply_adds * WEIGHT_BYTES[name]) for name in PRECISIONS}
    machine = Machine(bandwidths, multiply_add_rate())
    of_cpu = _rows(config, model, machine, notice) if device_name in ("auto", "cpu") else ()
    of_gpu = () if device.type == "cpu" else _gpu_rows(config, model, device, notice)
    return machine, chain(of_cpu, of_gpu)


def _rows(config: Config, model: Network, machine: Machine, notice: Callable[[str], None]) -> Iterator[Row]:
    cores = available_cores()
    rate = config.audio.sample_rate_hz
    plans: list[tuple[str, Precision, int, int]] = [
        ("numba", precision, clips, threads)
        for precision in (PRECISIONS if model.runs_fused else ())
        for threads in sorted({1, cores})
        for clips in sorted({*CLIPS, cores})
        if clips >= threads
    ]
    plans += [("torch", "float32", clips, 1) for clips in (1, 16)]
    for engine, precision, clips, threads in plans:
        notice(f"generate: {engine}, {precision}, {pluralize(clips, 'clip')}, {pluralize(threads, 'thread')}")
        speed = _generation_speed(config, model, engine, precision, clips, threads)
        # a step reads all weights once, and computes the clips of a thread one after another
        reading = model.multiply_adds * WEIGHT_BYTES[precision] / machine.bytes_per_second[precision]
        computing = -(-clips // threads) * model.multiply_adds / machine.multiply_adds_per_second
        if precision == "int8" and DOT_PRODUCT is not None:
            computing /= 2  # an instruction multiplies twice as many numbers of half the width
        share = speed * max(reading, computing) / clips if engine == "numba" else None
        notice(f"  {speed:,.0f} samples/s")
        yield Row("generate", engine, precision, clips, threads, speed, speed / rate, share)
    for backend, training_precision, threads, recompute in ways_to_train(model.runs_fused, cores):
        if backend == "fused" and config.model.dropout:  # which it has none of
            continue
        name = backend + (" (activation checkpointing)" if recompute else "")
        notice(f"train: {name}, {training_precision}, {pluralize(threads, 'thread')}")
        row = measure_training(config, backend, training_precision, threads, recompute)
        notice(f"  {row.samples_per_second:,.0f} targets/s")
        yield replace(row, engine=name)


def _gpu_rows(config: Config, model: Network, device: torch.device, notice: Callable[[str], None]) -> Iterator[Row]:
    rate, there, name = config.audio.sample_rate_hz, model.copy().to(device), str(device)
    plans: list[tuple[str, Precision, int]] = []
    if device.type == "cuda":
        plans += [("torch", "float32", clips) for clips in TORCH_CLIPS]
        if not EngineSource.of(there).beyond_triton():
            plans += [("triton", precision, clips) for precision in PRECISIONS[:2] for clips in TRITON_CLIPS]
    for engine, precision, clips in plans:
        notice(f"generate: {engine}, {precision}, {clips} clips on {name}")
        speed = _generation_speed(config, there, engine, precision, clips, 1)
        yield Row("generate", engine, precision, clips, 1, speed, speed / rate, None, device=name)
    backends = ("torch", "compile") if device.type == "cuda" else ("torch",)
    for backend, precision in product(backends, dict.fromkeys(("float32", *precisions_of(device)))):
        notice(f"train: {backend}, {precision} on {name}")
        yield measure_training(config, backend, precision, 1, False, name)


def _generation_speed(
    config: Config, model: Network, name: str, precision: Precision, clips: int, threads: int
) -> float:
    """Return samples per second in all clips together."""
    engine = build_engine(name, model, precision, threads)
    condition = noise_condition(config, LONGEST_CLIP)
    conditions = None if condition is None else [condition] * clips
    engine.start(np.full((clips, model.receptive_field), model.classes // 2, np.int64), conditions)
    rng, n_samples, seconds = np.random.default_rng(0), 16, 0.0

    def generate() -> float:
        began = time.perf_counter()
        if isinstance(engine, SeededEngine):
            engine.generate_seeded(0, range(clips), 0, n_samples, Truncation())
        else:
            engine.generate(uniforms, Truncation())
        return time.perf_counter() - began

    while seconds < ROW_SECONDS:
        n_samples *= 2
        uniforms = rng.random((clips, n_samples))
        seconds = generate()
    return clips * n_samples / float(np.median([generate() for _ in range(REPEATS)]))
