"""A step of training: gradients, clipping, the optimizer's update and the running average; on CUDA as one graph.

Nothing here waits for the device. Whether a step counts is decided by arithmetic on the device itself, and its loss is
read when the next step has been launched.

The optimizer is Muon for the matrices between the first layer and the last, and AdamW for everything else; or AdamW or
NAdam (Dozat, 2016) for all.

Muon (K. Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of a matrix's gradient
and makes all its singular values about 1 before it is applied, so that directions which are rarely seen are learnt as
fast as the common ones. AdamW: Loshchilov and Hutter, 2019.

Under weight normalization Muon moves the directions, whose decay changes nothing but how fast they turn, and AdamW the
gains, which do not decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from wavegen.config.schema import TrainingConfig
from wavegen.data.windows import Batch
from wavegen.device import is_out_of_memory, read_later, torch_threads, upload
from wavegen.model.network import MatrixGroup, Network
from wavegen.runs.checkpoint import Arrays
from wavegen.training.backends import Backend, TorchBackend

STEPS_BEFORE_CAPTURE = 3  # in which libraries initialize, and memory is laid out
MUON_MOMENTUM = 0.95
# p(s) = a s + b s^3 + c s^5 sends singular values in (0, 1] to about 1 when it is applied five times. The coefficients
# maximize the slope a at 0, so that small values grow fastest (Jordan et al., "Muon", 2024).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
ADAM_BETAS = (0.9, 0.99)
NADAM_EPSILON = 1e-7


class Launched(NamedTuple):
    """A step whose result is not read yet.

    Attributes:
        step: its number, from 1.
        read: waits for its loss, in nats, and the norm of its gradients.
        n_targets: of the whole batch.
        rate: its learning rate.
        began: when it was launched.
    """

    step: int
    read: Callable[[], list[float]]
    n_targets: int
    rate: float
    began: float


class Step:
    """A step of training.

    Args:
        model: to train.
        backend: computes its gradients.
        settings: of the optimizer, clipping and averaging.

    Attributes:
        average: a network whose weights are the running average of the model's.
    """

    def __init__(self, model: Network, backend: Backend, settings: TrainingConfig) -> None:
        self.model, self.backend, self.settings = model, backend, settings
        self.average = model.copy().requires_grad_(False)
        self.optimizer = Optimizer(model, settings)
        self.device = next(model.parameters()).device
        self.updates = torch.zeros((), device=self.device)  # steps that counted

    def __call__(self, batch: Batch, n_targets: int, factor: float) -> Callable[[], list[float]]:
        """Make a step, which counts if its loss and gradients are finite.

        Args:
            batch: this process's windows of the batch.
            n_targets: the real targets of all of it.
            factor: of the learning rates.

        Returns:
            A function that waits for the step's loss, in nats, and the norm of its gradients.
        """
        loss, gradients = self.backend.gradients(batch, n_targets)
        # Muon's products are small: threads that share them on a machine with other work took 2.5 s a step where one
        # thread took 21 ms. Without other work one thread makes a step of `paper` 2% slower.
        with torch_threads(1):
            return read_later(self.update(loss, gradients, factor))

    @torch.no_grad()
    def update(self, loss: float | Tensor, gradients: Sequence[Tensor], factor: float | Tensor) -> Tensor:
        """Update weights and average from a loss and its gradients; return the loss and the gradients' norm, (2,)."""
        for parameter, gradient in zip(self.model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        # g <- g min(1, limit / |g|), over all parameters together
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or math.inf)
        result = torch.stack([torch.as_tensor(loss, dtype=norm.dtype, device=norm.device), norm])
        counts = result.isfinite().all()  # else the step is skipped: one nan in a moment would stay for good
        self.optimizer.step(factor, counts)
        # counted in updates, not in steps: a skipped step does not age the average
        self.updates += counts
        update_ema(self.average, self.model, self.settings.ema_decay, self.updates, counts)
        return result

    def restore(self, moments: Any, updates: int) -> None:
        """Restore the optimizer's moments and the number of updates."""
        self.optimizer.restore(moments, updates)
        self.updates.fill_(updates)  # in place: a captured graph counts in this very tensor


