"""Conditions in the gates: what each step sees, in every way to compute the network, and their gradients."""

import numpy as np
import pytest
import torch

from wavegen.bench import textbook
from wavegen.config import load_config
from wavegen.data.conditioning import ClipCondition, join_segments
from wavegen.model import fused_stack as fused
from wavegen.model.building import build_model, parameter_shapes
from wavegen.model.fused_stack import FusedStack
from wavegen.model.layers import Condition, triangle

KINDS = {
    "labels": {"n_labels": 3, "label_channels": 4},
    "mel": {"frame_channels": 5},
    "learned": {"frame_channels": 5, "upsampling": 4},
    "both": {"n_labels": 3, "label_channels": 4, "frame_channels": 5, "upsampling": 3},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def random_classes(model, batch, n_targets, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.classes, (batch, model.receptive_field - 1 + n_targets), generator=generator)


def random_condition(model, batch, steps, n_rows=6, dtype=torch.float32, seed=2):
    generator = torch.Generator().manual_seed(seed)
    part = model.conditioning
    labels = torch.rand(batch, n_rows, part.n_labels, generator=generator).to(dtype) if part.n_labels else None
    frames = (
        torch.randn(batch, n_rows, part.frame_channels, generator=generator).to(dtype) if part.frame_channels else None
    )
    row_of = torch.randint(n_rows * part.rows_per_frame, (batch, steps), generator=generator)
    return Condition(labels, frames, row_of)


def slow(model, inputs, condition):
    """The network written out in loops over blocks and steps, one sequence at a time; float64."""
    part, results = model.conditioning, []
    for b in range(len(inputs)):
        rows = []
        for r in range(len((condition.labels if condition.frames is None else condition.frames)[b])):
            for sub in range(part.rows_per_frame):
                seen = [] if condition.labels is None else [condition.labels[b, r] @ part.labels]
                if condition.frames is not None and part.upsampling == 1:
                    seen.append(condition.frames[b, r])
                elif condition.frames is not None:
                    u, w = part.upsampling, part.interpolation
                    total = torch.zeros_like(condition.frames[b, r])
                    for j, frame in enumerate(condition.frames[b]):
                        place = u // 2 + sub + (r - j) * u
                        if 0 <= place < 2 * u:
                            total = total + w[:, place] * frame
                    seen.append(total)
                rows.append(part.projection @ torch.cat(seen))
        h, skips = model.input(inputs[b]), []
        for i, block in enumerate(model.residual_blocks):
            conv, n = block.conv, len(h)
            gates = []
            for t in range(conv.reach, n):
                g = conv.bias.clone()
                for tap in range(conv.kernel_size):
                    g = g + conv.weight[tap] @ h[t - (conv.kernel_size - 1 - tap) * conv.dilation]
                step = t + inputs.shape[1] - n
                gates.append(g + rows[int(condition.row_of[b, step])].view(len(model.blocks), -1)[i])
            filter_, gate = torch.stack(gates).chunk(2, dim=-1)
            z = torch.tanh(filter_) * torch.sigmoid(gate)
            skips.append(z)
            h = h[conv.reach :] if block.residual is None else h[conv.reach :] + block.residual(z)
        n = len(skips[-1])
        results.append(model.predict(model.skip(torch.cat([z[-n:] for z in skips], dim=-1))))
    return torch.stack(results)


@every_kind
def test_every_block_adds_what_its_step_sees(random_model, kind):
    model = random_model(kernel_size=3, dilations=[1, 2], dtype=torch.float64, **KINDS[kind])
    inputs = random_classes(model, 2, 7)
    condition = random_condition(model, 2, inputs.shape[1], n_rows=4, dtype=torch.float64)
    torch.testing.assert_close(model(inputs, condition=condition), slow(model, inputs, condition))


@every_kind
def test_the_textbook_agrees(random_model, kind):
    model = random_model(dtype=torch.float64, **KINDS[kind])
    inputs = random_classes(model, 3, 20)
    condition = random_condition(model, 3, inputs.shape[1], dtype=torch.float64)
    torch.testing.assert_close(textbook(model, inputs, condition), model(inputs, condition=condition))


def test_a_condition_affects_the_prediction_of_its_sample_and_all_that_see_it(random_model):
    """By gradient: the prediction of sample t depends on the conditions of the steps in its receptive field only."""
    model = random_model(frame_channels=2, skip_channels=30, head_channels=30, dtype=torch.float64)
    field, n = model.receptive_field, 9
    inputs = random_classes(model, 1, n)
    steps = inputs.shape[1]
    frames = torch.randn(1, steps, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    logits = model(inputs, condition=Condition(None, frames, torch.arange(steps)[None]))
    for i in range(n):
        (gradient,) = torch.autograd.grad(logits[0, i].sum(), frames, retain_graph=True)
        depends = gradient[0].abs().sum(dim=-1) > 0
        assert depends[i + field - 1], "the step that predicts it"
        assert not depends[i + field :].any()
        assert not depends[:i].any()


def test_a_new_network_begins_as_if_there_were_no_conditions():
    keys = ["data.labels=subfolders", "data.label_names=[a, b]", "mel.n_mels=4", "model.dilation_cycle=2"]
    torch.manual_seed(0)
    plain = build_model(load_config("small", keys[3:]))
    torch.manual_seed(0)
    model = build_model(load_config("small", keys))
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, dict(model.named_parameters())[name]), "the same first weights"
    inputs = random_classes(model, 2, 10)
    torch.nn.init.normal_(model.output.weight)
    plain.output.weight = model.output.weight
    assert torch.equal(model(inputs, condition=random_condition(model, 2, inputs.shape[1])), plain(inputs))


@pytest.mark.parametrize(
    "keys",
    [
        ["data.labels=subfolders", "data.label_names=[a, b, c]", "model.label_channels=5"],
        ["data.labels=subfolders"],
        ["data.label_names=[a, b, c]"],
        ["mel.n_mels=7"],
        ["mel.n_mels=7", "mel.upsampling=20", "data.labels=subfolders", "data.label_names=[a]"],
    ],
    ids=str,
)
def test_shapes_without_torch_are_the_models(keys):
    config = load_config("small", ["model.dilation_cycle=2", *keys])
    found = {name: tuple(parameter.shape) for name, parameter in build_model(config).named_parameters()}
    assert parameter_shapes(config) == found


def test_conditions_cost_no_multiply_adds_at_each_sample(random_model):
    assert random_model(**KINDS["both"]).multiply_adds == random_model().multiply_adds


def test_a_missing_and_a_needless_condition_are_refused(random_model):
    plain, model = random_model(), random_model(**KINDS["labels"])
    inputs = random_classes(model, 1, 3)
    with pytest.raises(ValueError, match="expected a condition for a conditioned network, and none for another"):
        model(inputs)
    with pytest.raises(ValueError, match="expected a condition for a conditioned network, and none for another"):
        plain(inputs, condition=random_condition(model, 1, inputs.shape[1]))


@every_kind
def test_queues_hold_what_the_forward_pass_had(random_model, kind):
    """The last inputs of each block, with the conditions of a past that ends anywhere."""
    model = random_model(kernel_size=3, dtype=torch.float64, **KINDS[kind])
    inputs = random_classes(model, 2, 1)
    condition = random_condition(model, 2, inputs.shape[1], dtype=torch.float64)
    heard = []
    hooks = [block.register_forward_pre_hook(lambda _, args: heard.append(args[0])) for block in model.blocks]
    model(inputs, condition=condition)
    expected = list(heard)
    heard.clear()
    queues = model.queues(inputs, condition)
    for hook in hooks:
        hook.remove()
    for block, held, whole in zip(model.residual_blocks, queues, expected, strict=True):
        torch.testing.assert_close(held, whole[-block.conv.reach * 2 :].view(block.conv.reach, 2, -1))


# --- learned upsampling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsampling", [2, 3, 4, 10, 25])
def test_learned_upsampling_begins_as_linear_interpolation_between_the_middles(upsampling):
    config = load_config(
        "small", ["mel.n_mels=2", "mel.n_fft=1000", f"mel.upsampling={upsampling}", "mel.hop_length=300"]
    )
    part = build_model(config).conditioning
    frames = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(5))
    rows = part.upsample(frames)
    assert rows.shape == (1, 6 * upsampling, 2)
    middles = (np.arange(6 * upsampling) + 0.5) / upsampling - 0.5  # of the rows, in frames
    for band in range(2):
        expected = np.interp(middles, np.arange(6), frames[0, :, band].numpy())
        inner = slice(upsampling, -upsampling)  # the outermost frames are context
        np.testing.assert_allclose(rows[0, inner, band].detach().numpy(), expected[inner], atol=1e-5)
    weights = triangle(upsampling)
    torch.testing.assert_close(weights[:upsampling] + weights[upsampling:], torch.ones(upsampling))


