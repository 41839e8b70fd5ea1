"""The optimizer: Muon for the matrices between the first layer and the last, AdamW for everything else.

Or AdamW or NAdam (Dozat, 2016) for all.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of a matrix's gradient
and makes all its singular values about 1 before it is applied, so that directions which are rarely seen are learnt as
fast as the common ones. AdamW: Loshchilov and Hutter, 2019.

Under weight normalization Muon moves the directions, whose decay changes nothing but how fast they turn, and AdamW the
gains, which do not decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wavegen.config import TrainingConfig
from wavegen.model.network import Network
from wavegen.model.recurrent import Recurrent
from wavegen.model.stack import ConvLayer, Stack
from wavegen.model.wavenet import WaveNet
from wavegen.model.weight_norm import trained_matrix
from wavegen.runs.checkpoint import Arrays

MUON_MOMENTUM = 0.95
# p(s) = a s + b s^3 + c s^5 sends singular values in (0, 1] to about 1 when it is applied five times (Jordan et al.)
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAM_BETAS = (0.9, 0.99)
NADAM_EPSILON = 1e-7


class Optimizer:
    """Updates a model's parameters from their gradients.

    Args:
        model: whose parameters are updated in place.
        settings: kind, rates and weight decay.
    """

    def __init__(self, model: Network, settings: TrainingConfig) -> None:
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        self.groups = _matrix_groups(model) if settings.optimizer == "muon" else []
        self.matrix_rate, self.rate = settings.matrix_learning_rate, settings.learning_rate
        self.weight_decay = settings.weight_decay
        grouped = {parameter for group in self.groups for parameter in group.parameters}
        entry = set(model.input.parameters())
        if model.conditioning is not None:  # what describes a label or a frame; the projection is a matrix like others
            entry |= set(model.conditioning.parameters()) - {model.conditioning.projection}
        rest = [parameter for parameter in model.parameters() if parameter not in grouped]
        decayed = [p for p in rest if p.dim() > 1 and p not in entry]
        free = [p for p in rest if p.dim() <= 1 or p in entry]
        adam_groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.adam: torch.optim.Optimizer
        if settings.optimizer == "nadam":
            self.adam = torch.optim.NAdam(adam_groups, lr=1.0, eps=NADAM_EPSILON, decoupled_weight_decay=True)
        else:
            self.adam = torch.optim.AdamW(adam_groups, lr=1.0, betas=ADAM_BETAS, fused=True)

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Update every parameter from its ``grad``.

        Args:
            factor: of the learning rates; the schedule's.
        """
        for group in self.adam.param_groups:
            group["lr"] = factor * self.rate
        self.adam.step()
        for matrices in self.groups:
            matrices.step(factor * self.matrix_rate, self.weight_decay)

    # --- state --------------------------------------------------------------------------------------------------

    def moments(self) -> tuple[Arrays, Arrays]:
        """The first and the second moment of each parameter that has one, copied."""
        first: Arrays = {}
        second: Arrays = {}
        for parameter, state in self.adam.state.items():
            first[self.names[parameter]] = _array(state["exp_avg"])
            second[self.names[parameter]] = _array(state["exp_avg_sq"])
        for group in self.groups:
            for parameter, momentum in zip(group.parameters, group.momentum, strict=True):
                first[self.names[parameter]] = _array(momentum)
        return first, second

    def restore(self, moments: tuple[Arrays, Arrays], updates: int) -> None:
        """Take over what ``moments`` returned after so many updates, but not another kind of optimizer's."""
        in_adam = {parameter for group in self.adam.param_groups for parameter in group["params"]}
        for parameter, name in self.names.items():
            if parameter in in_adam and name in moments[1]:
                fused = self.adam.defaults.get("fused")  # it counts its steps where the parameter lies, others here
                self.adam.state[parameter] = {
                    "step": torch.tensor(float(updates), device=parameter.device if fused else None),
                    "exp_avg": torch.from_numpy(moments[0][name].copy()).to(parameter.device),
                    "exp_avg_sq": torch.from_numpy(moments[1][name].copy()).to(parameter.device),
                }
                if isinstance(self.adam, torch.optim.NAdam):
                    self.adam.state[parameter]["mu_product"] = _momentum_product(self.adam, updates)
        for group in self.groups:
            for parameter, momentum in zip(group.parameters, group.momentum, strict=True):
                name = self.names[parameter]
                if name in moments[0] and name not in moments[1]:
                    momentum.copy_(torch.from_numpy(moments[0][name]))


def _momentum_product(nadam: torch.optim.NAdam, updates: int) -> Tensor:
    """The product of NAdam's momentum schedule over so many updates, rounded as it rounds it.

    mu[t] = beta1 (1 - 0.96^(t decay) / 2)        (Dozat, 2016, as torch.optim.NAdam has it)
    """
    (beta, _), decay = nadam.defaults["betas"], nadam.defaults["momentum_decay"]
    product = torch.ones(())
    for t in range(1, updates + 1):
        product *= beta * (1.0 - 0.5 * (0.96 ** (t * decay)))
    return product


