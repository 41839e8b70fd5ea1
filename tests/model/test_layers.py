import pytest
import torch
from torch.nn import functional as F

from wavegen.model.layers import CausalConv, EmbeddingInput, OneHotInput, ResidualBlock, ScalarInput

BATCHES = [1, 2, 5]


def rows_of(x):
    """(B, C, T) -> (T * B, C) time-major rows."""
    return x.permute(2, 0, 1).reshape(-1, x.shape[1])


def textbook_of(rows, batch):
    """(T * B, C) time-major rows -> (B, C, T)."""
    return rows.view(-1, batch, rows.shape[1]).permute(1, 2, 0)


def random_conv(in_channels, out_channels, kernel_size, dilation):
    conv = CausalConv(in_channels, out_channels, kernel_size, dilation).double()
    torch.nn.init.normal_(conv.bias)
    return conv


def conv1d(conv, x):
    return F.conv1d(x, conv.weight.permute(1, 2, 0), conv.bias, dilation=conv.dilation)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
@pytest.mark.parametrize("kernel_size", [2, 3, 4, 7])
def test_a_causal_convolution_is_conv1d(kernel_size, dilation, batch):
    torch.manual_seed(1)
    conv = random_conv(3, 5, kernel_size, dilation)
    x = torch.randn(batch, 3, conv.reach + 11, dtype=torch.float64)
    y = textbook_of(conv(rows_of(x), batch), batch)
    assert conv.reach == (kernel_size - 1) * dilation
    assert y.shape == (batch, 5, 11)
    torch.testing.assert_close(y, conv1d(conv, x), rtol=0, atol=1e-12)


def test_a_convolutions_gradients_are_those_of_conv1d():
    torch.manual_seed(2)
    conv = random_conv(3, 5, kernel_size=3, dilation=4)
    x = torch.randn(2, 3, 30, dtype=torch.float64, requires_grad=True)
    seen = [x, conv.weight, conv.bias]
    projection = torch.randn(2, 5, 22, dtype=torch.float64)
    ours = torch.autograd.grad((textbook_of(conv(rows_of(x), 2), 2) * projection).sum(), seen)
    theirs = torch.autograd.grad((conv1d(conv, x) * projection).sum(), seen)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_residual_block_is_the_papers(batch, last):
    torch.manual_seed(3)
    block = ResidualBlock(4, 6, kernel_size=3, dilation=2, last=last).double()
    torch.nn.init.normal_(block.conv.bias)
    x = torch.randn(batch, 4, 20, dtype=torch.float64)
    z, h = (textbook_of(rows, batch) for rows in block(rows_of(x), batch))

    filter_, gate = conv1d(block.conv, x).split(6, dim=1)
    expected = torch.tanh(filter_) * torch.sigmoid(gate)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-12)
    if not last:
        residual = F.conv1d(expected, block.residual.weight[:, :, None])
        torch.testing.assert_close(h, x[:, :, 4:] + residual, rtol=0, atol=1e-12)


def test_the_last_block_has_no_residual_weights():
    assert {name for name, _ in ResidualBlock(4, 6, 2, 1, last=True).named_parameters()} == {
        "conv.weight",
        "conv.bias",
    }


@pytest.mark.parametrize("classes", [2, 5, 256])
def test_a_scalar_input_spreads_the_classes_evenly_from_minus_one_to_one(classes):
    layer = ScalarInput(classes, 3).double()
    places = torch.linspace(-1, 1, classes, dtype=torch.float64)
    torch.testing.assert_close(layer(torch.arange(classes)), layer.linear(places[:, None]), rtol=0, atol=1e-12)


def test_a_one_hot_input_is_a_one_hot_vector_times_a_matrix():
    torch.manual_seed(4)
    layer = OneHotInput(7, 3)
    torch.nn.init.normal_(layer.bias)
    classes = torch.tensor([6, 0, 3, 3])
    expected = F.one_hot(classes, 7).float() @ layer.weight + layer.bias
    torch.testing.assert_close(layer(classes), expected)


# --- the first weights of an input layer -------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 16, 256, 4096])
@pytest.mark.parametrize("build", [EmbeddingInput, OneHotInput])
def test_near_classes_look_alike_from_the_start(build, classes):
    torch.manual_seed(0)
    weight = build(classes, 64).weight.detach()
    assert weight.shape == (classes, 64)
    assert 0.5 < float(weight.std()) < 1.5
    distance = torch.cdist(weight, weight)
    if classes >= 16:
        assert float(distance.diagonal(1).max()) < float(distance.diagonal(classes // 2).min())
    assert float(distance[~torch.eye(classes, dtype=torch.bool)].min()) > 1e-4  # and no two the same
