"""Stacks of layers, recurrent ones among them, held to plain transcriptions of what they are."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wavegen.config import load_config, parse_config
from wavegen.evaluation.likelihood import CHUNK_TARGETS, model_bits
from wavegen.model.building import build_distribution, build_model
from wavegen.model.stack import NOTHING

STACK = """
model:
  kind: stack
  input: {entry}
  embedding_channels: 5
  layers:
    - {{kind: conv, channels: 6, kernel_size: 3, dilation: 2, activation: relu, name: low}}
    - {{kind: average_pool, kernel_size: 2, dilation: 3}}
    - {{kind: conv, channels: 6, dilation: 4, activation: tanh}}
    - {{kind: add, source: low}}
    - {{kind: max_pool, kernel_size: 3, dilation: 1, name: high}}
    - {{kind: concatenate, source: input}}
    - {{kind: dense, channels: 7, activation: sigmoid}}
    - {{kind: concatenate, source: high}}
quantization: {{classes: 16}}
"""
RECURRENT = "model: {{kind: stack, layers: [{layers}], context: 9, input: {entry}}}\n"
MIXED = """
model:
  kind: stack
  embedding_channels: 5
  context: 7
  layers:
    - {kind: conv, channels: 6, kernel_size: 3, dilation: 2, activation: relu, name: low}
    - {kind: rnn, channels: 4, layer_norm: true}
    - {kind: average_pool, kernel_size: 2, dilation: 3}
    - {kind: concatenate, source: low}
    - {kind: lstm, channels: 5}
    - {kind: dense, channels: 7, activation: tanh}
    - {kind: rnn, channels: 7, name: high}
    - {kind: add, source: high}
quantization: {classes: 16}
"""


def stack_config(entry="embedding"):
    return parse_config(STACK.format(entry=entry), "stack.yaml")


def recurrent_config(kind, entry="embedding", n_layers=2, more=""):
    layers = ", ".join([f"{{kind: {kind}, channels: 6{more}}}"] * n_layers)
    return parse_config(RECURRENT.format(layers=layers, entry=entry) + "quantization: {classes: 16}", "rnn.yaml")


RECURRENT_KINDS = {
    "rnn": recurrent_config("rnn", "one_hot"),
    "normalized rnn": recurrent_config("rnn", more=", layer_norm: true"),
    "gru": recurrent_config("gru"),
    "lstm": recurrent_config("lstm", "scalar", 1),
    "mixed": parse_config(MIXED, "mixed.yaml"),
}
KINDS = {"stack": stack_config(), **RECURRENT_KINDS}
every_recurrent_kind = pytest.mark.parametrize("config", RECURRENT_KINDS.values(), ids=RECURRENT_KINDS.keys())


def random_network(config, seed=0):
    torch.manual_seed(seed)
    model = build_model(config).eval()
    for parameter in model.parameters():  # no output layer of zeros
        nn.init.normal_(parameter, std=0.4)
    return model


def classes(shape, seed, n=16):
    return torch.from_numpy(np.random.default_rng(seed).integers(n, size=shape))


def plainly(model, inputs):
    """The stack of STACK on whole clips as textbooks write it: (B, C, T), each layer padded with zeros on the left.

    Returns:
        (B, T, n_parameters): what is predicted from inputs 0 .. t.
    """

    def conv(layer, h):
        padded = F.pad(h, ((layer.kernel_size - 1) * layer.dilation, 0))
        return F.conv1d(padded, layer.weight.permute(1, 2, 0), layer.bias, dilation=layer.dilation)

    def shifted(h, steps):
        return F.pad(h, (steps, 0))[:, :, : h.shape[2]]

    layers = model.layers
    entered = model.input(inputs.reshape(-1)).view(*inputs.shape, -1).transpose(1, 2)
    low = torch.relu(conv(layers[0], entered))
    pooled = (low + shifted(low, 3)) / 2
    added = low + torch.tanh(conv(layers[2], pooled))
    high = torch.stack([shifted(added, steps) for steps in range(3)]).amax(dim=0)
    dense = torch.sigmoid(conv(layers[6], torch.cat([entered, high], dim=1)))
    top = torch.cat([high, dense], dim=1)
    return (model.output.weight @ top + model.output.bias[:, None]).transpose(1, 2)


# --- stacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ["embedding", "one_hot", "scalar"])
def test_a_stack_is_its_layers_with_zeros_before_the_start(entry):
    model = random_network(stack_config(entry))
    clip = classes((2, 50), seed=1)
    before = torch.full((2, model.receptive_field - 1), NOTHING)
    torch.testing.assert_close(model(torch.cat([before, clip], dim=1)), plainly(model, clip), atol=1e-5, rtol=1e-5)


def test_a_window_inside_a_clip_sees_the_clip_and_no_padding():
    model = random_network(stack_config())
    clip = classes((1, 60), seed=2)
    window = model(clip[:, 20:])
    torch.testing.assert_close(window, plainly(model, clip)[:, 20 + model.receptive_field - 1 :], atol=1e-5, rtol=1e-5)


def test_the_receptive_field_is_all_that_a_prediction_depends_on():
    model = random_network(stack_config("scalar")).double()
    inputs = classes((1, model.receptive_field + 5), seed=3).double().requires_grad_()
    model.input.forward = lambda values: values[:, None] / 16
    model(inputs)[0, -1].sum().backward()
    seen = inputs.grad[0] != 0
    assert seen[-model.receptive_field]
    assert not seen[: -model.receptive_field].any()


def test_strides_are_dilations():
    """Three layers of stride 2, and pooling of stride 2, against the same weights as dilations 1, 2, 4 and 8."""
    torch.manual_seed(4)
    text = """
        model:
          kind: stack
          input: scalar
          layers:
            - {kind: conv, channels: 4, kernel_size: 2, dilation: 1, activation: relu}
            - {kind: conv, channels: 5, kernel_size: 3, dilation: 2, activation: relu}
            - {kind: average_pool, kernel_size: 2, dilation: 4}
            - {kind: conv, channels: 3, kernel_size: 2, dilation: 8}
        """
    model = build_model(parse_config(text, "x")).double()
    nn.init.normal_(model.output.weight)
    field, every = model.receptive_field, 8  # the product of the strides
    clip = classes((1, field + 10 * every), seed=5, n=256)
    h = model.input(clip.reshape(-1)).double().view(1, 1, -1)
    for layer, stride in zip(model.layers, (2, 2, 2, 1), strict=True):
        if hasattr(layer, "weight"):
            h = layer.activation(F.conv1d(h, layer.weight.permute(1, 2, 0), layer.bias, stride=stride))
        else:
            h = F.avg_pool1d(h, 2, stride=stride)
    strided = (model.output.weight @ h + model.output.bias[:, None]).transpose(1, 2)
    torch.testing.assert_close(model(clip)[:, ::every], strided[:, : len(range(0, 10 * every + 1, every))])


def test_a_strided_convolution_thins_what_recurrent_layers_see():
    """Against Conv1d and GRU as they are, from a series' first value on; and in stretches of any length."""
    torch.manual_seed(3)
    model = build_model(load_config("textbook/conv-gru")).double()
    conv, first, second = model.layers
    series = torch.randn(5, 50, dtype=torch.float64)
    h = F.conv1d(series[:, None], conv.weight.permute(1, 2, 0), conv.bias, stride=2).permute(2, 0, 1)  # (24, 5, 20)
    expected = model.output(second.cell(first.cell(h)[0])[0]).transpose(0, 1)
    assert (model.positions, model.padding_steps, expected.shape) == (slice(3, None, 2), 0, (5, 24, 10))
    torch.testing.assert_close(model(series), expected)
    state, parts = None, []
    for begin, end in pairwise((0, 4, 5, 6, 13, 30, 31, 50)):
        part, state = model.advance(series[:, begin:end], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected)


