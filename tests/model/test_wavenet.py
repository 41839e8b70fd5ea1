import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wavegen.config import parse_config
from wavegen.errors import ModelError
from wavegen.model.building import build_model, load_weights
from wavegen.model.layers import OneHotInput

INPUT_KINDS = ["embedding", "one_hot", "scalar"]


def textbook(model, classes):
    """The network as the paper draws it: (B, C, T), conv1d, each block with its own skip.

    Returns:
        (B, T - field + 1, output) logits, and the (B, C, T_i) input of every block.
    """
    n_outputs = classes.shape[1] - model.receptive_field + 1
    h = textbook_input(model, classes).transpose(1, 2)
    skip = model.skip.bias[:, None]
    block_inputs = []
    for block, skip_weight in zip(model.blocks, model.skip.weight.chunk(len(model.blocks), dim=1), strict=True):
        block_inputs.append(h)
        conv = block.conv
        gates = F.conv1d(h, conv.weight.permute(1, 2, 0), conv.bias, dilation=conv.dilation)
        filter_, gate = gates.chunk(2, dim=1)
        z = torch.tanh(filter_) * torch.sigmoid(gate)
        skip = skip + F.conv1d(z, skip_weight[:, :, None])[:, :, -n_outputs:]
        if block.residual is not None:
            h = h[:, :, -z.shape[2] :] + F.conv1d(z, block.residual.weight[:, :, None])
    head = F.conv1d(torch.relu(skip), model.head.weight[:, :, None], model.head.bias)
    logits = F.conv1d(torch.relu(head), model.output.weight[:, :, None], model.output.bias)
    return logits.transpose(1, 2), block_inputs


def textbook_input(model, classes):
    """(B, T) classes -> (B, T, C)."""
    layer = model.input
    if isinstance(layer, OneHotInput):
        return F.one_hot(classes, model.classes).double() @ layer.weight + layer.bias
    if isinstance(layer, nn.Embedding):
        return layer.weight[classes]
    place = 2 * classes.double() / (model.classes - 1) - 1
    return place[:, :, None] * layer.linear.weight[:, 0] + layer.linear.bias


def random_classes(model, batch, steps, seed=0):
    return torch.randint(model.classes, (batch, steps), generator=torch.Generator().manual_seed(seed))


# --- causality and receptive field -------------------------------------------------------------------------------


