"""The protocol that every kind of model implements: a network that predicts each sample from those before it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy.typing as npt
import torch
from torch import Tensor, nn

from wavegen.config.schema import ModelConfig
from wavegen.model.layers import Condition, Conditioning, EmbeddingInput
from wavegen.model.outputs import Distribution

State = tuple[Tensor, ...]  # what a network carries from one stretch of a clip to the next
Forward = Callable[[Tensor, Condition | None], Tensor]  # as `Network.forward`


class SliceShape(NamedTuple):
    """A slice of a training batch, as far as its memory depends on it.

    Attributes:
        windows: in the slice.
        targets: of each window.
        word: bytes of a number in the matrix products: 4 or 2.
        fused: computed by the fused backend, not by autograd.
        recompute: activation checkpointing.
        dropout: whether blocks' outputs are left out.
        condition_rows: that the condition of a window has; 0 without conditions.
    """

    windows: int
    targets: int
    word: int
    fused: bool
    recompute: bool
    dropout: bool
    condition_rows: int


class MatrixGroup(NamedTuple):
    """Parameters of one shape that Muon moves, each of which is one matrix or several.

    Attributes:
        parameters: n of them, all of one shape.
        axes: sizes that the shape is split into; empty for a matrix as it is.
        rows: the axis that counts the rows of a matrix.
        columns: the axes that count its columns; those left over count matrices.
        scale: of the updates.
    """

    parameters: list[Tensor]
    axes: tuple[int, ...] = ()
    rows: int = 0
    columns: tuple[int, ...] = (1,)
    scale: float = 1.0

    def cut(self, stacked: Tensor) -> Tensor:
        """Return the matrices, (m, rows, columns), of the stacked parameters, (n, *shape)."""
        axes, order = self._order()
        apart = stacked.view(-1, *axes).permute(0, *(1 + axis for axis in order))
        return apart.flatten(-len(self.columns)).flatten(0, -3)

    def join(self, matrices: Tensor) -> Tensor:
        """Return the stacked parameters of their matrices, the inverse of ``cut``."""
        axes, order = self._order()
        apart = matrices.reshape(-1, *(axes[axis] for axis in order))
        back = (1 + order.index(axis) for axis in range(len(axes)))
        return apart.permute(0, *back).reshape(-1, *self.parameters[0].shape)

    def _order(self) -> tuple[tuple[int, ...], list[int]]:
        axes = self.axes or tuple(self.parameters[0].shape)
        of_matrix = [self.rows, *self.columns]
        return axes, [axis for axis in range(len(axes)) if axis not in of_matrix] + of_matrix


@dataclass(frozen=True)
class LayerFacts:
    """A layer between the input and the output, as `wavegen inspect` shows it.

    Attributes:
        name: of its kind.
        kernel_size: taps; None for a recurrent layer, which sees all of the past.
        dilation: steps between taps; None likewise.
    """

    name: str
    kernel_size: int | None
    dilation: int | None


class QueueStep(Protocol):
    """A network as a dense network that takes one sample at a time, for some streams side by side.

    A convolution needs its own inputs of dilation, 2 dilation, ... steps ago. Each keeps the last ``reach`` of them in
    a ring buffer, so that the cost of a sample does not depend on the receptive field (Le Paine et al., 2016, "Fast
    Wavenet Generation Algorithm"). A recurrent layer keeps its state. All that a step changes lies in buffers that
    never move, so that a step can be captured as a CUDA graph.
    """

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """All tensors that a step changes."""

    @property
    def gate_bias(self) -> Tensor | None:
        """(B, blocks, outputs of a convolution) what conditions add in the next step: to be filled before it."""

    def __call__(self, newest: Tensor) -> Tensor:
        """Feed the newest sample of each stream, (B,); return the next one's parameters, (B, n_parameters) float32."""


class Network(nn.Module, ABC):
    """A model of sound, teacher-forced.

    Args:
        classes: levels of the input; 0 where it is a series of values.
        distribution: of a sample, whose parameters the network puts out.
        model: the section of the configuration, valid.
    """

    runs_fused: ClassVar[bool] = False  # by the fused engine, and by the fused training backend
    positions = slice(0, None, 1)  # of a series at which it forecasts; with strides not every one
    input: nn.Module

    def __init__(self, classes: int, distribution: Distribution, model: ModelConfig) -> None:
        super().__init__()
        self.config = model
        self.classes = classes
        self.distribution = distribution
        self.conditioning: Conditioning | None = None

    # --- description ---------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def receptive_field(self) -> int:
        """Samples of past that a window holds before its first target; a prediction sees no more, or has a memory."""

    @property
    def has_memory(self) -> bool:
        """True if the network is recurrent: a prediction depends on all of the past."""
        return False

    def padding(self, silence: int) -> int:
        """Return the class that stands before a clip's start, given that of silence."""
        return silence

    @property
    def before_series(self) -> float:
        """The value that stands before a series' start, as the network sees it."""
        return 0.0

    @property
    def padding_steps(self) -> int:
        """Values that stand before a series' start; none with strides, where forecasts begin later."""
        return self.receptive_field - 1 if self.positions.step == 1 else 0

    @property
    def n_parameters(self) -> int:
        """Numbers that training fits."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds to generate one sample with queues: one for every weight of a matrix.

        The products of conditions are left out: they are made ahead, once for a label or a frame's row.
        """
        left_out = set(self.input.parameters()) if isinstance(self.input, EmbeddingInput) else set()
        if self.conditioning is not None:
            left_out |= set(self.conditioning.parameters())
        return sum(p.numel() for p in self.parameters() if p.dim() > 1 and p not in left_out)

    @abstractmethod
    def describe(self) -> str:
        """Describe the network's kind and size in a few words."""

    @abstractmethod
    def layer_facts(self) -> list[LayerFacts]:
        """Describe each layer between the input and the output, the lowest first."""

    # --- computing ----------------------------------------------------------------------------------------------

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

    def advance(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Predict as ``forward``, in stretches: each begins where the one before it ended.

        Args:
            inputs: (B, T); in the first stretch T >= receptive_field.
            state: that the stretch before returned; None in the first.

        Returns:
            (B, T, n_parameters), in the first stretch (B, T - receptive_field + 1, n_parameters); and the state.
        """
        # (B, receptive_field - 1) + (B, T): as many predictions as new inputs
        seen = inputs if state is None else torch.cat([state[0], inputs], dim=1)
        return self(seen), (seen[:, seen.shape[1] - (self.receptive_field - 1) :],)

    @abstractmethod
    def queue_step(self, past: Tensor, condition: Condition | None = None) -> QueueStep:
        """Build the step that continues some streams.

        Args:
            past: (B, T) classes, the newest last, T >= receptive_field; of a recurrent network all of the past.
            condition: of a conditioned network: what the steps of the past saw.
        """

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the parameters as arrays, by name."""
        return {name: parameter.detach().cpu().numpy() for name, parameter in self.named_parameters()}

    def copy(self) -> Self:
        """Return a copy with weights of its own."""
        other = deepcopy(self)
        for module in other.modules():
            if isinstance(module, nn.RNNBase):  # cuDNN wants one piece of memory, which deepcopy cuts
                module.flatten_parameters()
        return other

    def scorers(self, n: int) -> Sequence[Forward]:
        """Return up to n functions that compute ``forward`` without gradients, to be used by a thread each."""
        return [self] * n

    # --- training -----------------------------------------------------------------------------------------------

    @abstractmethod
    def matrix_groups(self) -> list[MatrixGroup]:
        """Return the matrices between the first layer and the last, which Muon moves."""

    @abstractmethod
    def activation_bytes(self, part: SliceShape) -> int:
        """Estimate what training keeps of a slice of a batch until its backward pass, in bytes."""

    def dropout_shapes(self, n_steps: int) -> list[tuple[int, int]]:  # noqa: ARG002
        """Return (steps, channels) of each output that dropout acts on, for a window of ``n_steps`` input steps."""
        return []

    def check_length(self, steps: int) -> None:
        """Make sure that there are enough inputs for one prediction.

        Raises:
            ValueError: there are not.
        """
        if steps < self.receptive_field:
            raise ValueError(f"expected {self.receptive_field} steps or more, found {steps}")
