"""The fused stack is the same function as the blocks, forward and backward."""

import itertools

import pytest
import torch

from wavegen.bench import textbook
from wavegen.model import fused_stack as fused
from wavegen.model.fused_stack import FusedStack

SHAPES = [
    {},
    {"kernel_size": 3, "dilations": [1, 3, 9, 2]},
    {"kernel_size": 4, "dilations": [2, 1], "residual_channels": 17, "gate_channels": 16},
    {"residual_channels": 16, "gate_channels": 33, "skip_channels": 64},
    {"residual_channels": 32, "gate_channels": 32, "dilations": [1, 2, 4, 8, 16]},
    {"dilations": [5]},
    {"kernel_size": 64, "dilations": [1, 2]},
]
BATCHES = [(1, 1), (3, 40), (2, 333)]


def random_classes(model, batch, n_targets):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(model.classes, (batch, model.receptive_field - 1 + n_targets), generator=generator)


def logits_and_gradients(model, inputs, stack=None):
    """A smooth function of the stack's output, and its gradients: a ReLU's kink would magnify rounding."""
    skip = (stack or model.stack)(model.embed(inputs), len(inputs))
    weights = torch.randn(skip.shape, generator=torch.Generator().manual_seed(2)).to(skip.dtype)
    below = [p for module in (model.input, *model.blocks, model.skip) for p in module.parameters()]
    return skip.detach(), list(torch.autograd.grad((skip * weights).sum(), below))


def relative_errors(found, expected):
    return max(
        float((mine.double() - theirs.double()).norm() / theirs.double().norm())
        for mine, theirs in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("batch", "n_targets"), BATCHES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)) or "plain")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
def test_agrees_with_the_blocks_in_float64(random_model, shape, batch, n_targets, dtype, tolerance):
    model, exact = random_model(**shape), random_model(**shape, dtype=torch.float64)
    inputs = random_classes(model, batch, n_targets)
    stack = FusedStack(model.residual_blocks, model.skip, dtype)
    skip, gradients = logits_and_gradients(model, inputs, stack)
    expected_skip, expected = logits_and_gradients(exact, inputs)
    assert relative_errors([skip], [expected_skip]) < tolerance
    assert relative_errors(gradients, expected) < tolerance


@pytest.mark.parametrize("input_kind", ["embedding", "one_hot", "scalar"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
def test_serves_every_input(random_model, input_kind, dtype, tolerance):
    model = random_model(input_kind=input_kind)
    inputs = random_classes(model, 2, 50)
    stack = FusedStack(model.residual_blocks, model.skip, dtype)
    _, gradients = logits_and_gradients(model, inputs, stack)
    _, expected = logits_and_gradients(model, inputs)
    assert relative_errors(gradients, expected) < tolerance


def test_forward_only_is_the_same_and_has_no_backward(random_model):
    model = random_model()
    inputs = random_classes(model, 2, 50)
    both, one = (FusedStack(model.residual_blocks, model.skip, torch.float32, forward_only=f) for f in (False, True))
    expected, found = (stack(model.embed(inputs), 2) for stack in (both, one))
    assert torch.equal(expected, found)
    with pytest.raises(RuntimeError, match="backward pass"):
        found.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cache_bytes", [1, 20_000])
def test_computing_the_gates_again_gives_the_very_same_gradients(random_model, monkeypatch, dtype, cache_bytes):
    monkeypatch.setattr(fused, "CACHE_BYTES", cache_bytes)  # many stretches, and some with skips in their middle
    model = random_model(kernel_size=3)
    inputs = random_classes(model, 3, 200)
    once, again = (FusedStack(model.residual_blocks, model.skip, dtype, recompute) for recompute in (False, True))
    results = [logits_and_gradients(model, inputs, stack) for stack in (once, again)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(results[0][1], results[1][1], strict=True))
    assert len(once.stretches[0]) > 1


def test_stretches_change_nothing_but_rounding(random_model, monkeypatch):
    model = random_model(dilations=[1, 2, 4, 8])
    inputs = random_classes(model, 2, 100)
    results = []
    for cache_bytes in (1, 10_000, 1 << 20):
        monkeypatch.setattr(fused, "CACHE_BYTES", cache_bytes)
        results.append(
            logits_and_gradients(model, inputs, FusedStack(model.residual_blocks, model.skip, torch.float32))[1]
        )
    for mine, others in itertools.combinations(results, 2):
        assert relative_errors(mine, others) < 1e-5


def test_buffers_are_used_again_and_follow_the_shape(random_model):
    model = random_model()
    stack = FusedStack(model.residual_blocks, model.skip, torch.float32)
    for batch, n_targets in ((2, 30), (2, 30), (1, 70), (2, 30)):
        inputs = random_classes(model, batch, n_targets)
        _, gradients = logits_and_gradients(model, inputs, stack)
        _, expected = logits_and_gradients(model, inputs)
        assert relative_errors(gradients, expected) < 1e-5


def test_gradients_outlive_the_next_call(random_model):
    model = random_model()
    inputs = random_classes(model, 2, 30)
    stack = FusedStack(model.residual_blocks, model.skip, torch.float32)
    _, gradients = logits_and_gradients(model, inputs, stack)
    kept = [gradient.clone() for gradient in gradients]
    logits_and_gradients(model, inputs.flip(1), stack)
    assert all(torch.equal(now, then) for now, then in zip(gradients, kept, strict=True))


def test_a_backward_pass_too_late_is_refused(random_model):
    model = random_model()
    inputs = random_classes(model, 1, 30)
    stack = FusedStack(model.residual_blocks, model.skip, torch.float32)
    early = stack(model.embed(inputs), 1)
    stack(model.embed(inputs), 1)
    with pytest.raises(RuntimeError, match="right after its forward pass"):
        early.sum().backward()


def test_large_activations_saturate(random_model):
    model = random_model()
    with torch.no_grad():
        for block in model.blocks:
            block.conv.weight *= 1e4
    exact = random_model(dtype=torch.float64)
    exact.load_state_dict(model.state_dict())
    inputs = random_classes(model, 1, 30)
    skip, gradients = logits_and_gradients(model, inputs, FusedStack(model.residual_blocks, model.skip, torch.float32))
    expected, _ = logits_and_gradients(exact, inputs)
    assert relative_errors([skip], [expected]) < 1e-4
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_weight_that_is_not_a_number_is_not_hidden(random_model, dtype):
    model = random_model()
    with torch.no_grad():
        model.blocks[0].conv.weight[0, 0, 0] = float("nan")
    skip, _ = logits_and_gradients(
        model, random_classes(model, 1, 30), FusedStack(model.residual_blocks, model.skip, dtype)
    )
    assert skip.isnan().any()


@pytest.mark.parametrize("input_kind", ["embedding", "one_hot", "scalar"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(map(str, shape)) or "plain")
def test_the_textbook_is_the_same_function(random_model, shape, input_kind):
    """Outputs and gradients in float64, from the same parameters."""
    model = random_model(**shape, input_kind=input_kind, dtype=torch.float64)
    inputs = random_classes(model, 2, 50)
    outputs = [model(inputs), textbook(model, inputs)]
    torch.testing.assert_close(*outputs, rtol=1e-9, atol=1e-9)
    weights = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = [torch.autograd.grad((each * weights).sum(), list(model.parameters())) for each in outputs]
    for mine, theirs in zip(*found, strict=True):
        assert float(mine.norm()) > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
