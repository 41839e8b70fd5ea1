"""The precisions of training's matrix products on each device, float16's loss scale, and a device's own errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from wavegen.device import is_out_of_memory
from wavegen.errors import TrainingError, UsageError

ComputePrecision = Literal["float32", "tf32", "bfloat16", "float16"]

AUTOCAST: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BFLOAT16_CAPABILITY = (8, 0)  # CUDA's, of the first cards with bfloat16 and TF32
# float16's smallest normal number is 6e-5: gradients are computed of the loss times a scale, which grows until they
# overflow (Micikevicius et al., 2018, "Mixed Precision Training", section 3.2)
FIRST_LOSS_SCALE, SCALE_GROWTH, SCALE_BACKOFF, SCALE_INTERVAL = 2.0**14, 2.0, 0.5, 1000


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


def is_half(precision: str) -> bool:
    """Return whether the numbers of a precision have 16 bits."""
    return precision in AUTOCAST


@contextmanager
def products_in(device: torch.device, precision: str) -> Iterator[None]:
    """Compute float32 matrix products, forward and backward, with ten bits of mantissa (TF32) if that is wanted."""
    if device.type != "cuda":
        yield
        return
    products = torch.backends.cuda.matmul
    # ieee: all 24 bits of mantissa; the setting is the process's, so it is put back
    before, products.fp32_precision = products.fp32_precision, "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        products.fp32_precision = before


class LossScale:
    """The factor of the loss with which float16 gradients neither vanish nor overflow; it lies on the device.

    Args:
        device: of the gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((1,), FIRST_LOSS_SCALE, device=device)
        self.steps_since_change = torch.zeros(1, dtype=torch.int32, device=device)

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the scale, in place, and adapt it: halved after an overflow, doubled after a while."""
        overflow = torch.zeros_like(self.scale)
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), overflow, self.scale.reciprocal())
        torch._amp_update_scale_(
            self.scale, self.steps_since_change, overflow, SCALE_GROWTH, SCALE_BACKOFF, SCALE_INTERVAL
        )


@contextmanager
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
