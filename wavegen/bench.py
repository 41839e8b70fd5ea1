"""Speeds and limits of this machine: generation and training, a row of a table for each measurement.

Training is measured in a process of its own, ``python -m wavegen.bench``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from wavegen.config import Config, parse_config
from wavegen.device import available_cores, choose_device
from wavegen.errors import TrainingError
from wavegen.model.building import build_model
from wavegen.model.layers import Condition, bias_of
from wavegen.model.network import Network
from wavegen.model.outputs import Truncation
from wavegen.model.wavenet import WaveNet
from wavegen.sampling.engines import PRECISIONS, EngineSource, SeededEngine, build_engine
from wavegen.sampling.engines.packing import Precision, aligned
from wavegen.simd import DOT_PRODUCT, LANES, fma, load, splat, store
from wavegen.text import pluralize
from wavegen.training.backends import slices_of
from wavegen.training.compute import precisions_of, resolve_compute
from wavegen.training.plan import Trial
from wavegen.training.task import noise_condition

REPEATS = 5
LONGEST_CLIP = 1 << 20  # samples that conditions are made for
ROW_SECONDS = 0.15  # for each repeat
WEIGHT_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "int8": 1}
CLIPS = (1, 2, 16)
TORCH_CLIPS, TRITON_CLIPS = (1, 32, 256), (32, 512, 2112)  # on a GPU
STEPS = 3  # of training
REGISTERS = 8  # of accumulators: as many chains as fill two pipelines of four cycles' latency
BEST_OF = 5
PROBE_SECONDS = 0.05


@dataclass(frozen=True)
class Row:
    """One measurement: the median of several repeats.

    Args:
        work: generate or train.
        engine: of sampling, or training's backend; ``textbook`` is Conv1d on (B, C, T).
        precision: of the weights, or of training's matrix products.
        batch: clips made together, or windows in a step.
        threads: used.
        samples_per_second: generated in all clips, or trained on.
        times_real_time: the same over the sample rate.
        share_of_limit: the numba engine's speed over what the machine's memory and arithmetic allow; None for others.
        input_steps_per_second: training's, context included.
        peak_memory_bytes: training's, above that after the imports, or of the GPU's memory.
        device: that worked.
    """

    work: str
    engine: str
    precision: str
    batch: int
    threads: int
    samples_per_second: float
    times_real_time: float
    share_of_limit: float | None = None
    input_steps_per_second: float | None = None
    peak_memory_bytes: int | None = None
    device: str = "cpu"


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


# --- training -------------------------------------------------------------------------------------------------------


def ways_to_train(is_wavenet: bool, cores: int) -> Iterator[tuple[str, str, int, bool]]:
    """Return the rows for a kind of model, of one thread and of all: backend, precision, threads, checkpointing."""
    counts = sorted({1, cores})
    if not is_wavenet:
        yield from (("torch", "float32", threads, False) for threads in counts)
        return
    yield from (("fused", precision, threads, False) for threads in counts for precision in ("float32", "bfloat16"))
    yield "fused", "float32", 1, True
    yield "torch", "float32", 1, False
    yield from (("textbook", "float32", threads, False) for threads in counts)


def measure_training(
    config: Config, backend: str, precision: str, threads: int, recompute: bool, device: str = "cpu"
) -> Row:
    """Time a few steps in a fresh process, so that its memory is its own.

    Args:
        config: of the model and the batch.
        backend: as ``training.backend``, or ``textbook``: Conv1d on (B, C, T).
        precision: of the matrix products.
        threads: to train with.
        recompute: activation checkpointing.
        device: to train on.

    Raises:
        TrainingError: the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", "wavegen.bench"],
        input=json.dumps([config.to_yaml(), backend, precision, threads, recompute, device]).encode(),
        stdout=subprocess.PIPE,
        start_new_session=True,  # the terminal's Ctrl-C is not for it: it ends with this process
        check=False,
    )
    if done.returncode:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise TrainingError(f"bench: training with {backend}, {precision}, {threads} threads ended with {how}")
    return Row(**json.loads(done.stdout))


def _measure(config_yaml: str, backend: str, precision: str, threads: int, recompute: bool, device_name: str) -> Row:
    device = torch.device(device_name)
    torch.set_num_threads(threads)
    torch.ones(8, 8) @ torch.ones(8, 8)  # wakes the matrix library up
    config = parse_config(config_yaml, "the configuration").with_values(
        "training",
        backend="torch" if backend == "textbook" else backend,
        threads=threads,
        precision=precision,
        activation_checkpointing=recompute,
        accumulation="auto",
    )
    before = _memory("VmRSS")
    _forget_peak()
    compute = resolve_compute(config, device)
    trial = Trial(config, compute, device)
    seconds = _textbook_seconds(trial) if backend == "textbook" else trial.step_seconds(compute.precision, STEPS)
    after = _memory("VmHWM")
    peak = None if after is None or before is None else after - before
    if device.type != "cpu":
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    speed = trial.n_targets / seconds
    return Row(
        *("train", backend, precision, len(trial.batch.targets), threads, speed),
        times_real_time=speed / config.audio.sample_rate_hz,
        input_steps_per_second=trial.batch.inputs.size / seconds,
        peak_memory_bytes=peak,
        device=device_name,
    )


def _textbook_seconds(trial: Trial) -> float:
    """Return the median time of a step in the textbook's layout, in float32."""
    model = cast(WaveNet, trial.model)  # of which alone it is measured
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs, targets, _, condition = slices_of(trial.batch, 1)[0]
    seconds = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        loss = model.distribution.loss(textbook(model, inputs, condition), targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))


