"""What every ``auto`` becomes that follows from the device and the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavegen.config import Config
from wavegen.device import available_cores
from wavegen.errors import UsageError
from wavegen.training.distributed import ALONE, Group
from wavegen.training.memory import free_bytes, training_bytes

if TYPE_CHECKING:
    import torch

SHARE_OF_FREE = 0.7  # of the memory that is there, for `batch_size: auto`
AUTO_TARGETS = 16384  # in a step of `batch_size: auto`: what the recipe of the README was found with
SLICE_ROWS = 32768  # of a slice of the fused backend: its stretches are long enough, and its buffers small


def settle(config: Config, device: torch.device, group: Group = ALONE) -> Config:
    """Replace every ``auto`` that follows from the device, the memory and the number of processes.

    Returns:
        A configuration whose threads, backend, batch size and accumulation are decided.

    Raises:
        UsageError: the backend is not for this device.
    """
    training = config.training
    if training.backend == "fused" and device.type != "cpu":
        raise UsageError(
            f"training.backend: fused runs on a CPU, not on {device.type}; choose auto, torch or compile, "
            "or --device cpu"
        )
    if training.threads == "auto":
        config = config.with_values("training", threads=max(1, available_cores() // group.local_size))
    # the fused backend is for WaveNets that make sound, and has no dropout
    is_fused = (
        device.type == "cpu" and config.model.kind == "wavenet" and not (config.model.dropout or config.is_series)
    )
    if training.backend == "auto":
        config = config.with_values("training", backend="fused" if is_fused else "torch")
    if training.batch_size == "auto":
        config = config.with_values("training", batch_size=_fitting_batch(config, device, group))
    if training.accumulation == "auto":
        config = config.with_values("training", accumulation=_slices(config, device, group))
    elif int(training.accumulation) > int(config.training.batch_size):
        config = config.with_values("training", accumulation=config.training.batch_size)
    return config


def _fitting_batch(config: Config, device: torch.device, group: Group) -> int:
    """As many windows as make up AUTO_TARGETS, or fewer if those do not fit."""
    on_device = 1 if device.type == "cuda" else group.local_size
    free = SHARE_OF_FREE * free_bytes(device) / on_device
    size = max(1, AUTO_TARGETS // config.training.window_targets)
    while size > 1:
        smaller = settle(config.with_values("training", batch_size=size), device, group)
        if training_bytes(smaller, "float32") <= free:
            break
        size //= 2
    return size


def runs_in_slices(config: Config, device: torch.device) -> bool:
    """Whether slices of a batch are computed side by side, each by one thread; the backend is decided."""
    of_recurrent = config.model.has_memory and config.training.backend == "torch" and device.type == "cpu"
    return of_recurrent or config.training.backend == "fused"


def _slices(config: Config, device: torch.device, group: Group) -> int:
    """How many slices of equal size: one for each thread that computes one, and none too large."""
    training = config.training
    if not runs_in_slices(config, device):
        return 1
    batch, wanted = int(training.batch_size), group.size * int(training.threads)
    if training.backend == "fused":
        rows = batch * (_receptive_field(config) - 1 + training.window_targets)
        wanted = max(wanted, -(-rows // SLICE_ROWS))
    return min((n for n in range(1, batch + 1) if batch % n == 0 and n >= wanted), default=batch)


def _receptive_field(config: Config) -> int:
    return 1 + (config.model.kernel_size - 1) * sum(config.model.dilations)
