"""The network against residual layers as other programs write them: two convolutions, clipped or left-padded.

The transcriptions are plain torch.nn layers on (B, C, T) in float64, each written from its equations; only the numbers
of their weights come from ours.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wavegen.config import load_config
from wavegen.model.building import build_model

FORMS = {
    "plain": {},
    "no biases": {"bias": False},
    "weight norm": {"weight_norm": True},
    "relu": {"activation": "relu"},
    "tanh, no biases, weight norm": {"activation": "tanh", "bias": False, "weight_norm": True},
    "a notebook's": {"bias": False, "residual_channels": 32, "gate_channels": 32, "skip_channels": 512},
}
every_form = pytest.mark.parametrize("form", FORMS)
every_kernel = pytest.mark.parametrize(("kernel_size", "dilations"), [(2, [1, 2, 4, 8]), (3, [1, 3, 2])], ids=str)


def plain_weights(model, name):
    """A layer's weights; under weight normalization g v / |v|, output by output, as Salimans and Kingma write it."""
    parameters = dict(model.named_parameters())
    if f"{name}.weight" in parameters:
        return parameters[f"{name}.weight"].detach()
    v, g = parameters[f"{name}.direction"].detach(), parameters[f"{name}.gain"].detach()
    w = torch.empty_like(v)
    if v.dim() == 3:
        for output in range(v.shape[1]):
            w[:, output] = g[output] * v[:, output] / v[:, output].norm()
        return w
    width = v.shape[1] * v.shape[0] // len(g)
    for i, gain in enumerate(g):
        row, part = divmod(i * width, v.shape[1])
        w[row, part : part + width] = gain * v[row, part : part + width] / v[row, part : part + width].norm()
    return w


def conv1d(weight, bias, dilation=1):
    """A torch layer of (taps, outputs, inputs) or (outputs, inputs) weights."""
    stacked = weight[None] if weight.dim() == 2 else weight
    taps, outputs, inputs = stacked.shape
    layer = nn.Conv1d(inputs, outputs, taps, dilation=dilation, bias=bias is not None, dtype=torch.float64)
    layer.weight.data = stacked.permute(1, 2, 0).contiguous()
    if bias is not None:
        layer.bias.data = bias.detach()
    return layer.requires_grad_(False)


class ResidualLayer(nn.Module):
    """A dilated convolution for the filter and another one for the gate, a 1x1 residual and a 1x1 skip.

    Clipped, nothing is padded, and the input is cut to the length of the output; otherwise zeros are put before it.
    """

    def __init__(self, model, i, clipped):
        super().__init__()
        block = model.blocks[i]
        weight, bias = plain_weights(model, f"blocks.{i}.conv"), block.conv.bias
        self.clipped, self.activation, self.dilation = clipped, model.config.activation, block.conv.dilation
        self.reach = (block.conv.kernel_size - 1) * self.dilation
        n = model.skip.in_features // len(model.blocks)
        self.conv_filter = conv1d(weight[:, :n], None if bias is None else bias[:n], self.dilation)
        if model.config.activation == "gated":
            self.conv_gate = conv1d(weight[:, n:], None if bias is None else bias[n:], self.dilation)
        else:
            assert weight.shape[1] == n, "without a gate there is one convolution"
        last = i == len(model.blocks) - 1
        self.residual = None if last else conv1d(plain_weights(model, f"blocks.{i}.residual"), None)
        self.skip = conv1d(plain_weights(model, "skip")[:, i * n : (i + 1) * n], None)

    def forward(self, x):
        heard = x if self.clipped else F.pad(x, (self.reach, 0))
        if self.activation == "gated":
            z = torch.tanh(self.conv_filter(heard)) * torch.sigmoid(self.conv_gate(heard))
        else:
            z = getattr(torch, self.activation)(self.conv_filter(heard))
        if self.clipped:
            x = x[:, :, self.reach :]
        return x if self.residual is None else x + self.residual(z), self.skip(z)


class Transcription(nn.Module):
    """A whole network of such layers."""

    def __init__(self, model, clipped):
        super().__init__()
        self.layers = [ResidualLayer(model, i, clipped) for i in range(len(model.blocks))]
        self.embedding = model.input.weight.detach()
        self.skip_bias = 0.0 if model.skip.bias is None else model.skip.bias.detach()[:, None]
        self.head = conv1d(plain_weights(model, "head"), model.head.bias)
        self.output = conv1d(model.output.weight.detach(), model.output.bias)

    def forward(self, classes):
        """(B, T) -> (B, n, classes): n = T - receptive_field + 1 clipped, n = T padded."""
        x, skips = self.embedding[classes].mT, []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        total = sum(skip[:, :, -x.shape[2] :] for skip in skips) + self.skip_bias
        return self.output(torch.relu(self.head(torch.relu(total)))).mT


