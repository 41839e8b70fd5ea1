"""Computation of steps: backend, precision and slices, the memory that they take, and a device's own errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from wavegen.config import Config
from wavegen.device import available_cores, is_out_of_memory
from wavegen.errors import TrainingError, UsageError
from wavegen.model.building import build_model
from wavegen.model.network import SliceShape
from wavegen.training.process_group import ALONE, Group

PARAMETER_COPIES = 5  # weights, gradient, the optimizer's moments (two at most), running average; float32 each
# Measured on the torch backend, small and paper, 0.5 to 1.6 GB: with these two the estimate is within 12%.
ALLOCATOR_SLACK = 1.15
WORKING_BYTES = 250_000_000  # of the matrix library and the threads
PRODUCT_BYTES = 150_000_000  # more, of the bfloat16 products' compiled kernels and copies, in the fused backend

# `batch_size: auto` and `accumulation: auto`
SHARE_OF_FREE = 0.7  # of the free memory
AUTO_TARGETS = 16384  # in a step: the value that docs/recipe.md was tuned with
SLICE_ROWS = 32768  # in a slice of the fused backend: its stretches are long enough, and its buffers small

BackendName = Literal["fused", "torch", "compile"]
ComputePrecision = Literal["float32", "tf32", "bfloat16", "float16"]

AUTOCAST: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}  # precisions of 16 bits
BFLOAT16_CAPABILITY = (8, 0)  # CUDA's, of the first cards with bfloat16 and TF32


@dataclass(frozen=True)
class Compute:
    """The settings by which each step is computed; none of them is ``auto``.

    Attributes:
        backend: ``fused`` runs on a CPU, ``torch`` and ``compile`` on any device.
        precision: of the matrix products.
        threads: of each process, on a CPU.
        batch_size: windows in a step, of all processes together.
        accumulation: slices in which the batch is worked through, of all processes together.
        side_by_side: whether one thread computes each slice, several at a time; otherwise all threads share each.
    """

    backend: BackendName
    precision: ComputePrecision
    threads: int
    batch_size: int
    accumulation: int
    side_by_side: bool

    def share(self, n_processes: int) -> Compute:
        """Return the settings of one of several processes: its share of the batch, rounded up."""
        size, slices = -(-self.batch_size // n_processes), -(-self.accumulation // n_processes)
        return replace(self, batch_size=size, accumulation=slices)

    def settings(self) -> dict[str, Any]:
        """Return the same as keys of the section ``training``, to store in a configuration."""
        return {key: value for key, value in vars(self).items() if key != "side_by_side"}


def resolve_compute(config: Config, device: torch.device, group: Group = ALONE) -> Compute:
    """Decide by rule how steps are computed; ``precision: auto`` is float32 until it is measured.

    Args:
        config: of the training.
        device: to train on.
        group: the processes that share each step.

    Raises:
        UsageError: the backend is not for this device.
    """
    settings = config.training
    if settings.backend == "fused" and device.type != "cpu":
        problem = f"fused runs on a CPU, not on {device.type}; choose auto, torch or compile, or {{device}}"
        raise UsageError(f"training.backend: {problem}", {"device": "cpu"})
    # the fused backend is for WaveNets that predict distributions, and has no dropout
    is_fused = device.type == "cpu" and config.model.kind == "wavenet" and config.output.kind != "regression"
    is_fused = is_fused and not config.model.dropout
    backend: BackendName = settings.backend if settings.backend != "auto" else "fused" if is_fused else "torch"
    cores = max(1, available_cores() // group.local_size)
    compute = Compute(
        backend=backend,
        precision="float32" if settings.precision == "auto" else settings.precision,
        threads=cores if settings.threads == "auto" else settings.threads,
        batch_size=1,
        accumulation=1,
        side_by_side=runs_side_by_side(config, backend, device),
    )
    if settings.batch_size != "auto":
        return _in_slices(replace(compute, batch_size=settings.batch_size), config, group)
    # as many windows as make up AUTO_TARGETS, halved until a step fits into the memory
    free = SHARE_OF_FREE * free_bytes(device) / (1 if device.type == "cuda" else group.local_size)
    size = max(1, AUTO_TARGETS // settings.window_targets)
    while True:
        fitting = _in_slices(replace(compute, batch_size=size), config, group)
        if size == 1 or training_bytes(config, replace(fitting, precision="float32")) <= free:
            return fitting
        size //= 2


def runs_side_by_side(config: Config, backend: str, device: torch.device) -> bool:
    """Return whether threads compute one slice each, side by side: for ``fused`` and for recurrent networks.

    A recurrent network's steps are too small for several threads to share.
    """
    is_recurrent = config.model.has_memory and backend == "torch" and device.type == "cpu"
    return backend == "fused" or is_recurrent


def _in_slices(compute: Compute, config: Config, group: Group) -> Compute:
    """Slice the batch: as configured, or equally, one slice per computing thread, none above the size limit."""
    settings, batch = config.training, compute.batch_size
    if settings.accumulation != "auto":
        return replace(compute, accumulation=min(settings.accumulation, batch))
    if not compute.side_by_side:
        return compute
    wanted = group.size * compute.threads
    if compute.backend == "fused":
        reach = (config.model.kernel_size - 1) * sum(config.model.dilations)  # receptive field - 1
        wanted = max(wanted, -(-batch * (reach + settings.window_targets) // SLICE_ROWS))
    slices = min((n for n in range(1, batch + 1) if batch % n == 0 and n >= wanted), default=batch)
    return replace(compute, accumulation=slices)


def precisions_of(device: torch.device) -> tuple[ComputePrecision, ...]:
    """Return the precisions to choose from on a device, the most exact one first."""
    if device.type == "cuda":
        is_recent = torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY
        return ("tf32", "bfloat16") if is_recent else ("float32", "float16")
    return ("float32", "bfloat16") if device.type == "cpu" else ("float32",)


def has_precision(device: torch.device, name: str) -> bool:
    """Return whether a device computes products in a precision."""
    return name in ("float32", *precisions_of(device)) or (name == "float16" and device.type == "cuda")


def check_precision(name: str, device: torch.device) -> None:
    """Make sure that a device has a precision.

    Raises:
        UsageError: it has not.
    """
    if not has_precision(device, name):
        known = sorted({"float32", *precisions_of(device)})
        expected = f"auto or {' or '.join(known)} on this {device.type}"
        raise UsageError(f"training.precision: expected {expected}, found {name}")


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on a CPU also within the container's limits."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min([int(psutil.virtual_memory().available), *group_bytes()])


def group_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the bytes that each limit of Linux's control groups (version 2, used by containers) leaves this process.

    Args:
        root: where the groups are mounted.
        own: the file with a line ``0::/group`` for the group of this process.
    """
    groups = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for group in (line.removeprefix("0::/") for line in groups if line.startswith("0::/")):
        for folder in (root / group, *(root / group).parents):  # the limit of each counts
            with contextlib.suppress(OSError, ValueError):  # none, as seen from inside a container; or "max"
                limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
                yield limit - used + _reclaimable_bytes(folder)
            if folder == root:
                break


