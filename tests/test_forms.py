"""Every form of the network is one function: in the blocks, the fused stack, the textbook's layers and the engines."""

import numpy as np
import pytest
import torch

from wavegen.bench import textbook
from wavegen.config import parse_config
from wavegen.data.conditioning import ClipCondition
from wavegen.model.building import build_model, load_weights, parameter_shapes
from wavegen.model.fused_stack import FusedStack
from wavegen.model.layers import Condition, folded
from wavegen.model.outputs import LogisticMixture
from wavegen.sampling.engines import ENGINES, build_engine
from wavegen.sampling.engines.packing import rounded_weights

FORMS = {
    "wide skips": {"residual_channels": 32, "gate_channels": 7, "skip_channels": 512, "head_channels": 3},
    "narrow skips": {"residual_channels": 5, "gate_channels": 40, "skip_channels": 2, "head_channels": 70},
    "no biases": {"bias": False},
    "relu": {"activation": "relu"},
    "tanh, no biases": {"activation": "tanh", "bias": False, "gate_channels": 17},
    "weight norm": {"weight_norm": True},
    "weight norm, relu, no biases": {"weight_norm": True, "activation": "relu", "bias": False, "gate_channels": 17},
    "no biases, mixture": {"bias": False, "distribution": LogisticMixture(16, 3), "input_kind": "scalar"},
}
CONDITIONS = {"nothing": {}, "both": {"n_labels": 3, "label_channels": 4, "frame_channels": 5, "upsampling": 2}}
every_form = pytest.mark.parametrize("form", FORMS)
every_condition = pytest.mark.parametrize("conditions", CONDITIONS)


def random_classes(model, batch, steps):
    return torch.randint(model.classes, (batch, steps), generator=torch.Generator().manual_seed(1))


def some_condition(model, inputs):
    """A table of random rows for each sequence, and an index that comes back to them."""
    if model.conditioning is None:
        return None
    generator, (batch, steps) = torch.Generator().manual_seed(3), inputs.shape
    labels = torch.rand(batch, 6, model.conditioning.n_labels, generator=generator)
    frames = torch.randn(batch, 6, model.conditioning.frame_channels, generator=generator)
    return Condition(labels, frames, torch.randint(12, (batch, steps), generator=generator))


def relative_error(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


# --- training ----------------------------------------------------------------------------------------------------


def skips_and_gradients(model, inputs, condition, stack=None):
    """The summed skips, and the gradients of a smooth function of them."""
    skip = (stack or model.stack)(model.embed(inputs), len(inputs), model.gate_bias(condition))
    weights = torch.randn(skip.shape, generator=torch.Generator().manual_seed(2)).to(skip.dtype)
    head = {*model.head.parameters(), *model.output.parameters()}
    below = [parameter for parameter in model.parameters() if parameter not in head]
    return skip.detach(), list(torch.autograd.grad((skip * weights).sum(), below))


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)], ids=str)
@every_condition
@every_form
def test_the_fused_stack_is_the_blocks(random_model, form, conditions, dtype, tolerance, recompute):
    shape = {**FORMS[form], **CONDITIONS[conditions], "kernel_size": 3}
    model, exact = random_model(**shape), random_model(**shape).double()
    inputs = random_classes(model, 3, model.receptive_field + 60)
    condition = some_condition(model, inputs)
    stack = FusedStack(model.residual_blocks, model.skip, dtype, recompute)
    skip, gradients = skips_and_gradients(model, inputs, condition, stack)
    expected_skip, expected = skips_and_gradients(exact, inputs, condition)
    assert relative_error(skip, expected_skip) < tolerance
    for found, true in zip(gradients, expected, strict=True):
        assert float(true.norm()) > 0
        assert relative_error(found, true) < tolerance