@pytest.fixture
def build(random_model):
    def of(form, kernel_size, dilations):
        model = random_model(kernel_size=kernel_size, dilations=dilations, dtype=torch.float64, **FORMS[form])
        return model.requires_grad_(False)

    return of


def random_classes(model, n_targets):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.classes, (2, model.receptive_field - 1 + n_targets), generator=generator)


@every_kernel
@every_form
def test_clipped_residual_layers_are_the_same_function(build, form, kernel_size, dilations):
    model = build(form, kernel_size, dilations)
    classes = random_classes(model, 40)
    theirs = Transcription(model, clipped=True)(classes)
    assert theirs.shape == (2, 40, model.classes)
    torch.testing.assert_close(model(classes), theirs, rtol=1e-10, atol=1e-10)


@every_kernel
@every_form
def test_left_padded_residual_layers_are_the_same_behind_the_receptive_field(build, form, kernel_size, dilations):
    model = build(form, kernel_size, dilations)
    classes = random_classes(model, 40)
    padded = Transcription(model, clipped=False)(classes)
    context = model.receptive_field - 1
    assert padded.shape == (2, context + 40, model.classes)
    torch.testing.assert_close(model(classes), padded[:, context:], rtol=1e-10, atol=1e-10)
    # before it they hear zeros where ours heard the clip: that is why those outputs are thrown away
    longer = torch.cat([(classes[:, :context] + 1) % model.classes, classes], dim=1)
    assert (model(longer)[:, :context] - padded[:, :context]).abs().max() > 1e-3


def test_one_wrong_tap_or_gain_is_seen(build):
    """The comparison itself: it fails for a network that differs in a single number."""
    model = build("tanh, no biases, weight norm", 2, [1, 2, 4])
    classes = random_classes(model, 40)
    theirs = Transcription(model, clipped=True)(classes)
    model.blocks[1].conv.gain[2] *= 1.01
    assert (model(classes) - theirs).abs().max() > 1e-5


class NotebooksLayer(nn.Module):
    """The clipped residual layer as a notebook writes it: one channel in, 32 residual and 512 skip channels."""

    def __init__(self, dilation, bias):
        super().__init__()
        self.conv_filter = nn.Conv1d(1, 32, kernel_size=3, dilation=dilation, bias=bias)
        self.conv_gate = nn.Conv1d(1, 32, kernel_size=3, dilation=dilation, bias=bias)
        self.residual = nn.Conv1d(32, 32, kernel_size=1, bias=False)
        self.skip = nn.Conv1d(32, 512, kernel_size=1, bias=False)

    def forward(self, x):
        """(B, 1, T) -> (B, 32, T - 2 dilation) and (B, 512, T - 2 dilation)."""
        z = torch.tanh(self.conv_filter(x)) * torch.sigmoid(self.conv_gate(x))
        return self.residual(z) + x[:, :, -z.shape[2] :], self.skip(z)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_of_the_preset_is_the_notebooks(bias):
    """20 steps in, 16 out at dilation 2. Its one channel is 32 equal ones here, with the weights divided by 32."""
    torch.manual_seed(0)
    assert not load_config("clipped-residual").model.bias
    config = load_config("clipped-residual", ["model.dilation_cycle=[2, 1]", "model.cycles=1", f"model.bias={bias}"])
    model, theirs = build_model(config).double(), NotebooksLayer(2, bias).double()
    block = model.blocks[0]
    with torch.no_grad():
        for layer, rows in ((theirs.conv_filter, slice(0, 32)), (theirs.conv_gate, slice(32, 64))):
            block.conv.weight[:, rows] = layer.weight.permute(2, 0, 1) / 32  # (3, 32, 1) to (3, 32, 32)
            if bias:
                block.conv.bias[rows] = layer.bias
        block.residual.weight.copy_(theirs.residual.weight[:, :, 0])
        model.skip.weight[:, :32] = theirs.skip.weight[:, :, 0]
        x = torch.randn(4, 1, 20, dtype=torch.float64)
        residual, skip = theirs(x)
        assert (residual.shape, skip.shape) == ((4, 32, 16), (4, 512, 16))
        rows = x.expand(4, 32, 20).permute(2, 0, 1).reshape(80, 32)  # time-major
        z, h = block(rows, 4)
        torch.testing.assert_close(h.view(16, 4, 32).permute(1, 2, 0), residual)
        torch.testing.assert_close((z @ model.skip.weight[:, :32].T).view(16, 4, 512).permute(1, 2, 0), skip)
