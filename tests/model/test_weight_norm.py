"""Weight normalization: the paper's equation, the same function at first, and plain weights for those who sample."""

import numpy as np
import pytest
import torch

from wavegen.config.schema import TrainingConfig
from wavegen.model.building import fold_weight_norm, load_weights, with_gains
from wavegen.model.layers import CausalConv, NormedConv, NormedLinear, folded, trained_matrix
from wavegen.training.step import Optimizer

SHAPES = [{}, {"dilations": [3], "kernel_size": 3}, {"bias": False, "activation": "tanh"}]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def random_classes(model, batch=2, steps=60):
    return torch.randint(model.classes, (batch, steps), generator=torch.Generator().manual_seed(1))


def arrays_of(model):
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def test_a_convolutions_weights_are_gain_times_direction_output_by_output():
    conv = NormedConv(CausalConv(3, 4, kernel_size=2, dilation=5))
    torch.nn.init.normal_(conv.direction)
    torch.nn.init.normal_(conv.gain)
    for output in range(4):
        v = conv.direction[:, output]
        expected = conv.gain[output] * v / v.square().sum().sqrt()
        torch.testing.assert_close(conv.weight[:, output], expected)
    assert [name for name, _ in conv.named_parameters()] == ["direction", "gain", "bias"]


def test_a_linear_layers_inputs_can_have_gains_in_parts():
    layer = NormedLinear(torch.nn.Linear(6, 4), parts=3)
    torch.nn.init.normal_(layer.gain)
    for output in range(4):
        for part in range(3):
            v = layer.direction[output, 2 * part : 2 * part + 2]
            expected = layer.gain[3 * output + part] * v / v.square().sum().sqrt()
            torch.testing.assert_close(layer.weight[output, 2 * part : 2 * part + 2], expected)


def test_gradients_are_those_of_the_papers_equation_3():
    """dg = dw . v / |v|, dv = g dw / |v| - g dg v / |v|^2; the latter is at right angles to v."""
    layer = NormedLinear(torch.nn.Linear(5, 3)).double()
    dw = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (layer.weight * dw).sum().backward()
    v, g, length = layer.direction, layer.gain[:, None], layer.direction.norm(dim=1, keepdim=True)
    dg = (dw * v).sum(dim=1, keepdim=True) / length
    torch.testing.assert_close(layer.gain.grad, dg[:, 0].detach())
    torch.testing.assert_close(layer.direction.grad, (g * dw / length - g * dg * v / length**2).detach())
    assert (layer.direction.grad * v).sum(dim=1).abs().max() < 1e-12


@every_shape
def test_it_begins_as_the_network_without_and_folds_back_to_one(random_model, shape):
    plain, normed = random_model(**shape), random_model(**shape, weight_norm=True)
    load_weights(normed, with_gains(arrays_of(plain), {name: p.shape for name, p in normed.named_parameters()}))
    classes = random_classes(plain)
    torch.testing.assert_close(normed(classes), plain(classes), rtol=0, atol=1e-5)
    with torch.no_grad():
        for name, parameter in normed.named_parameters():
            if name.endswith("gain"):
                parameter *= 1.5
    again = folded(normed)
    torch.testing.assert_close(again(classes), normed(classes), rtol=0, atol=1e-5)
    assert arrays_of(again).keys() == arrays_of(plain).keys()
    assert folded(plain) is plain
    in_numpy, in_torch = fold_weight_norm(arrays_of(normed)), arrays_of(again)
    assert in_numpy.keys() == in_torch.keys()
    for name, array in in_numpy.items():
        np.testing.assert_allclose(array, in_torch[name], rtol=1e-5, atol=1e-7, err_msg=name)
        assert array.dtype == np.float32


def test_all_matrices_but_the_input_layers_and_the_outputs_are_normed(random_model):
    names = {name for name, _ in random_model(weight_norm=True, n_labels=3).named_parameters()}
    plain = {"input.weight", "output.weight", "conditioning.labels", "conditioning.projection"}
    layers = {f"blocks.{i}.conv" for i in range(3)} | {"blocks.0.residual", "blocks.1.residual", "skip", "head"}
    biases = {f"{layer}.bias" for layer in layers if "residual" not in layer} | {"output.bias"}
    assert names == plain | biases | {f"{layer}.{part}" for layer in layers for part in ("direction", "gain")}


def test_gains_cost_no_multiply_adds(random_model):
    assert random_model(weight_norm=True).multiply_adds == random_model().multiply_adds


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_decay_is_of_directions_and_not_of_gains(random_model, kind):
    model = random_model(weight_norm=True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {"steps": 10, "optimizer": kind, "learning_rate": 0.1, "matrix_learning_rate": 0.1, "weight_decay": 0.5}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Optimizer(model, TrainingConfig(**settings)).step(1.0)
    for name, parameter in model.named_parameters():
        decays = name.endswith("direction") or name == "output.weight"
        torch.testing.assert_close(parameter.detach(), before[name] * (0.95 if decays else 1.0), msg=name)


def test_muon_moves_directions_and_adamw_gains(random_model):
    model = random_model(weight_norm=True)
    optimizer = Optimizer(model, TrainingConfig(steps=10))
    in_muon = {parameter for group in optimizer.groups for parameter in group.parameters}
    layers = [block.conv for block in model.residual_blocks] + [model.skip, model.head]
    layers += [block.residual for block in model.residual_blocks if block.residual is not None]
    assert in_muon == {trained_matrix(layer) for layer in layers}
    assert in_muon == {parameter for name, parameter in model.named_parameters() if name.endswith("direction")}