# --- the fused stack ---------------------------------------------------------------------------------------------


def gradients_of(model, inputs, condition, stack=None):
    """Of a smooth function of the stack's output."""
    rows = model.gate_bias(condition)
    skip = (stack or model.stack)(model.embed(inputs), len(inputs), rows)
    weights = torch.randn(skip.shape, generator=torch.Generator().manual_seed(3)).to(skip.dtype)
    below = [p for m in (model.input, *model.blocks, model.skip, model.conditioning) for p in m.parameters()]
    return skip.detach(), list(torch.autograd.grad((skip * weights).sum(), below))


def largest_error(found, expected):
    return max(
        float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)], ids=str)
@pytest.mark.parametrize("cache_bytes", [20_000, 1 << 20])
@every_kind
def test_the_fused_stacks_gradients_are_autograds(
    random_model, monkeypatch, kind, cache_bytes, dtype, tolerance, recompute
):
    monkeypatch.setattr(fused, "CACHE_BYTES", cache_bytes)  # many stretches, and one
    shape = {"kernel_size": 3, "residual_channels": 17, "gate_channels": 18, **KINDS[kind]}
    model, exact = random_model(**shape), random_model(**shape, dtype=torch.float64)
    inputs = random_classes(model, 3, 90)
    condition = random_condition(model, 3, inputs.shape[1])
    wide = Condition(*(one if one is None or not one.is_floating_point() else one.double() for one in condition))
    stack = FusedStack(model.residual_blocks, model.skip, dtype, recompute)
    skip, gradients = gradients_of(model, inputs, condition, stack)
    expected_skip, expected = gradients_of(exact, inputs, wide)
    assert largest_error([skip], [expected_skip]) < tolerance
    assert largest_error(gradients, expected) < tolerance


