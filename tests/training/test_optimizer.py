"""Muon against its definition by singular values, and AdamW for the rest."""

import numpy as np
import pytest
import torch

from wavegen.config.schema import TrainingConfig
from wavegen.training.step import ADAM_BETAS, MUON_MOMENTUM, Optimizer, orthogonalized

MATRICES = ("conv.weight", "residual.weight", "skip.weight", "head.weight")


def settings(**values):
    plain = {"steps": 10, "learning_rate": 0.01, "matrix_learning_rate": 0.1, "weight_decay": 0.0}
    return TrainingConfig(**{**plain, **values})


def random_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 4, 9), (2, 9, 4), (1, 1, 7), (1, 64, 64)], ids=str)
def test_orthogonalized_keeps_the_singular_vectors_and_evens_out_the_values(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    values = u.mT @ orthogonalized(matrices) @ v.mT
    diagonal = torch.diagonal(values, dim1=1, dim2=2)
    torch.testing.assert_close(values, torch.diag_embed(diagonal), rtol=0, atol=1e-9)
    if min(shape[1:]) < 20:  # the smallest singular values of a large matrix take more steps
        assert ((diagonal > 0.6) & (diagonal < 1.25)).all()


def test_a_zero_matrix_stays_zero():
    assert orthogonalized(torch.zeros(2, 3, 4)).abs().max() == 0


def test_scale_and_transposition_change_nothing():
    matrices = torch.randn(2, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(orthogonalized(1e6 * matrices), orthogonalized(matrices))
    torch.testing.assert_close(orthogonalized(matrices.mT).mT, orthogonalized(matrices))


def plain_muon(model, name, gradients, rate):
    """The sum of the updates of one parameter, matrix by matrix."""
    depth = len(model.blocks)

    def matrices(tensor):
        """Each matrix with where it came from."""
        if name.endswith("conv.weight"):
            gates = tensor.shape[1] // (2 if model.config.activation == "gated" else 1)
            halves = (slice(0, gates), slice(gates, None))[: tensor.shape[1] // gates]
            return [((slice(None), half), torch.cat(list(tensor[:, half]), dim=1)) for half in halves]
        if name == "skip.weight":
            width = tensor.shape[1] // depth
            columns = [slice(i * width, (i + 1) * width) for i in range(depth)]
            return [((slice(None), one), tensor[:, one]) for one in columns]
        return [((slice(None),), tensor)]

    moved = torch.zeros_like(gradients[0])
    momentum = torch.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = MUON_MOMENTUM * momentum + (1 - MUON_MOMENTUM) * gradient
        ahead = (1 - MUON_MOMENTUM) * gradient + MUON_MOMENTUM * momentum
        for place, matrix in matrices(ahead):
            update = orthogonalized(matrix[None])[0] * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            if name == "skip.weight":
                update = update / depth**0.5
            if name.endswith("conv.weight"):
                update = torch.stack(update.chunk(len(gradient), dim=1))
            moved[place] -= rate * update
    return moved


@pytest.mark.parametrize("form", [{}, {"activation": "relu"}, {"bias": False}], ids=str)
@pytest.mark.parametrize("dilations", [[1, 2, 4], [3]], ids=str)
def test_every_matrix_is_moved_by_muon_and_everything_else_by_adamw(random_model, dilations, form):
    model, twin = (random_model(kernel_size=3, dilations=dilations, dtype=torch.float64, **form) for _ in range(2))
    optimizer = Optimizer(model, settings())
    others = [parameter for name, parameter in twin.named_parameters() if not name.endswith(MATRICES)]
    adam = torch.optim.AdamW(others, lr=0.01, betas=ADAM_BETAS, weight_decay=0.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients = {name: [] for name in before}
    for step in range(3):
        random_gradients(model, step)
        random_gradients(twin, step)
        for name, parameter in model.named_parameters():
            gradients[name].append(parameter.grad.clone())
        optimizer.step(1.0)
        adam.step()
    theirs = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        if name.endswith(MATRICES):
            expected = before[name] + plain_muon(model, name, gradients[name], rate=0.1)
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-9, atol=1e-9)
        else:
            torch.testing.assert_close(parameter, theirs[name])


def test_adamw_alone_is_torchs(random_model):
    model, twin = random_model(), random_model()
    optimizer = Optimizer(model, settings(optimizer="adamw", weight_decay=0.1))
    entry = set(twin.input.parameters())
    groups = [
        {"params": [p for p in twin.parameters() if p.dim() > 1 and p not in entry], "weight_decay": 0.1},
        {"params": [p for p in twin.parameters() if p.dim() <= 1 or p in entry], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=0.005, betas=ADAM_BETAS)
    for step in range(3):
        random_gradients(model, step)
        random_gradients(twin, step)
        optimizer.step(0.5)
        adam.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_weight_decay_shrinks_matrices(random_model):
    model = random_model()
    optimizer = Optimizer(model, settings(weight_decay=0.5, matrix_learning_rate=0.2))
    before = model.head.weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(1.0)
    torch.testing.assert_close(model.head.weight.detach(), 0.9 * before)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_resumes_from_its_moments_bit_for_bit(random_model, kind):
    straight, stopped, resumed = random_model(), random_model(), random_model()
    chosen = settings(optimizer=kind)
    first, second = Optimizer(straight, chosen), Optimizer(stopped, chosen)
    for step in range(6):
        random_gradients(straight, step)
        first.step(1.0)
        if step < 3:
            random_gradients(stopped, step)
            second.step(1.0)
    moments = second.moments()
    assert set(moments[0]) == {name for name, _ in stopped.named_parameters()}
    resumed.load_state_dict(stopped.state_dict())
    third = Optimizer(resumed, chosen)
    third.restore(moments, updates=3)
    for step in range(3, 6):
        random_gradients(resumed, step)
        third.step(1.0)
    for mine, theirs in zip(resumed.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    np.testing.assert_array_equal(third.moments()[0]["head.weight"], first.moments()[0]["head.weight"])


@pytest.mark.parametrize("kind", ["muon", "adamw", "nadam"])
def test_what_is_restored_lies_where_torch_puts_it(random_model, kind):
    here = random_model()
    optimizer = Optimizer(here, settings(optimizer=kind))
    random_gradients(here, 0)
    optimizer.step(1.0)
    elsewhere = random_model().to("meta")  # stands for a GPU
    restored = Optimizer(elsewhere, settings(optimizer=kind))
    restored.restore(optimizer.moments(), updates=1)
    assert restored.adam.state
    for parameter, state in restored.adam.state.items():
        assert state["exp_avg"].device == state["exp_avg_sq"].device == parameter.device
        # one launch updates all: it counts on the device, where a number on the host cannot be read
        assert state["step"].device.type == ("cpu" if kind == "nadam" else "meta")


@pytest.mark.parametrize("momentum_decay", [0.004, 1.0])
def test_nadam_is_its_equations_and_goes_on_with_them(random_model, momentum_decay):
    """Dozat, 2016, with a momentum of 0.9 (1 - 0.96^(t decay) / 2), in Keras with a decay of 1. Restored once."""
    model = random_model(dtype=torch.float64)
    chosen = settings(optimizer="nadam", momentum_decay=momentum_decay)
    optimizer, name = Optimizer(model, chosen), "head.weight"
    w = dict(model.named_parameters())[name].detach().clone()
    m, v, product = torch.zeros_like(w), torch.zeros_like(w), 1.0
    for t in range(1, 31):
        random_gradients(model, t)
        g = dict(model.named_parameters())[name].grad.clone()
        now, following = (0.9 * (1 - 0.5 * 0.96 ** (i * momentum_decay)) for i in (t, t + 1))
        product *= now
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = following * m / (1 - product * following) + (1 - now) * g / (1 - product)
        w -= 0.01 * step / ((v / (1 - 0.999**t)).sqrt() + 1e-7)
        optimizer.step(1.0)
        if t == 20:
            moments = optimizer.moments()
            optimizer = Optimizer(model, chosen)
            optimizer.restore(moments, updates=20)
    torch.testing.assert_close(dict(model.named_parameters())[name].detach(), w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("before", "after"), [("muon", "adamw"), ("adamw", "muon")])
def test_another_kinds_moments_are_not_mistaken_for_its_own(random_model, before, after):
    model = random_model()
    old = Optimizer(model, settings(optimizer=before))
    random_gradients(model, 0)
    old.step(1.0)
    new = Optimizer(model, settings(optimizer=after))
    new.restore(old.moments(), updates=1)
    assert set(new.moments()[1]) & {"head.weight"} == set()
    if after == "muon":
        assert not new.moments()[0]["head.weight"].any()
    random_gradients(model, 1)
    new.step(1.0)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_moments_from_before_the_first_update_are_a_fresh_start(random_model):
    fresh, restored = random_model(), random_model()
    one, other = Optimizer(fresh, settings()), Optimizer(restored, settings())
    other.restore(one.moments(), updates=0)
    for model, optimizer in ((fresh, one), (restored, other)):
        random_gradients(model, 0)
        optimizer.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), restored.parameters(), strict=True))