def _reclaimable_bytes(folder: Path) -> int:
    """Return the bytes of files that a group has read: they count as used, and are dropped when memory is short."""
    for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
        name, _, n_bytes = line.partition(" ")
        if name == "inactive_file":
            return int(n_bytes)
    return 0


def training_bytes(config: Config, compute: Compute) -> int:
    """Estimate the peak memory of a training step, above that of the imported libraries.

    It is what is kept of each layer until the backward pass, the logits with their softmax and its gradient, and all
    copies of the parameters.

    Args:
        config: of the training.
        compute: how each step is computed.

    Returns:
        Bytes.
    """
    with torch.device("meta"):
        model = build_model(config)
    is_fused, word = compute.backend == "fused", 2 if compute.precision in AUTOCAST else 4
    training = config.training
    part = SliceShape(
        windows=-(-compute.batch_size // compute.accumulation),
        targets=training.window_targets,
        word=word,
        fused=is_fused,
        recompute=training.activation_checkpointing,
        dropout=config.model.dropout > 0,
        condition_rows=_condition_rows(config, model.receptive_field - 1 + training.window_targets),
    )
    parameters = 4 * PARAMETER_COPIES * model.n_parameters
    at_a_time = min(compute.threads, compute.accumulation) if compute.side_by_side else 1
    activations = at_a_time * model.activation_bytes(part)
    if is_fused:
        gradients = 4 * (at_a_time + 1) * model.n_parameters
        return parameters + gradients + activations + WORKING_BYTES + (PRODUCT_BYTES if word == 2 else 0)
    return int(ALLOCATOR_SLACK * (parameters + activations)) + WORKING_BYTES


def _condition_rows(config: Config, steps: int) -> int:
    """Return the rows that the condition of a window has."""
    if config.frames is not None:
        return (steps // config.frames.hop_length + 8) * config.frames.upsampling
    return 2 if config.n_labels else 0


@contextlib.contextmanager
def explain_device_errors(device: torch.device, when: str) -> Iterator[None]:
    """Turn a device's lack of memory, or of an operation, into one line.

    Args:
        device: that computes.
        when: the errors may come, such as ``step 3``.

    Raises:
        TrainingError: there is no memory left, or the device lacks an operation.
    """
    try:
        yield
    except NotImplementedError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:120]
        problem = f"{when}: {device.type} lacks an operation ({reason}); choose {{device}}"
        raise TrainingError(problem, {"device": "cpu"}) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        remedy = "lower training.batch_size, or set training.activation_checkpointing=true"
        raise TrainingError(f"{when}: out of memory on {device.type}; {remedy}") from error