def test_conditions_of_one_call_do_not_stay_for_the_next(random_model):
    model = random_model(**KINDS["both"])
    inputs = random_classes(model, 2, 30)
    stack = FusedStack(model.residual_blocks, model.skip, torch.float32)
    for seed, n_rows in ((5, 6), (6, 9), (7, 2)):
        condition = random_condition(model, 2, inputs.shape[1], n_rows, seed=seed)
        found, expected = (gradients_of(model, inputs, condition, one) for one in (stack, None))
        assert largest_error([found[0], *found[1]], [expected[0], *expected[1]]) < 1e-5


# --- from clips --------------------------------------------------------------------------------------------------


def test_windows_at_any_offset_are_the_clips_own(random_model):
    """A clip's steps get the same conditions from a window's table as from the whole clip's."""
    rng = np.random.default_rng(0)
    model = random_model(**{**KINDS["both"], "upsampling": 4}, dtype=torch.float64)
    label = np.array([0.2, 0.8, 0.0], np.float32)
    clip = ClipCondition(label, rng.standard_normal((7, 5)).astype(np.float32), hop_length=12, upsampling=4)
    n_samples = 7 * 12 - 5  # the last frame in part

    def added(first, stop):
        rows = model.gate_bias(Condition.of([clip.rows(first, stop)], torch.device("cpu")))
        return rows.of_block(1, stop - first)

    whole = added(0, n_samples)
    assert len(torch.unique(whole, dim=0)) == 6 * 4 + 3, "four rows of each frame, and what there is of the last"
    for first, stop in [(0, 1), (0, 12), (11, 13), (5, 60), (40, 79), (78, 79), (13, 14)]:
        torch.testing.assert_close(added(first, stop), whole[first:stop])
    torch.testing.assert_close(added(-20, 3), torch.cat([whole[:1].expand(20, -1), whole[:3]]))
    torch.testing.assert_close(added(-9, -4), whole[:1].expand(5, -1))
    joined = join_segments([(clip, 70, 79), (clip, -3, 20)], n_rows=12, length=40)
    both = model.gate_bias(Condition.of([joined], torch.device("cpu"))).of_block(1, 40)
    torch.testing.assert_close(both[:9], whole[70:])
    torch.testing.assert_close(both[9:32], torch.cat([whole[:1].expand(3, -1), whole[:20]]))
