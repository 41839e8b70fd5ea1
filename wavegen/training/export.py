"""A model for use: its averaged weights and its configuration, without the state and the clips of its training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.config import Config
from wavegen.errors import UsageError
from wavegen.model.shapes import check_weights, parameter_shapes
from wavegen.training.checkpoint import BFLOAT16, Checkpoint

EXPORT_PRECISIONS = ("float32", "bfloat16")


def for_use(checkpoint: Checkpoint, precision: str = "float32") -> Checkpoint:
    """What ``generate``, ``evaluate``, ``inspect`` and ``--init-from`` need of a checkpoint.

    The manifest of clips is left out, and with it the paths of the folder and of a list of held-out clips.

    Args:
        checkpoint: of a training.
        precision: of the matrices: float32, or bfloat16, to half the size. Vectors, such as biases, stay as they are.

    Raises:
        UsageError: there is no such precision.
        ModelError: the weights do not fit the configuration, or are not finite.
    """
    if precision not in EXPORT_PRECISIONS:
        raise UsageError(f"--precision: expected one of {', '.join(EXPORT_PRECISIONS)}, found '{precision}'")
    check_weights(checkpoint.average, parameter_shapes(checkpoint.config))
    average = dict(checkpoint.average)
    if precision == "bfloat16":
        average = {name: _narrowed(array) if array.ndim > 1 else array for name, array in average.items()}
    config = checkpoint.config.with_values("data", folder=None)
    if isinstance(config.data.validation, str):
        config = config.with_values("data", validation=Config().data.validation)
    return replace(checkpoint, config=config, weights={}, average=average, moments=({}, {}), manifest=[])


def _narrowed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from wavegen.sampling.engines.packing import round_to_bfloat16

    return round_to_bfloat16(array.astype(np.float32)).view(BFLOAT16)
