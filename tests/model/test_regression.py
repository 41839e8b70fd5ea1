"""Networks of series: values enter as they are, and what comes out are the next ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from wavegen.config import load_config
from wavegen.errors import UsageError
from wavegen.model.building import build_model, parameter_shapes
from wavegen.model.outputs import Regression, Truncation


class PaddedStack(nn.Module):
    """The preset's network as textbooks write it: each layer pads its own input with zeros."""

    def __init__(self, dilations, channels, horizon):
        super().__init__()
        widths = [1, *[channels] * len(dilations)]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(below, channels, 2, dilation=d) for below, d in zip(widths, dilations, strict=False)
        )
        self.last = nn.Conv1d(channels, horizon, 1)

    def forward(self, series):
        """(B, T) to (B, T, horizon)."""
        h = series[:, None]
        for convolution in self.convolutions:
            h = torch.relu(convolution(F.pad(h, (convolution.dilation[0], 0))))
        return self.last(h).transpose(1, 2)


def test_the_preset_is_the_textbooks_network():
    config = load_config("book-simple")
    torch.manual_seed(0)
    stack, book = build_model(config).double(), PaddedStack([1, 2, 4, 8] * 2, 20, 10).double()
    with torch.no_grad():
        for layer, convolution in zip(stack.layers, book.convolutions, strict=True):
            layer.bias.normal_()
            convolution.weight.copy_(layer.weight.permute(1, 2, 0))
            convolution.bias.copy_(layer.bias)
        book.last.weight.copy_(stack.output.weight[:, :, None])
        book.last.bias.copy_(stack.output.bias)
        series = torch.randn(3, 50, dtype=torch.float64)
        nothing = torch.full((3, stack.receptive_field - 1), torch.nan, dtype=torch.float64)
        forecasts = stack(torch.cat([nothing, series], dim=1))
    assert stack.receptive_field == 31
    assert forecasts.shape == (3, 50, 10)
    assert torch.allclose(forecasts, book(series), rtol=0, atol=1e-12)
    assert stack.n_parameters == sum(parameter.numel() for parameter in book.parameters())


@pytest.mark.parametrize("kind", ["wavenet", "stack", "gru", "lstm"])
def test_every_kind_takes_values_and_puts_out_the_horizon(kind):
    config = load_config("book-simple", [f"model.kind={kind}"])
    model = build_model(config)
    assert parameter_shapes(config) == {name: tuple(p.shape) for name, p in model.named_parameters()}
    inputs = torch.randn(2, model.receptive_field + 6)
    assert model(inputs).shape == (2, 7, 10)
    assert not torch.allclose(model(inputs), model(2 * inputs))  # a value is no class, and no look-up


@pytest.mark.parametrize(("error", "expected"), [("squared", [(1 + 0 + 4) / 3, 3.0]), ("absolute", [1.0, 5 / 3])])
def test_the_loss_is_the_mean_over_the_horizon(error, expected):
    forecast = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], requires_grad=True)
    truth = torch.tensor([[2.0, 2.0, 1.0], [2.0, -2.0, 1.0]])
    losses = Regression(3, error).loss(forecast, truth)
    assert losses.tolist() == pytest.approx(expected)
    losses.sum().backward()
    assert forecast.grad is not None


def test_there_is_no_draw():
    with pytest.raises(UsageError, match="temperature, top_k and top_p: not with a model of series"):
        Regression(1).check(Truncation())


def test_first_weights_of_a_stack_are_glorots():
    torch.manual_seed(0)
    model = build_model(load_config("book-simple", ["output.horizon=50"]))
    bound = (6 / (20 + 50)) ** 0.5
    assert 0.98 * bound < model.output.weight.abs().max() <= bound
    assert not model.output.bias.any()


def config_with(*overrides):
    return load_config("book-simple", list(overrides))


def test_a_network_of_values_has_no_classes():
    assert build_model(config_with()).classes == 0
    assert build_model(load_config("small")).classes == 256
