"""Speed and memory of training on this machine, beside the textbook's WaveNet, and the share of its matrix products."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from wavegen.bench import Row
from wavegen.config import Config, parse_config
from wavegen.device import one_thread_each, torch_threads
from wavegen.errors import TrainingError
from wavegen.model.layers import CausalConv, Condition
from wavegen.model.wavenet import WaveNet
from wavegen.training.backends import slices_of
from wavegen.training.compute import resolve_compute
from wavegen.training.plan import Trial

STEPS = 3
PRODUCT_REPEATS = 15
ROWS = 2048  # of a probed product: as many as a stretch of the fused backend has


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
    on_cpu = device.type == "cpu"
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
    if not on_cpu:
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    products = _products_seconds(trial, precision, threads) if on_cpu else None
    speed = trial.n_targets / seconds
    return Row(
        *("train", backend, precision, len(trial.batch.targets), threads, speed),
        times_real_time=speed / config.audio.sample_rate_hz,
        share_of_limit=products / seconds if products else None,
        input_steps_per_second=trial.batch.inputs.size / seconds,
        peak_memory_bytes=peak,
        device=device_name,
    )


def _textbook_seconds(trial: Trial) -> float:
    """Return the median time of a step in the textbook's layout, in float32."""
    model = TextbookWaveNet(cast(WaveNet, trial.model))  # of which alone it is measured
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    inputs, targets, _, condition = slices_of(trial.batch, 1)[0]
    seconds = []
    for _ in range(1 + STEPS):
        began = time.perf_counter()
        loss = trial.model.distribution.loss(model(inputs, condition), targets).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))


def _products_seconds(trial: Trial, precision: str, threads: int) -> float:
    """Return the time of all matrix products of a step, each shape timed by itself on all threads."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with torch_threads(1), one_thread_each(threads, "products") as pool:
        total = 0.0
        for (n_inputs, n_outputs), rows in _product_rows(trial).items():
            jobs = [pool.submit(_product_seconds, n_inputs, n_outputs, dtype) for _ in range(threads)]
            total += rows / threads * max(job.result() for job in jobs)
    return total


def _product_rows(trial: Trial) -> dict[tuple[int, int], int]:
    rows = trial.model.product_rows(*trial.batch.targets.shape)
    conditioning, condition = trial.model.conditioning, trial.batch.condition
    if conditioning is not None and condition is not None:
        table = condition.frames if condition.frames is not None else condition.labels
        assert table is not None
        outputs, inputs = conditioning.projection.shape
        rows[inputs, outputs] = table.shape[0] * table.shape[1] * conditioning.rows_per_frame
    return rows


def _product_seconds(n_inputs: int, n_outputs: int, dtype: torch.dtype) -> float:
    """Return the time of a row in a product, and in its gradients with respect to inputs and weights."""
    x, y = torch.randn(ROWS, n_inputs).to(dtype), torch.randn(ROWS, n_outputs).to(dtype)
    weight = torch.randn(n_outputs, n_inputs).to(dtype)
    of_x, of_y, of_weight = torch.empty_like(x), torch.empty_like(y), torch.empty_like(weight)
    products: list[Callable[[], object]] = [
        lambda: torch.mm(x, weight.t(), out=of_y),
        lambda: torch.mm(y, weight, out=of_x),
        lambda: torch.mm(y.t(), x, out=of_weight),
    ]
    return sum(float(np.median([_calls(work) for _ in range(PRODUCT_REPEATS)])) for work in products) / ROWS


def _calls(work: Callable[[], object], n: int = 8) -> float:
    """Return the mean time of a few calls."""
    began = time.perf_counter()
    for _ in range(n):
        work()
    return (time.perf_counter() - began) / n


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


class TextbookBlock(nn.Module):
    """A residual block of ``TextbookWaveNet`` (WaveNet, sections 2.3 and 2.4).

    Args:
        conv: the filter's and the gate's convolution, one above the other; or one alone, where there is no gate.
        activation: gated, relu or tanh.
        residual: Wr (C, G), or None in the last block.
        skip: Ws (S, G).
    """

    def __init__(self, conv: CausalConv, activation: str, residual: Tensor | None, skip: Tensor) -> None:
        super().__init__()
        self.activation = activation
        parts = 2 if activation == "gated" else 1
        weights = conv.weight.permute(1, 2, 0).chunk(parts)  # (G, C, taps) each
        biases = [None] * parts if conv.bias is None else conv.bias.chunk(parts)
        layers = [_convolution(weight, bias, conv.dilation) for weight, bias in zip(weights, biases, strict=True)]
        self.filter, self.gate = layers[0], layers[1] if parts == 2 else None
        self.residual = None if residual is None else _convolution(residual[:, :, None])
        self.skip = _convolution(skip[:, :, None])

    def forward(self, h: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map h (B, C, T) to the new h, and to the skip; both are shorter by the block's reach.

        With conditions, (B, 2 G, T) is added to filter and gate; without a gate, (B, G, T).
        """
        parts = [self.filter(h)] if self.gate is None else [self.filter(h), self.gate(h)]
        if added is not None:
            rows = added[:, :, -parts[0].shape[2] :].chunk(len(parts), dim=1)
            parts = [part + row for part, row in zip(parts, rows, strict=True)]
        z = torch.relu(parts[0]) if self.activation == "relu" else torch.tanh(parts[0])
        if self.gate is not None:
            z = z * torch.sigmoid(parts[1])
        skip = self.skip(z)
        return (h if self.residual is None else h[:, :, -z.shape[2] :] + self.residual(z)), skip


