"""How much memory a training will take, from the shapes alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.config import Config
from wavegen.model.building import build_model
from wavegen.model.network import Network
from wavegen.model.recurrent import Recurrent
from wavegen.model.shapes import layer_widths
from wavegen.model.wavenet import WaveNet

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
    """What each limit of Linux's control groups, of which containers are made, leaves to this process.

    Args:
        root: where the groups are.
        own: a line ``number:controllers:group`` for each group of this process; of version 2 without controllers.
    """
    for line in own.read_text(encoding="utf-8").splitlines() if own.exists() else ():
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mounted = root / controllers
        files = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        place = mounted / group.lstrip("/")
        for folder in (place, *place.parents):  # each has a say
            with contextlib.suppress(OSError, ValueError):  # not there, as seen from within; or "max"
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in files)
                yield limit - used + _given_back(folder)
            if folder == mounted:
                break


def _given_back(folder: Path) -> int:
    """Bytes of files that a group has read: they count as used, and are dropped as soon as memory is short."""
    for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
        name, _, n_bytes = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(n_bytes)
    return 0


def training_bytes(config: Config, precision: str) -> int:
    """Peak memory of a training step, above that of the imported libraries.

    What is kept of each layer until the backward pass, the logits with their softmax and its gradient, and all copies
    of the parameters.

    Args:
        config: settled.
        precision: of the matrix products, float32 or bfloat16.

    Returns:
        Bytes.
    """
    import torch

    with torch.device("meta"):
        model = build_model(config)
    training = config.training
    size = -(-int(training.batch_size) // int(training.accumulation))
    word = 2 if precision == "bfloat16" else 4
    parameters = 4 * PARAMETER_COPIES * model.n_parameters
    side_by_side = min(int(training.threads), int(training.accumulation))
    if not isinstance(model, WaveNet):
        slices = side_by_side if isinstance(model, Recurrent) else 1
        return int(ALLOCATOR_SLACK * (parameters + slices * _other_bytes(config, model, size, word))) + WORKING_BYTES
    if training.backend == "fused":
        gradients = 4 * (side_by_side + 1) * model.n_parameters
        activations = side_by_side * _fused_bytes(config, model, size, word)
        products = PRODUCT_BYTES if precision == "bfloat16" else 0
        return int(parameters + gradients + activations) + WORKING_BYTES + products
    return int(ALLOCATOR_SLACK * (parameters + _torch_bytes(config, model, size, word))) + WORKING_BYTES


def _condition_bytes(config: Config, model: WaveNet, size: int) -> int:
    """Of one slice: what conditions add to the gates, its gradient, and for the fused backend their sum with biases."""
    n_mels, steps = config.mel.n_mels, model.receptive_field - 1 + config.training.window_targets
    if not config.n_labels and n_mels is None:
        return 0
    rows = 2 if n_mels is None else (steps // config.mel.hop_length + 8) * config.mel.upsampling
    shape = config.model
    copies = 3 if config.training.backend == "fused" else 2
    return size * rows * 4 * (copies * len(shape.dilations) * shape.conv_channels + 2 * (n_mels or 0))


def _block_rows(config: Config, model: WaveNet) -> int:
    """Rows that all blocks put out, for one window."""
    rows, steps = 0, model.receptive_field - 1 + config.training.window_targets
    for block in model.residual_blocks:
        steps -= block.conv.reach
        rows += steps
    return rows


def _fused_bytes(config: Config, model: WaveNet, size: int, word: int) -> int:
    """Of one slice: what ``wavegen.model.fused`` allocates, and the head's stretch."""
    from wavegen.training.backends import HEAD_ROWS

    shape, targets = config.model, size * config.training.window_targets
    rows = size * (model.receptive_field - 1 + config.training.window_targets)
    of_blocks = size * _block_rows(config, model) * word * shape.residual_channels
    if not config.training.activation_checkpointing:
        of_blocks += size * _block_rows(config, model) * word * shape.conv_channels
    of_stream = rows * shape.residual_channels * (4 + 4 + 4)  # the stream; the input layer's result and its gradient
    of_skips = targets * word * (len(shape.dilations) * shape.gate_channels + 3 * shape.skip_channels)
    of_output = model.distribution.n_parameters * (2 * word + 12)
    of_head = min(targets, HEAD_ROWS) * (of_output + 4 * word * shape.head_channels)
    return of_blocks + of_stream + of_skips + of_head + _condition_bytes(config, model, size)


def _torch_bytes(config: Config, model: WaveNet, size: int, word: int) -> int:
    """Of one slice: what autograd keeps."""
    shape = config.model
    # a row of a block: h, its copies in the product's precision (one for each tap), tanh and sigmoid, and z
    copies = shape.kernel_size * word * shape.residual_channels if word == 2 else 0
    inside = 2 * word * shape.gate_channels if shape.activation == "gated" else 0  # of others it is z itself
    if shape.dropout and shape.activation != "gated":
        inside = word * shape.gate_channels  # z before and after
    kept = 0 if config.training.activation_checkpointing else copies + inside
    row = 4 * shape.residual_channels + word * shape.gate_channels + kept
    row += shape.gate_channels if shape.dropout else 0  # the mask
    # a target: concatenated z, skips, head, logits, their log-softmax and its gradient
    target = word * (len(shape.dilations) * shape.gate_channels + 2 * shape.skip_channels + 2 * shape.head_channels)
    target += (word + 8) * model.distribution.n_parameters
    of_rows = size * (_block_rows(config, model) * row + config.training.window_targets * target)
    return of_rows + _condition_bytes(config, model, size)


def _other_bytes(config: Config, model: Network, size: int, word: int) -> int:
    """Of one slice: what autograd keeps of a stack or a recurrent network."""
    targets = size * config.training.window_targets
    rows = targets + size * (model.receptive_field - 1)
    of_output = targets * (word + 8) * model.distribution.n_parameters
    if isinstance(model, Recurrent):
        gates = 4 if config.model.kind == "lstm" else 3
        kept = gates + 3  # of each step and layer: the gates, the products, the state before and after
        return of_output + rows * 4 * kept * config.model.recurrent_channels * config.model.recurrent_layers
    kept = 0  # of each layer what the zeros before a clip leave of its output, and what its own gradient needs
    for shape, width in zip(config.model.layers, layer_widths(config)[1:], strict=True):
        of_maximum = shape.kernel_size + 1 if shape.kind == "max_pool" else 0
        kept += width * (1 + of_maximum + (shape.activation != "none"))
    return of_output + rows * 4 * kept


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory could not be had, on whichever device."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
