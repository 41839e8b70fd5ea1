"""The optimizer: Muon for the matrices between the first layer and the last, AdamW for everything else.

Or AdamW or NAdam (Dozat, 2016) for all.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of a matrix's gradient
and makes all its singular values about 1 before it is applied, so that directions which are rarely seen are learnt as
fast as the common ones. AdamW: Loshchilov and Hutter, 2019.

Under weight normalization Muon moves the directions, whose decay changes nothing but how fast they turn, and AdamW the
gains, which do not decay.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wavegen.config import TrainingConfig
from wavegen.model.network import MatrixGroup, Network
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
        self.groups = [_Muon(group) for group in model.matrix_groups()] if settings.optimizer == "muon" else []
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


class _Muon:
    """Moves the matrices of one group, with a momentum for each parameter."""

    def __init__(self, group: MatrixGroup) -> None:
        self.group, self.parameters = group, group.parameters
        self.momentum = torch.zeros_like(torch.stack([parameter.detach() for parameter in self.parameters]))

    def step(self, rate: float, weight_decay: float) -> None:
        """Move along the orthogonalized momentum, with Nesterov's look ahead."""
        gradients = torch.stack([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        self.momentum.lerp_(gradients, 1.0 - MUON_MOMENTUM)
        direction = orthogonalized(self.group.cut(gradients.lerp_(self.momentum, MUON_MOMENTUM)))
        rows, columns = direction.shape[1:]
        size = rate * self.group.scale * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(self.parameters, 1.0 - rate * weight_decay)
        torch._foreach_add_(self.parameters, list(self.group.join(direction).unbind()), alpha=-size)


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


def _array(tensor: Tensor) -> npt.NDArray[np.floating]:
    # copied: training goes on while the file is written
    array: npt.NDArray[np.floating] = tensor.detach().cpu().numpy().copy()
    return array


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale all gradients so that their norm is the limit at most; returns the norm that they had."""
    return float(torch.nn.utils.clip_grad_norm_(list(parameters), limit))
