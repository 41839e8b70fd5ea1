"""How much memory a training will take, from the shapes alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.config import Config
from wavegen.model.building import build_model
from wavegen.model.network import SliceShape
from wavegen.training.compute import Compute

if TYPE_CHECKING:
    import torch

PARAMETER_COPIES = 5  # weights, gradient, the optimizer's moments (two at most), running average; float32 each
# Measured on the torch backend, small and paper, 0.5 to 1.6 GB: with these two the estimate is within 12%.
ALLOCATOR_SLACK = 1.15
WORKING_BYTES = 250_000_000  # of the matrix library and the threads
PRODUCT_BYTES = 150_000_000  # more, of the bfloat16 products' compiled kernels and copies, in the fused backend


def free_bytes(device: torch.device) -> int:
    """Memory that a training could take on a device, as the system says, a container's limit considered."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return min([1024 * int(line.split()[1]), *group_bytes()])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # not Linux: all there is


def group_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield what each limit of Linux's control groups (version 2, the base of containers) leaves to this process.

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
    """Peak memory of a training step, above that of the imported libraries.

    What is kept of each layer until the backward pass, the logits with their softmax and its gradient, and all copies
    of the parameters.

    Args:
        config: of the training.
        compute: how each step is computed.

    Returns:
        Bytes.
    """
    import torch

    with torch.device("meta"):
        model = build_model(config)
    is_fused, word = compute.backend == "fused", 2 if compute.precision == "bfloat16" else 4
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
    if config.mel.n_mels is not None:
        return (steps // config.mel.hop_length + 8) * config.mel.upsampling
    return 2 if config.n_labels else 0