@every_condition
@every_form
def test_the_textbook_is_the_same_function(random_model, form, conditions):
    model = random_model(**FORMS[form], **CONDITIONS[conditions]).double()
    inputs = random_classes(model, 2, model.receptive_field + 30)
    condition = some_condition(model, inputs)
    expected = textbook(model, inputs, condition)
    torch.testing.assert_close(model(inputs, condition=condition), expected, rtol=1e-10, atol=1e-10)


# --- sampling ----------------------------------------------------------------------------------------------------


def clip_conditions(model, count):
    if model.conditioning is None:
        return None
    rng = np.random.default_rng(4)
    return [
        ClipCondition(
            rng.dirichlet(np.ones(3)).astype(np.float32), rng.normal(-5, 4, (20, 5)).astype(np.float32), 10, 2
        )
        for _ in range(count)
    ]


@torch.inference_mode()
def teacher_forced(model, past, classes, conditions):
    """(B, n, parameters of the distribution) of samples 0 .. n - 1 of each clip."""
    heard = torch.from_numpy(np.concatenate([past, classes], axis=1)[:, -classes.shape[1] - model.receptive_field : -1])
    seen = None
    if conditions is not None:
        rows = [one.rows(1 - model.receptive_field, classes.shape[1]) for one in conditions]
        seen = Condition.of(rows, heard.device)
    return model(heard, condition=seen).numpy()


def some(shape, seed):
    return np.random.default_rng(seed).integers(0, 16, shape)


@every_condition
@every_form
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_the_teacher_forced_parameters(random_model, name, form, conditions):
    model = random_model(**FORMS[form], **CONDITIONS[conditions], kernel_size=3)
    past, classes, seen = some((3, model.receptive_field + 2), 5), some((3, 90), 6), clip_conditions(model, 3)
    expected = teacher_forced(model, past, classes, seen)
    engine = build_engine(name, model)
    engine.start(past, seen)
    found = np.concatenate([engine.force(classes[:, :40]), engine.force(classes[:, 40:])], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert np.abs(np.diff(expected, axis=1)).max() > 0.1, "a test needs outputs that move"


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@every_form
def test_lower_precision_is_the_network_with_rounded_weights(random_model, form, precision):
    model = random_model(**FORMS[form])
    past, classes = some((2, model.receptive_field), 7), some((2, 60), 8)
    engine = build_engine("numba", model, precision)
    exact = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    model = folded(model)
    rounded = rounded_weights(exact, precision)
    load_weights(model, {name: array.copy() for name, array in rounded.items()})
    engine.start(past)
    expected = teacher_forced(model, past, classes, None)
    # int8 weights meet inputs that are rounded to 14 bits of the largest one
    atol = 2e-3 * np.abs(expected).max() if precision == "int8" else 1e-4
    np.testing.assert_allclose(engine.force(classes), expected, atol=atol, rtol=1e-4)


# --- built from a configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["", "data: {labels: subfolders}\nmel: {n_mels: 5, upsampling: 2}"])
@pytest.mark.parametrize("output", ["softmax", "logistic_mixture"])
@pytest.mark.parametrize(
    "keys", ["bias: false", "activation: relu", "activation: tanh, bias: false", "weight_norm: true, activation: relu"]
)
def test_shapes_without_torch_are_the_models(keys, output, labels):
    text = f"model: {{cycles: 2, dilation_cycle: 3, gate_channels: 7, {keys}}}\noutput: {{kind: {output}}}\n{labels}"
    config = parse_config(text, "test")
    model = build_model(config)
    assert parameter_shapes(config) == {name: tuple(one.shape) for name, one in model.named_parameters()}
    assert config != parse_config("model: {cycles: 2, dilation_cycle: 3, gate_channels: 7}", "test")


def test_without_biases_there_are_none_but_a_mixtures(random_model):
    assert not [name for name, _ in random_model(bias=False).named_parameters() if name.endswith("bias")]
    mixture = random_model(bias=False, distribution=LogisticMixture(16, 3))
    assert [name for name, _ in mixture.named_parameters() if name.endswith("bias")] == ["output.bias"]
