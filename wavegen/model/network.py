"""What every kind of model is to the rest: a network that predicts each sample from those before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from wavegen.model.conditioning import Condition, Conditioning
from wavegen.model.layers import EmbeddingInput, OneHotInput
from wavegen.model.outputs import Distribution
from wavegen.model.shapes import check_weights


class Network(nn.Module, ABC):
    """A model of sound, teacher-forced.

    Args:
        classes: levels of the input.
        distribution: of a sample, whose parameters the network puts out.
    """

    input: nn.Module

    def __init__(self, classes: int, distribution: Distribution) -> None:
        super().__init__()
        self.classes = classes
        self.distribution = distribution
        self.conditioning: Conditioning | None = None

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Samples of past that a window holds before its first target; a prediction sees no more, or has a memory."""

    @property
    def has_memory(self) -> bool:
        """Whether a prediction depends on all of the past, by a state that is carried along."""
        return False

    def padding(self, silence: int) -> int:
        """The class that stands before a clip's start, given that of silence."""
        return silence

    @property
    def before_series(self) -> float:
        """The value that stands before a series' start, as the network sees it."""
        return 0.0

    @property
    def n_parameters(self) -> int:
        """Numbers that training fits."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds to generate one sample with queues: one for every weight of a matrix.

        The products of conditions are left out: they are made ahead, once for a label or a mel frame's row.
        """
        left_out = set(self.input.parameters()) if isinstance(self.input, EmbeddingInput | OneHotInput) else set()
        if self.conditioning is not None:
            left_out |= set(self.conditioning.parameters())
        return sum(p.numel() for p in self.parameters() if p.dim() > 1 and p not in left_out)

    @abstractmethod
    def forward(self, inputs: Tensor, condition: Condition | None = None) -> Tensor:
        """Predict every next sample from true past samples (teacher forcing).

        Args:
            inputs: (B, T) integer classes x[0..T-1], T >= receptive_field.
            condition: of a conditioned network: what each step sees, step t being the one that predicts x[t + 1].

        Returns:
            (B, T - receptive_field + 1, n_parameters): at position i the parameters of the distribution of
            x[i + receptive_field].

        Raises:
            ValueError: T is less than the receptive field, or a condition is missing.
        """

    def check_length(self, steps: int) -> None:
        """Make sure that there are enough inputs for one prediction.

        Raises:
            ValueError: there are not.
        """
        if steps < self.receptive_field:
            raise ValueError(f"expected {self.receptive_field} steps or more, found {steps}")


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy arrays into a model's parameters, all of them.

    Raises:
        ModelError: a name or a shape does not fit, or a weight is not finite.
    """
    parameters = dict(model.named_parameters())
    check_weights(weights, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    for name, parameter in parameters.items():
        parameter.copy_(torch.from_numpy(weights[name].copy()))