class GraphStep(Step):
    """A step that is captured as a CUDA graph after its first calls, and replayed: a thousand kernels, one launch.

    Shapes stay as they are from step to step, as the windows of a training do.

    Args:
        model, backend, settings: as ``Step``'s.
        notice: called with the reason if the step cannot be captured; then kernels are launched one by one.
    """

    backend: TorchBackend

    def __init__(
        self, model: Network, backend: TorchBackend, settings: TrainingConfig, notice: Callable[[str], None]
    ) -> None:
        super().__init__(model, backend, settings)
        self.notice, self.n_calls = notice, 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Any] = []  # that the graph reads; None and numbers stay among them
        self.result: Tensor | None = None  # that it writes

    def __call__(self, batch: Batch, n_targets: int, factor: float) -> Callable[[], list[float]]:
        """See ``Step``."""
        # as a tensor: plain numbers would be those of the captured step, in every replay
        numbers = upload(torch.tensor([n_targets, factor], dtype=torch.float32), self.device)
        given, structure = pytree.tree_flatten((self.backend.upload(batch), numbers))

        def step() -> Tensor:
            slices, (n, rate) = pytree.tree_unflatten(self.inputs, structure)
            return self.update(*self.backend.differentiate(slices, n), rate)

        self.n_calls += 1
        if self.n_calls == STEPS_BEFORE_CAPTURE + 1:
            self.inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in given]
            self._capture(step)
        if self.graph is None:
            self.inputs = given
            return read_later(step())
        # a graph reads the addresses that it was captured with: each batch is copied to them
        for buffer, leaf in zip(self.inputs, given, strict=True):
            if isinstance(buffer, Tensor):
                buffer.copy_(leaf)
        self.graph.replay()
        assert self.result is not None
        return read_later(self.result)

    def _capture(self, step: Callable[[], Tensor]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.result = step()
            self.graph = graph
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            self.notice(f"the step is not captured as a CUDA graph ({reason}): it takes longer")


def build_step(
    model: Network, backend: Backend, settings: TrainingConfig, notice: Callable[[str], None], alone: bool = True
) -> Step:
    """Build the step of a training: captured on CUDA, where nothing in it waits and no other process takes part."""
    # NAdam decides on the host whether a step counts, and an all-reduce waits for other processes: no graph has that
    device = next(model.parameters()).device
    if device.type == "cuda" and alone and settings.optimizer != "nadam" and isinstance(backend, TorchBackend):
        return GraphStep(model, backend, settings, notice)
    return Step(model, backend, settings)


# --- the optimizer --------------------------------------------------------------------------------------------


class Optimizer:
    """Update a model's parameters from their gradients.

        AdamW, NAdam   w <- w - rate (m / (sqrt(v) + eps) + decay w)
        Muon           w <- w - rate (scale orthogonalized(m) + decay w)

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
        # Decay is for matrices between layers. Biases, gains and the tables that describe a class, a label or a frame
        # are free: a row that is seldom looked up would decay at every step, and be learnt at few.
        entry = set(model.input.parameters())
        if model.conditioning is not None:  # the projection is a matrix like others
            entry |= set(model.conditioning.parameters()) - {model.conditioning.projection}
        rest = [parameter for parameter in model.parameters() if parameter not in grouped]
        decayed = [p for p in rest if p.dim() > 1 and p not in entry]
        free = [p for p in rest if p.dim() <= 1 or p in entry]
        adam_groups = [{"params": decayed, "weight_decay": self.weight_decay}, {"params": free, "weight_decay": 0.0}]
        self.adam: torch.optim.Optimizer
        # lr is set at each step; `fused` updates all parameters in one pass over their memory
        if settings.optimizer == "nadam":
            momentum = settings.momentum_decay
            self.adam = torch.optim.NAdam(
                adam_groups, lr=1.0, eps=NADAM_EPSILON, momentum_decay=momentum, decoupled_weight_decay=True
            )
        else:
            on_cuda = next(model.parameters()).device.type == "cuda"
            self.adam = torch.optim.AdamW(adam_groups, lr=1.0, betas=ADAM_BETAS, fused=True, capturable=on_cuda)

    @torch.no_grad()
    def step(self, factor: float | Tensor, counts: Tensor | None = None) -> None:
        """Update every parameter from its ``grad``.

        Args:
            factor: of the learning rates; the schedule's.
            counts: () bool; where it is False nothing changes, though the gradients may not be finite. None for True.
        """
        if counts is not None and isinstance(self.adam, torch.optim.NAdam):
            if not bool(counts):  # waits for the device: NAdam cannot skip an update by arithmetic
                return
        else:  # torch's fused AdamW leaves a step out where this is 1
            self.adam.found_inf = None if counts is None else 1.0 - counts.float()  # type: ignore[attr-defined]
        for group in self.adam.param_groups:
            group["lr"] = factor * self.rate
        self.adam.step()
        for matrices in self.groups:
            matrices.step(factor * self.matrix_rate, self.weight_decay, counts)

    # --- state --------------------------------------------------------------------------------------------------

    def moments(self) -> tuple[Arrays, Arrays]:
        """Return the first and the second moment of each parameter that has one, copied.

        AdamW and NAdam have both; Muon's momentum is a first moment without a second.
        """
        first: Arrays = {}
        second: Arrays = {}
        for parameter, state in self.adam.state.items():
            first[self.names[parameter]] = copied(state["exp_avg"])
            second[self.names[parameter]] = copied(state["exp_avg_sq"])
        for group in self.groups:
            for parameter, momentum in zip(group.parameters, group.momentum, strict=True):
                first[self.names[parameter]] = copied(momentum)
        return first, second

    def restore(self, moments: tuple[Arrays, Arrays], updates: int) -> None:
        """Restore what ``moments`` returned; moments of another kind of optimizer are ignored."""
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
    """Return the product of NAdam's momentum schedule over the first updates, rounded as NAdam rounds it.

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

    def step(self, rate: float | Tensor, weight_decay: float, counts: Tensor | None = None) -> None:
        """Move along the orthogonalized momentum, with Nesterov's look ahead."""
        # (n, *shape): parameters of one shape are one batch of matrix products
        gradients = torch.stack([parameter.grad for parameter in self.parameters if parameter.grad is not None])
        if counts is not None:  # m <- m + (1 - mu) (m - m), and a rate of 0: as if there had been no step
            gradients, rate = torch.where(counts, gradients, self.momentum), rate * counts
        # m <- mu m + (1 - mu) g, then Nesterov's look ahead: the direction is mu m + (1 - mu) g again
        self.momentum.lerp_(gradients, 1.0 - MUON_MOMENTUM)
        direction = orthogonalized(self.group.cut(gradients.lerp_(self.momentum, MUON_MOMENTUM)))
        rows, columns = direction.shape[1:]
        # An orthogonal matrix of more rows than columns has entries of mean square 1/rows: sqrt(rows / columns) gives
        # outputs of all shapes a change of the same size (Jordan et al.)
        size = rate * self.group.scale * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(self.parameters, 1.0 - rate * weight_decay)
        torch._foreach_sub_(self.parameters, list(self.group.join(direction * size).unbind()))


def orthogonalized(matrices: Tensor) -> Tensor:
    """Replace all singular values of matrices by about 1, by the Newton-Schulz iteration.

    They come out between 0.7 and 1.2; those below about 1/500 of the matrix's norm come out smaller.

        X <- a X + (b X X^T + c (X X^T)^2) X

    Args:
        matrices: (n, rows, columns).

    Returns:
        (n, rows, columns); zero where a matrix is zero.
    """
    a, b, c = NEWTON_SCHULZ
    # X X^T is the smaller square matrix when X is wide
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    # the Frobenius norm bounds the largest singular value: all are in (0, 1]; of a zero matrix 1e-12 keeps 0
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT  # (n, r, r), r = min(rows, columns)
        x = a * x + torch.baddbmm(square, square, square, beta=b, alpha=c) @ x
    result: Tensor = x.mT if tall else x
    return result


def copied(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array of its own: training continues while a file is written."""
    return tensor.detach().cpu().numpy().copy()


def schedule_factor(step: int, settings: TrainingConfig, total_steps: int) -> float:
    """Return a step's share of the peak learning rates: a linear warm-up, then half a cosine down to 0, or constant.

        warm-up  (step + 1) / (warmup_steps + 1)
        cosine   (1 + cos(pi p)) / 2,   p = (step + 1/2 - warmup_steps) / (total_steps - warmup_steps)

    Args:
        step: from 0.
        settings: its warm-up, and the schedule that follows.
        total_steps: where the cosine ends.

    Returns:
        A number in (0, 1]; never exactly 0, so that the last step still counts.
    """
    warmup_steps = settings.warmup_steps
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    if settings.schedule == "constant":
        return warmup
    progress = min(1.0, max(0.0, (step + 0.5 - warmup_steps) / max(1, total_steps - warmup_steps)))
    # cos^2(pi p / 2) = (1 + cos(pi p)) / 2, but does not round to 0 at the end of a long training
    return warmup * math.cos(0.5 * math.pi * progress) ** 2


@torch.no_grad()
def update_ema(average: Network, model: Network, decay: float, updates: Tensor, counts: Tensor) -> None:
    """Move the averaged weights towards the trained ones.

        average[n] = sum_i decay^(n-i) w[i] / sum_i decay^(n-i)        (bias-corrected, as Adam's moments:
                                                                        Kingma and Ba, 2015, section 3)

    Args:
        average: moved in place; validation, auditions and everything after training use it.
        model: the trained weights after this update.
        decay: of the weights' age, in updates.
        updates: () n, counted from 1.
        counts: () bool; where it is False the average stays.
    """
    # average[n] = average[n-1] + share (w[n] - average[n-1]): the first update takes the weights as they are (share 1)
    log_decay = math.log(decay) if decay else -math.inf
    share = counts * (1.0 - decay) / -torch.expm1(updates.clamp_min(1) * log_decay)
    torch._foreach_mul_(list(average.parameters()), 1.0 - share)
    torch._foreach_add_(list(average.parameters()), torch._foreach_mul(list(model.parameters()), share))
