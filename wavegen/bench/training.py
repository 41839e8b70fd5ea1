"""Speed and memory of training on this machine, beside the textbook's WaveNet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wavegen.bench import Row
from wavegen.config import Config, parse_config
from wavegen.errors import TrainingError
from wavegen.model.layers import Condition, bias_of
from wavegen.model.wavenet import WaveNet
from wavegen.training.backends import slices_of
from wavegen.training.compute import resolve_compute
from wavegen.training.plan import Trial

STEPS = 3


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
        [sys.executable, "-P", "-m", "wavegen.bench.training"],
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


if __name__ == "__main__":
    speed = _measure(*json.load(sys.stdin))
    with contextlib.suppress(BrokenPipeError):  # the parent process was killed
        os.write(1, json.dumps(asdict(speed)).encode())