def _memory(key: str) -> int | None:
    """Return a figure of Linux's /proc/self/status in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(key + ":"):
                return 1024 * int(line.split()[1])
    return None


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # then the imports' own peak counts too
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def textbook(model: WaveNet, inputs: Tensor, condition: Condition | None = None) -> Tensor:
    """Predict as ``WaveNet.forward``, as textbooks write it: Conv1d on (B, C, T), one layer after another.

    A yardstick, not for use: WaveNet, sections 2.3 and 2.4, from the model's own parameters.

    Args:
        model: whose function it computes.
        inputs: (B, T) classes.
        condition: of a conditioned network.

    Returns:
        (B, T - receptive_field + 1, n_parameters).
    """
    batch, steps = inputs.shape
    n_outputs = steps - model.receptive_field + 1
    h = model.input(inputs.reshape(-1)).view(batch, steps, -1).transpose(1, 2)  # (B, C, T)
    rows, blocks = model.gate_bias(condition), model.residual_blocks
    total = bias_of(model.skip)[:, None]
    for i, (block, skip) in enumerate(zip(blocks, model.skip.weight.chunk(len(blocks), dim=1), strict=True)):
        conv, n_parts = block.conv, 2 if block.activation == "gated" else 1
        # (taps, 2 G, C) -> (G, C, taps) for the filter, and for the gate
        layers = zip(conv.weight.permute(1, 2, 0).chunk(n_parts), bias_of(conv).chunk(n_parts), strict=True)
        parts = [F.conv1d(h, weight, bias, dilation=conv.dilation) for weight, bias in layers]
        if rows is not None:
            # (T B, 2 G) -> (B, 2 G, T)
            added = rows.of_block(i, batch * parts[0].shape[2]).view(-1, batch, conv.out_channels).permute(1, 2, 0)
            parts = [part + row for part, row in zip(parts, added.chunk(n_parts, dim=1), strict=True)]
        z = torch.relu(parts[0]) if block.activation == "relu" else torch.tanh(parts[0])
        if n_parts == 2:
            z = z * torch.sigmoid(parts[1])
        if block.residual is not None:
            h = h[:, :, conv.reach :] + F.conv1d(z, block.residual.weight[:, :, None])
        total = total + F.conv1d(z, skip[:, :, None])[:, :, -n_outputs:]
    for layer in (model.head, model.output):
        total = F.conv1d(torch.relu(total), layer.weight[:, :, None], layer.bias)
    return total.transpose(1, 2)


# --- limits of one core ---------------------------------------------------------------------------------------------


@njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _read(rows: Any, repeats: int, total: Any) -> None:
    """Add up (n, REGISTERS * LANES) float32 rows, several times, into (1, LANES)."""
    a = b = c = d = e = f = g = h = splat(np.float32(0.0))
    for _ in range(repeats):
        for row in range(rows.shape[0]):
            a, b = a + load(rows, row, 0), b + load(rows, row, LANES)
            c, d = c + load(rows, row, 2 * LANES), d + load(rows, row, 3 * LANES)
            e, f = e + load(rows, row, 4 * LANES), f + load(rows, row, 5 * LANES)
            g, h = g + load(rows, row, 6 * LANES), h + load(rows, row, 7 * LANES)
    store(total, 0, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))  # so that nothing is optimized away


@njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _multiply_add(repeats: int, total: Any) -> None:
    """Make a fused multiply-add in each of the registers, several times; their sum goes into (1, LANES)."""
    x, y = splat(np.float32(0.5)), splat(np.float32(1.0))
    a = b = c = d = e = f = g = h = splat(np.float32(0.0))
    for _ in range(repeats):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
    store(total, 0, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)))


def written_buffer(n_floats: int) -> npt.NDArray[np.float32]:
    """Return (n_floats,) ones that begin at a cache line.

    They are written, for pages that never were are all one page of zeros, which stays in the cache however large the
    buffer is.
    """
    buffer: npt.NDArray[np.float32] = aligned(np.ones(n_floats, np.float32))
    return buffer


def read_bandwidth(n_bytes: int) -> float:
    """Measure the bytes per second at which one core reads a buffer of this size; best of 5."""
    width, total = REGISTERS * LANES, np.zeros((1, LANES), np.float32)
    rows = written_buffer(max(1, n_bytes // (4 * width)) * width).reshape(-1, width)
    return rows.nbytes * _rate(lambda repeats: _read(rows, repeats, total))


def multiply_add_rate() -> float:
    """Measure the multiply-adds per second of one core, in registers; best of 5."""
    total = np.zeros((1, LANES), np.float32)
    return REGISTERS * LANES * _rate(lambda repeats: _multiply_add(repeats, total))


def _rate(work: Callable[[int], object]) -> float:
    """Return turns per second: of enough for PROBE_SECONDS, the best of BEST_OF."""
    work(1)  # compiles
    repeats, seconds = 1, 0.0
    while seconds < PROBE_SECONDS:
        repeats *= 2
        seconds = _time(work, repeats)
    return repeats / min(_time(work, repeats) for _ in range(BEST_OF))


def _time(work: Callable[[int], object], repeats: int) -> float:
    began = time.perf_counter()
    work(repeats)
    return time.perf_counter() - began


if __name__ == "__main__":
    speed = _measure(*json.load(sys.stdin))
    with contextlib.suppress(BrokenPipeError):  # the parent process was killed
        os.write(1, json.dumps(asdict(speed)).encode())