@pytest.mark.parametrize("input_kind", INPUT_KINDS)
@pytest.mark.parametrize("dilations", [[1, 2, 4], [1, 3, 5, 2], [4, 1, 1], [6]], ids=str)
@pytest.mark.parametrize("kernel_size", [2, 3, 4])
def test_a_prediction_depends_on_its_receptive_field_and_on_nothing_else(
    random_model, kernel_size, dilations, input_kind
):
    """By gradient: position i predicts x[i + field], and may see x[i] .. x[i + field - 1] alone."""
    model = random_model(
        kernel_size=kernel_size,
        dilations=dilations,
        input_kind=input_kind,
        skip_channels=40,  # so many that the head's ReLUs are never all shut
        head_channels=41,
        dtype=torch.float64,
    )
    field = model.receptive_field
    assert field == 1 + (kernel_size - 1) * sum(dilations)
    # how far back the taps can reach together; with dilations 1, 2, 4, ... that is the whole receptive field
    lags = {sum(steps) for steps in product(*([tap * d for tap in range(kernel_size)] for d in dilations))}
    if dilations == [1, 2, 4]:
        assert lags == set(range(field))

    entered = []
    model.input.register_forward_hook(lambda module, inputs, rows: entered.append(rows))
    batch, n_outputs = 2, 2
    logits = model(random_classes(model, batch, field - 1 + n_outputs))
    assert logits.shape == (batch, n_outputs, model.classes)
    projection = torch.randn(model.classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for b, i in product(range(batch), range(n_outputs)):
        (gradient,) = torch.autograd.grad(logits[b, i] @ projection, entered, retain_graph=True)
        reached = gradient.view(-1, batch, gradient.shape[1]).ne(0).any(dim=2)  # (T, B)
        newest = i + field - 1
        assert {(int(t), int(row)) for t, row in reached.nonzero()} == {(newest - lag, b) for lag in lags}


@pytest.mark.parametrize("input_kind", INPUT_KINDS)
def test_a_sample_changes_later_predictions_and_no_other(random_model, input_kind):
    model = random_model(input_kind=input_kind, dtype=torch.float64)
    field = model.receptive_field
    classes = random_classes(model, 2, 3 * field)
    changed = classes.clone()
    at = field + 3
    changed[0, at] = (changed[0, at] + 5) % model.classes
    differs = (model(classes) != model(changed)).any(dim=2)
    predicted = torch.arange(field, 3 * field + 1)  # position i predicts sample i + field
    sees_it = (predicted > at) & (predicted <= at + field)
    assert differs[0].tolist() == sees_it.tolist()
    assert not differs[1].any()


def test_too_short_an_input_is_an_error(random_model):
    model = random_model()
    assert model(random_classes(model, 3, model.receptive_field)).shape == (3, 1, 16)
    with pytest.raises(ValueError, match="expected 8 steps or more, found 7"):
        model(random_classes(model, 3, model.receptive_field - 1))


# --- the same as the textbook's ----------------------------------------------------------------------------------

NETWORKS = pytest.mark.parametrize(
    ("kernel_size", "dilations", "input_kind", "batch"),
    [
        (2, [1, 2, 4], "embedding", 1),
        (2, [1, 2, 4, 1, 2, 4], "one_hot", 3),
        (3, [1, 3, 9], "scalar", 2),
        (3, [2, 1, 5], "embedding", 4),
        (4, [5, 1], "one_hot", 2),
        (5, [3], "embedding", 2),
    ],
)


@NETWORKS
def test_outputs_and_gradients_are_the_textbooks(random_model, kernel_size, dilations, input_kind, batch):
    model = random_model(kernel_size=kernel_size, dilations=dilations, input_kind=input_kind, dtype=torch.float64)
    classes = random_classes(model, batch, model.receptive_field + 12)
    ours, (theirs, _) = model(classes), textbook(model, classes)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)

    projection = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    parameters = dict(model.named_parameters())
    our_gradients = torch.autograd.grad((ours * projection).sum(), parameters.values())
    their_gradients = torch.autograd.grad((theirs * projection).sum(), parameters.values())
    assert all(gradient.ne(0).any() for gradient in our_gradients), "a parameter that nothing uses"
    for name, our, their in zip(parameters, our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@NETWORKS
def test_queues_hold_the_newest_inputs_of_every_block(random_model, kernel_size, dilations, input_kind, batch):
    model = random_model(kernel_size=kernel_size, dilations=dilations, input_kind=input_kind, dtype=torch.float64)
    classes = random_classes(model, batch, model.receptive_field + 5)
    _, block_inputs = textbook(model, classes)
    for given in (classes, classes[:, -(model.receptive_field - 1) :]):
        queues = model.queues(given)
        assert len(queues) == len(dilations)
        for queue, h, dilation in zip(queues, block_inputs, dilations, strict=True):
            reach = (kernel_size - 1) * dilation
            assert queue.shape == (reach, batch, 6)
            torch.testing.assert_close(queue, h[:, :, -reach:].permute(2, 0, 1), rtol=0, atol=1e-12)


# --- built from a configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("input_kind", INPUT_KINDS)
@pytest.mark.parametrize("classes", [2, 16, 256, 1000])
def test_the_loss_of_an_untrained_model_is_log2_of_the_classes(classes, input_kind):
    torch.manual_seed(0)
    config = parse_config(
        f"model: {{input: {input_kind}, cycles: 1, dilation_cycle: 3}}\nquantization: {{classes: {classes}}}", "test"
    )
    model = build_model(config)
    heard = random_classes(model, 2, model.receptive_field + 50)
    bits = model.distribution.loss(model(heard[:, :-1]), heard[:, model.receptive_field :]) / math.log(2)
    assert bits.shape == (2, 50)
    torch.testing.assert_close(bits, torch.full_like(bits, math.log2(classes)), rtol=0, atol=1e-5)


def test_the_weights_are_drawn_from_torchs_generator_alone():
    config = parse_config("model: {cycles: 1, dilation_cycle: 2}", "test")
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model(config).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["blocks.0.conv.weight"], states[2]["blocks.0.conv.weight"])


@pytest.mark.parametrize("input_kind", INPUT_KINDS)
def test_sizes_counted_by_hand(random_model, input_kind):
    model = random_model(kernel_size=3, dilations=[1, 2], input_kind=input_kind)  # channels 6, 5, 7, 9; 16 classes
    blocks = 2 * (3 * 6 * 10) + 5 * 6
    head = (2 * 5) * 7 + 7 * 9 + 9 * 16
    biases = 2 * 10 + 7 + 9 + 16
    entry = {"embedding": 16 * 6, "one_hot": 16 * 6 + 6, "scalar": 6 + 6}[input_kind]
    assert model.n_parameters == entry + blocks + head + biases
    looked_up = input_kind != "scalar"
    assert model.multiply_adds == (0 if looked_up else 6) + blocks + head


# --- weights from a checkpoint -----------------------------------------------------------------------------------


def arrays_of(model):
    return {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}


def test_loaded_weights_are_the_models_own_copy(random_model):
    source, model = random_model(seed=1), random_model(seed=2)
    weights = arrays_of(source)
    load_weights(model, weights)
    classes = random_classes(model, 2, 20)
    assert torch.equal(model(classes), source(classes))
    weights["output.bias"][:] = 0
    assert torch.equal(model(classes), source(classes))


def test_weights_that_do_not_fit_are_named(random_model):
    model = random_model()
    weights = arrays_of(model)
    lacking = {name: array for name, array in weights.items() if name != "head.bias"}
    with pytest.raises(ModelError, match=r"the checkpoint lacks 'head\.bias'"):
        load_weights(model, lacking)
    with pytest.raises(ModelError, match=r"the checkpoint has, and the model lacks, 'extra'"):
        load_weights(model, {**weights, "extra": np.zeros(3, np.float32)})
    with pytest.raises(ModelError, match=r"'head\.bias': expected the shape \(9,\), found \(3,\)"):
        load_weights(model, {**weights, "head.bias": np.zeros(3, np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(random_model, value):
    model = random_model()
    weights = arrays_of(model)
    weights["blocks.1.conv.weight"][1, 2, 3] = value
    with pytest.raises(ModelError, match=r"weights are not finite: 'blocks\.1\.conv\.weight'"):
        load_weights(model, weights)
