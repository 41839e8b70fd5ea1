"""The naive engine: a whole forward pass over the receptive field for every sample. Slow, and obviously right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavegen.data.conditioning import ClipCondition
from wavegen.device import torch_threads
from wavegen.model.conditioning import Condition
from wavegen.model.network import Network
from wavegen.model.outputs import Truncation
from wavegen.sampling.engines.engine import ClassArray, not_finite


class ReferenceEngine:
    """Implements ``Engine`` by the model's teacher-forced forward pass alone.

    Args:
        model: on the device to run on.
    """

    def __init__(self, model: Network) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.past = torch.empty(0, 0, dtype=torch.int64)
        self.conditions: Sequence[ClipCondition | None] = []
        self.n_made = 0

    @property
    def receptive_field(self) -> int:
        return self.model.receptive_field

    def padding(self, silence: int) -> int:
        return self.model.padding(silence)

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def start(self, past: ClassArray, conditions: Sequence[ClipCondition] | None = None) -> None:
        self.conditions, self.n_made = conditions or [None] * len(past), 0
        newest = past if self.model.has_memory else past[:, -self.receptive_field :]
        self.past = torch.from_numpy(newest.copy()).to(self.device)

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def generate(self, uniforms: npt.NDArray[np.float64], truncation: Truncation) -> ClassArray:
        numbers = torch.from_numpy(uniforms).to(self.device)
        drawn = [self._take(self.model.distribution.draw(self._logits(), u, truncation)) for u in numbers.unbind(dim=1)]
        return torch.stack(drawn, dim=1).cpu().numpy()

    @torch_threads(1)  # a step is too small to share out, and sharing would change its rounding
    def force(self, classes: ClassArray) -> npt.NDArray[np.float32]:
        logits = []
        for sample in torch.from_numpy(classes).to(self.device).unbind(dim=1):
            logits.append(self._logits())
            self._take(sample)
        return torch.stack(logits, dim=1).cpu().numpy()

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        # one stream at a time: a product's rounding depends on its shape, a clip's audio must not
        streams = zip(self.past, self.conditions, strict=True)
        logits = torch.cat([self._one(stream, condition) for stream, condition in streams])
        if not bool(torch.isfinite(logits).all()):
            raise not_finite()
        return logits

    def _one(self, past: Tensor, condition: ClipCondition | None) -> Tensor:
        seen = None
        if condition is not None:
            # the rows that the steps of the receptive field see: step t predicts the sample after it
            rows = condition.rows(self.n_made - self.receptive_field + 1, self.n_made + 1)
            seen = Condition.of([rows], self.device)
        # (1, T - receptive_field + 1, n_parameters): the last position predicts the next sample
        logits: Tensor = self.model(past[None], condition=seen)[:, -1]
        return logits.float()

    def _take(self, sample: Tensor) -> Tensor:
        self.n_made += 1
        self.past = torch.cat([self.past[:, 0 if self.model.has_memory else 1 :], sample[:, None]], dim=1)
        return sample