class TextbookWaveNet(nn.Module):
    """The WaveNet as textbooks write it: Conv1d on (B, C, T), one layer after another. A yardstick, not for use.

    It computes the same function as ``WaveNet`` from the same weights; the tests compare the two.

    Args:
        model: whose weights are copied.
    """

    def __init__(self, model: WaveNet) -> None:
        super().__init__()
        self.input = model.input
        blocks = model.residual_blocks
        skips = model.skip.weight.chunk(len(blocks), dim=1)
        self.blocks = nn.ModuleList(
            TextbookBlock(block.conv, block.activation, None if block.residual is None else block.residual.weight, skip)
            for block, skip in zip(blocks, skips, strict=True)
        )
        self.conditioning = model.conditioning
        self.skip_bias = None if model.skip.bias is None else nn.Parameter(model.skip.bias.detach().clone())
        self.head = _convolution(model.head.weight[:, :, None], model.head.bias)
        self.output = _convolution(model.output.weight[:, :, None], model.output.bias)
        self.receptive_field = model.receptive_field

    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Predict as ``WaveNet.forward``: (B, T) classes to (B, T - receptive_field + 1, n_parameters)."""
        batch, steps = inputs.shape
        h = self.input(inputs.reshape(-1)).view(batch, steps, -1).transpose(1, 2)  # (B, C, T)
        n_outputs = steps - self.receptive_field + 1
        total: Tensor | float = 0.0 if self.skip_bias is None else self.skip_bias[:, None]
        rows = None if self.conditioning is None or condition is None else self.conditioning(condition)
        for i, block in enumerate(self.blocks):
            added = None if rows is None else rows.of_block(i, batch * steps).view(steps, batch, -1).permute(1, 2, 0)
            h, skip = block(h, added)
            total = total + skip[:, :, -n_outputs:]
        assert isinstance(total, Tensor)  # there is at least one block
        logits: Tensor = self.output(torch.relu(self.head(torch.relu(total))))
        return logits.transpose(1, 2)


def _convolution(weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> nn.Conv1d:
    outputs, inputs, taps = weight.shape
    layer = nn.Conv1d(inputs, outputs, taps, dilation=dilation)
    layer.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    layer.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return layer


if __name__ == "__main__":
    speed = _measure(*json.load(sys.stdin))
    with contextlib.suppress(BrokenPipeError):  # the parent process was killed
        os.write(1, json.dumps(asdict(speed)).encode())
