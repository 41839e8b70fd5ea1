"""A model for use: its averaged weights and its configuration, without the state and the clips of its training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.errors import UsageError
from wavegen.model.building import parameter_shapes
from wavegen.model.shapes import check_weights, fold_weight_norm
from wavegen.runs.checkpoint import BFLOAT16, Checkpoint
from wavegen.text import printable

EXPORT_PRECISIONS = ("float32", "bfloat16")


def goes_to_onnx(path: Path, precision: str) -> bool:
    """Return whether a file's name asks for a step in ONNX, and not for a checkpoint.

    Raises:
        UsageError: it asks for neither, or there is no such precision of what it asks for.
    """
    if path.suffix not in (".safetensors", ".onnx"):
        raise UsageError(f"{printable(path)}: expected a name that ends in .safetensors or .onnx")
    _check_precision(precision)
    if path.suffix == ".onnx" and precision != "float32":
        raise UsageError(f"--precision {precision}: an ONNX step has float32 only; leave it out")
    return path.suffix == ".onnx"


def for_use(checkpoint: Checkpoint, precision: str = "float32") -> Checkpoint:
    """Return what ``generate``, ``evaluate``, ``inspect`` and ``--init-from`` need of a checkpoint.

    Weight normalization is folded into plain weights. The manifest of clips is left out, and with it the paths of the
    folder and of a list of held-out clips.

    Args:
        checkpoint: of a training.
        precision: of the matrices: float32, or bfloat16, to half the size. Vectors, such as biases, stay as they are.

    Raises:
        UsageError: there is no such precision.
        ModelError: the weights do not fit the configuration, or are not finite.
    """
    _check_precision(precision)
    check_weights(checkpoint.average, parameter_shapes(checkpoint.config))
    checkpoint = fold_checkpoint(checkpoint)
    average = dict(checkpoint.average)
    if precision == "bfloat16":
        average = {name: _narrowed(array) if array.ndim > 1 else array for name, array in average.items()}
    config = checkpoint.config.with_values("data", folder=None)
    if isinstance(config.data.validation, str):
        config = config.with_values("data", validation=Config().data.validation)
    return replace(checkpoint, config=config, weights={}, average=average, moments=({}, {}), manifest=[])


def fold_checkpoint(checkpoint: Checkpoint) -> Checkpoint:
    """Return the same model with plain averaged weights instead of directions and gains, without torch.

    Checkpoints of a training keep what it trains, to be resumed exactly; all that uses a model has plain weights.
    """
    if not checkpoint.config.model.weight_norm:
        return checkpoint
    config = checkpoint.config.with_values("model", weight_norm=False)
    return replace(checkpoint, config=config, average=fold_weight_norm(checkpoint.average))


def _check_precision(precision: str) -> None:
    if precision not in EXPORT_PRECISIONS:
        raise UsageError(f"--precision: expected one of {', '.join(EXPORT_PRECISIONS)}, found '{precision}'")


def _narrowed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from wavegen.sampling.engines.packing import round_to_bfloat16

    return round_to_bfloat16(array.astype(np.float32)).view(BFLOAT16)