# --- recurrent layers --------------------------------------------------------------------------------------------


def gru_by_hand(cell, rows):
    """One layer of Cho et al., 2014, as torch's documentation writes it; rows (T, C) to states (T, H)."""
    h, states = torch.zeros(cell.hidden_size), []
    for x in rows:
        given = (cell.weight_ih_l0 @ x + cell.bias_ih_l0).chunk(3)
        kept = (cell.weight_hh_l0 @ h + cell.bias_hh_l0).chunk(3)
        reset, update = torch.sigmoid(given[0] + kept[0]), torch.sigmoid(given[1] + kept[1])
        h = (1 - update) * torch.tanh(given[2] + reset * kept[2]) + update * h
        states.append(h)
    return torch.stack(states)


def test_a_gru_is_its_equations():
    model = random_network(recurrent_config("gru", n_layers=1))
    clip = classes((1, 30), seed=6)
    states = gru_by_hand(model.layers[0].cell, model.input(clip[0]))
    torch.testing.assert_close(model(clip)[0], model.output(states)[8:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("more", "epsilon"), [("", 1e-5), (", layer_norm_epsilon: 0.001", 1e-3)])
def test_an_rnn_normalizes_its_state_before_its_tanh(more, epsilon):
    model = random_network(recurrent_config("rnn", n_layers=1, more=f", layer_norm: true{more}"))
    cell, norm, h, states = model.layers[0].cell, model.layers[0].norm, torch.zeros(6), []
    clip = classes((1, 30), seed=6)
    for x in model.input(clip[0]):
        a = cell.weight_ih_l0 @ x + cell.bias_ih_l0 + cell.weight_hh_l0 @ h + cell.bias_hh_l0
        h = torch.tanh((a - a.mean()) / (a.var(correction=0) + epsilon).sqrt() * norm.weight + norm.bias)
        states.append(h)
    torch.testing.assert_close(model(clip)[0], model.output(torch.stack(states))[8:], atol=1e-5, rtol=1e-5)


def test_a_state_can_be_the_forecast():
    model = build_model(load_config("textbook/rnn-unit"))
    assert model.n_parameters == 4  # W, U and torch's two biases
    w, u, b, c = (parameter.item() for parameter in model.parameters())
    h, states, series = 0.0, [], torch.randn(1, 20, generator=torch.Generator().manual_seed(1))
    for x in series[0].tolist():
        h = np.tanh(w * x + b + u * h + c)
        states.append(h)
    assert model(series)[0, :, 0].tolist() == pytest.approx(states, abs=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_recurrent_layers_begin_orthogonal_without_biases_and_remember(kind):
    layer = build_model(recurrent_config(kind)).layers[0]
    bound = (6 / (layer.cell.weight_ih_l0.shape[0] + layer.cell.weight_ih_l0.shape[1])) ** 0.5  # Glorot and Bengio
    assert 0.8 * bound < layer.cell.weight_ih_l0.abs().max() <= bound
    u = layer.cell.weight_hh_l0  # (gates H, H)
    torch.testing.assert_close(u.T @ u, torch.eye(6))
    given, kept = layer.cell.bias_ih_l0, layer.cell.bias_hh_l0
    remembers = (
        [0.0] * 6 + [1.0] * 6 + [0.0] * 12 if kind == "lstm" else [0.0] * len(given)
    )  # input, forget, cell, output
    assert (given + kept).tolist() == remembers


@every_recurrent_kind
def test_a_state_can_be_carried_on(config):
    model = random_network(config)
    clip = classes((3, 60), seed=7)
    whole, _ = model.advance(clip)
    first, state = model.advance(clip[:, :27])
    second, state = model.advance(clip[:, 27:28], state)
    rest, _ = model.advance(clip[:, 28:], state)
    torch.testing.assert_close(torch.cat([first, second, rest], dim=1), whole)


@every_recurrent_kind
def test_a_prediction_depends_on_all_of_the_past_and_on_no_future(config):
    model = random_network(config)
    clip = classes((1, 60), seed=8)
    for place in (0, 30, 58):
        other = clip.clone()
        other[0, place] = (clip[0, place] + 7) % 16
        differs = (model(clip) != model(other)).any(dim=-1)[0]
        first = max(place - (model.receptive_field - 1), 0)
        assert not differs[:first].any()
        assert differs[first:].any()


# --- all ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_an_untrained_network_knows_nothing(config):
    model, clip = build_model(config), classes((40,), seed=8).numpy()
    assert model_bits(model, [clip], 8)[0] == pytest.approx(4.0 * len(clip))


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_scoring_carries_the_state_from_the_clips_start(config):
    """Whatever the stretches in which a long clip is scored: as one pass over all of it, padding first."""
    model = random_network(config)
    clip = classes((CHUNK_TARGETS + 700,), seed=9)
    padded = torch.cat([torch.full((model.receptive_field,), model.padding(8)), clip])
    with torch.no_grad():
        losses = build_distribution(config).loss(model(padded[None, :-1])[0], clip)
    heard = []
    bits = model_bits(model, [clip.numpy()], 8, heard.append)[0]
    assert bits == pytest.approx(float(losses.double().sum()) / np.log(2), rel=1e-5)
    assert sum(heard) == len(clip)


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_a_clip_after_a_past_costs_what_it_adds(config):
    model, past, clip = random_network(config), classes((90,), 3).numpy(), classes((200,), 4).numpy()
    both, alone = model_bits(model, [np.append(past, clip), past], 8)
    assert model_bits(model, [clip], 8, past=past)[0] == pytest.approx(both - alone, rel=1e-4)


@every_recurrent_kind
def test_clips_scored_side_by_side_are_as_if_alone(config, monkeypatch):
    """Shorter and longer than a chunk, and empty; every sample is reported once."""
    monkeypatch.setattr("wavegen.evaluation.likelihood.CHUNK_TARGETS", 50)
    model = random_network(config)
    clips = [classes((length,), length).numpy() for length in (120, 7, 0, 50, 333)]
    heard = []
    together = model_bits(model, clips, 8, heard.append)
    assert together == [model_bits(model, [clip], 8)[0] for clip in clips]
    assert sum(heard) == sum(map(len, clips))
    assert together[2] == 0.0


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_too_few_inputs_are_refused(config):
    model = build_model(config)
    with pytest.raises(ValueError, match=f"expected {model.receptive_field} steps or more"):
        model(torch.zeros(1, model.receptive_field - 1, dtype=torch.int64))


def test_widths_follow_the_joins():
    model = build_model(load_config("dense-skips"))
    joined = [32, 48, 48, 96, 48, 96, 48, 96, 48, 48, 48, 48, 48, 96, 144, 128, 128]
    kinds = load_config("dense-skips").model.layers
    for layer, (below, width) in zip(model.layers, pairwise(joined), strict=True):
        if hasattr(layer, "weight"):
            assert layer.weight.shape[1:] == (width, below)
    assert len(kinds) == len(joined) - 1