@dataclass
class _MatrixGroup:
    """Parameters of one shape, each of which is one matrix or several.

    Args:
        parameters: all of one shape.
        cut: from (n, *shape) to (m, rows, columns).
        join: the inverse.
        scale: of the updates.
    """

    parameters: list[Tensor]
    cut: Callable[[Tensor], Tensor]
    join: Callable[[Tensor], Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        self.momentum = torch.zeros_like(torch.stack([parameter.detach() for parameter in self.parameters]))

    def step(self, rate: float, weight_decay: float) -> None:
        """Move along the orthogonalized momentum, with Nesterov's look ahead."""
        gradients = torch.stack([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self.momentum.lerp_(gradients, 1.0 - MUON_MOMENTUM)
        direction = orthogonalized(self.cut(gradients.lerp_(self.momentum, MUON_MOMENTUM)))
        rows, columns = direction.shape[1:]
        size = rate * self.scale * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(self.parameters, 1.0 - rate * weight_decay)
        torch._foreach_add_(self.parameters, list(self.join(direction).unbind()), alpha=-size)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices of the same singular vectors whose singular values are all near 1, by Newton and Schulz's iteration.

    They come out between 0.7 and 1.2; those below about 1/500 of the matrix's norm come out smaller.

        X <- a X + (b X X^T + c (X X^T)^2) X

    Args:
        matrices: (n, rows, columns).

    Returns:
        (n, rows, columns); zero where a matrix is zero.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    result: Tensor = x.mT if tall else x
    return result


def _matrix_groups(model: Network) -> list[_MatrixGroup]:
    """The matrices between the first layer and the last."""
    if isinstance(model, WaveNet):
        return _groups_of_wavenet(model)
    if isinstance(model, Stack):
        layers = [layer for layer in model.layers if isinstance(layer, ConvLayer)]
        inner = layers if list(model.input.parameters()) else layers[1:]
        return [_convolutions(layer.weight) for layer in inner]
    assert isinstance(model, Recurrent)
    width = model.recurrent.hidden_size
    matrices = [weight for name, weight in model.recurrent.named_parameters() if name.startswith("weight")]
    return [_stacked_matrices(weight, width) for weight in matrices]


def _convolutions(weight: Tensor) -> _MatrixGroup:
    """A convolution's taps side by side: one matrix of (outputs, taps * inputs)."""
    taps, outputs, inputs = weight.shape

    def cut(stacked: Tensor) -> Tensor:
        return stacked.transpose(1, 2).reshape(1, outputs, taps * inputs)

    def join(matrices: Tensor) -> Tensor:
        return matrices.view(1, outputs, taps, inputs).transpose(1, 2)

    return _MatrixGroup([weight], cut, join)


def _stacked_matrices(weight: Tensor, rows: int) -> _MatrixGroup:
    """Matrices of so many rows, one above the other."""

    def cut(stacked: Tensor) -> Tensor:
        return stacked.view(-1, rows, weight.shape[1])

    def join(matrices: Tensor) -> Tensor:
        return matrices.reshape(1, *weight.shape)

    return _MatrixGroup([weight], cut, join)


def _groups_of_wavenet(model: WaveNet) -> list[_MatrixGroup]:
    """A WaveNet's matrices: filters, gates, Wr, Ws and V of each block, and the head's first layer."""
    blocks = model.residual_blocks
    depth = len(blocks)
    taps, convolved, channels = trained_matrix(blocks[0].conv).shape
    parts = 2 if model.activation == "gated" else 1  # filter and gate are matrices of their own
    gates, skips = convolved // parts, model.skip.out_features

    def cut_convolutions(stacked: Tensor) -> Tensor:  # (n, taps, parts G, C) -> (parts n, G, taps C)
        apart = stacked.view(-1, taps, parts, gates, channels)
        return apart.permute(0, 2, 3, 1, 4).reshape(-1, gates, taps * channels)

    def join_convolutions(matrices: Tensor) -> Tensor:
        apart = matrices.reshape(-1, parts, gates, taps, channels)
        return apart.permute(0, 3, 1, 2, 4).reshape(-1, taps, convolved, channels)

    def cut_skips(stacked: Tensor) -> Tensor:  # (1, S, depth G) -> (depth, S, G)
        return stacked.view(skips, depth, gates).transpose(0, 1)

    def join_skips(matrices: Tensor) -> Tensor:
        return matrices.transpose(0, 1).reshape(1, skips, depth * gates)

    def same(matrices: Tensor) -> Tensor:
        return matrices

    def cut_projection(stacked: Tensor) -> Tensor:  # (1, depth parts G, channels) -> (depth parts, G, channels)
        return stacked.view(depth * parts, gates, -1)

    def join_projection(matrices: Tensor) -> Tensor:
        return matrices.reshape(1, depth * convolved, -1)

    projections = [] if model.conditioning is None else [model.conditioning.projection]
    residuals = [trained_matrix(block.residual) for block in blocks if block.residual is not None]
    return [
        _MatrixGroup([trained_matrix(block.conv) for block in blocks], cut_convolutions, join_convolutions),
        *([_MatrixGroup(residuals, same, same)] if residuals else []),
        # outputs of skips are added up
        _MatrixGroup([trained_matrix(model.skip)], cut_skips, join_skips, scale=depth**-0.5),
        _MatrixGroup([trained_matrix(model.head)], same, same),
        *(_MatrixGroup([projection], cut_projection, join_projection) for projection in projections),
    ]


def _array(tensor: Tensor) -> npt.NDArray[np.floating]:
    # copied: training goes on while the file is written
    array: npt.NDArray[np.floating] = tensor.detach().cpu().numpy().copy()
    return array


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale all gradients so that their norm is the limit at most; returns the norm that they had."""
    return float(torch.nn.utils.clip_grad_norm_(list(parameters), limit))
