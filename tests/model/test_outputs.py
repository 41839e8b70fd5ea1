import math
from itertools import accumulate

import numpy as np
import pytest
import torch

from wavegen.errors import UsageError
from wavegen.model.outputs import Softmax, Truncation
from wavegen.sampling.sampler import uniforms

TRUNCATIONS = [
    Truncation(),
    Truncation(temperature=0.5),
    Truncation(temperature=2.5),
    Truncation(top_k=1),
    Truncation(top_k=3),
    Truncation(top_k=1000),
    Truncation(top_p=0.5),
    Truncation(top_p=0.999),
    Truncation(top_p=1.0),
    Truncation(top_p=1e-9),
    Truncation(temperature=0.7, top_k=5, top_p=0.8),
    Truncation(temperature=1.6, top_k=9, top_p=0.3),
    Truncation(temperature=0.0, top_k=2),
]


def draw(logits, uniforms, truncation):
    return Softmax(logits.shape[-1]).draw(logits, uniforms, truncation)


def loss(logits, targets):
    return Softmax(logits.shape[-1]).loss(logits, targets)


def kept_probabilities(logits, truncation):
    """The definition, step by step: temperature, then top-k, then top-p; class -> probability, in class order."""
    scaled = [logit / truncation.temperature for logit in logits]
    kept = sorted(range(len(logits)), key=lambda c: (-scaled[c], c))  # the likeliest first, ties: the lower class
    if truncation.top_k is not None:
        kept = kept[: truncation.top_k]
    highest = max(scaled)
    mass = {c: math.exp(scaled[c] - highest) for c in kept}
    if truncation.top_p is not None:
        enough, reached = truncation.top_p * math.fsum(mass.values()), []
        while math.fsum(mass[c] for c in reached) < enough and len(reached) < len(kept):
            reached.append(kept[len(reached)])
        kept = reached
    total = math.fsum(mass[c] for c in kept)
    return {c: mass[c] / total for c in sorted(kept)}


def slow_draw(logits, u, truncation):
    if truncation.temperature == 0:
        return logits.index(max(logits))
    kept = kept_probabilities(logits, truncation)
    for c, cumulative in zip(kept, accumulate(kept.values()), strict=True):
        if u < cumulative:
            return c
    return max(kept)


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("spread", ["smooth", "ties", "steep"])
def test_draws_are_those_of_the_slow_definition(truncation, spread):
    """Chance of a false alarm: a u or a top-p within 1e-13 of a boundary, < 1e-8 in all; the seed is fixed anyway."""
    rng = np.random.default_rng(11)
    logits = rng.standard_normal((400, 12)).astype(np.float32)
    if spread == "ties":
        logits = np.round(logits)
    if spread == "steep":
        logits *= 30
    u = rng.random(400)
    drawn = draw(torch.from_numpy(logits), torch.from_numpy(u), truncation)
    assert drawn.dtype == torch.int64
    assert drawn.tolist() == [
        slow_draw(row, number, truncation) for row, number in zip(logits.tolist(), u.tolist(), strict=True)
    ]


@pytest.mark.parametrize("truncation", TRUNCATIONS[:-1], ids=str)
def test_frequencies_are_the_probabilities(truncation):
    """Chance of a false alarm: 5 standard deviations for each of 8 classes, < 5e-6; the seed is fixed anyway."""
    logits = [0.3, -1.0, 2.0, 0.3, 0.3, -3.0, 1.5, 0.0]
    n = 100_000
    u = torch.from_numpy(uniforms(seed=12, clip=0, start=0, stop=n))
    drawn = draw(torch.tensor([logits]).expand(n, -1), u, truncation)
    frequency = np.bincount(drawn.numpy(), minlength=8) / n
    expected = np.zeros(8)
    kept = kept_probabilities(logits, truncation)
    expected[list(kept)] = list(kept.values())
    assert (np.abs(frequency - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()


def test_among_equals_the_lower_class_is_kept_first():
    logits = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 1.0]])
    evenly = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    for truncation, kept in [
        (Truncation(top_k=1), {1}),
        (Truncation(top_k=2), {1, 3}),
        (Truncation(top_k=3), {0, 1, 3}),
        (Truncation(top_k=4), {0, 1, 2, 3}),
        (Truncation(top_k=5, top_p=1.0), {0, 1, 2, 3, 4}),
    ]:
        assert set(draw(logits.expand(1000, -1), evenly, truncation).tolist()) == kept
    many = torch.zeros(1000, 256)  # where sorting algorithms that do not keep the order of equals differ
    assert set(draw(many, evenly, Truncation(top_k=10)).tolist()) == set(range(10))
    alike = torch.zeros(1000, 16)  # a sixteenth each: a top-p of one half is reached by eight, exactly
    assert set(draw(alike, evenly, Truncation(top_p=0.5)).tolist()) == set(range(8))


def test_top_k_comes_before_top_p():
    # Alone, a top-p of 0.6 keeps {0, 1, 2}; of the two that top-k leaves, {0} has 0.5 and {0, 1} has all.
    logits = torch.zeros(1, 4)
    evenly = torch.linspace(0, 1, 101, dtype=torch.float64)[:-1]
    drawn = draw(logits.expand(100, -1), evenly, Truncation(top_k=2, top_p=0.5))
    assert set(drawn.tolist()) == {0}


def test_classes_are_drawn_in_class_order():
    logits = torch.log(torch.tensor([[0.25, 0.5, 0.25]])).expand(6, -1)
    u = torch.tensor([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, u, Truncation()).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("u", [1 - 2**-53, 1.0])
def test_a_number_beyond_the_last_kept_class_takes_that_class(u):
    beyond = torch.tensor([u], dtype=torch.float64)
    assert draw(torch.tensor([[0.0, 1.0, 0.5, -9.0]]), beyond, Truncation(top_k=2)).item() == 2
    assert draw(torch.tensor([[0.0, 0.0, -1e4, -1e4]]), beyond, Truncation()).item() == 1
    assert draw(torch.zeros(1, 256), beyond, Truncation()).item() == 255


def test_an_impossible_class_is_never_drawn():
    zero = torch.zeros(1, dtype=torch.float64)
    assert draw(torch.tensor([[-1e4, 0.0, 0.0]]), zero, Truncation()).item() == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 1e-30, 1e-300, 5e-324])
def test_little_temperature_takes_the_likeliest_class(temperature):
    logits = torch.tensor([[3.0, 7.0, 6.9, -50.0], [-2.0, -9.0, -1.0, -30.0], [4.0, 9.0, 8.0, 1.0]])
    u = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits, u, Truncation(temperature=temperature)).tolist() == [1, 2, 1]


def test_without_temperature_the_lowest_of_equals_is_taken():
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0]])
    assert draw(logits, torch.tensor([0.99], dtype=torch.float64), Truncation(temperature=0)).item() == 1


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"temperature": -0.5}, "temperature: expected a number, 0 or more, found -0.5"),
        ({"temperature": math.nan}, "temperature: expected a number, 0 or more, found nan"),
        ({"temperature": math.inf}, "temperature: expected a number, 0 or more, found inf"),
        ({"top_k": 0}, "top_k: expected a whole number, 1 or more, up to 65536, found 0"),
        ({"top_p": 0.0}, "top_p: expected a number above 0 and at most 1, found 0"),
        ({"top_p": 1.5}, "top_p: expected a number above 0 and at most 1, found 1.5"),
        ({"top_p": math.nan}, "top_p: expected a number above 0 and at most 1, found nan"),
    ],
)
def test_a_value_out_of_range_is_a_wrong_call(values, text):
    with pytest.raises(UsageError) as caught:
        Truncation(**values)
    assert str(caught.value) == text
    assert caught.value.exit_code == 2


def test_the_loss_is_the_negative_log_likelihood():
    generator = torch.Generator().manual_seed(13)
    logits = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(7, (3, 5), generator=generator)
    expected = [
        [math.log(sum(map(math.exp, row))) - row[c] for row, c in zip(rows, classes, strict=True)]
        for rows, classes in zip(logits.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(loss(logits, targets), torch.tensor(expected, dtype=torch.float64))


def test_the_loss_of_bfloat16_logits_is_summed_in_float32():
    logits = torch.randn(4, 256, generator=torch.Generator().manual_seed(14)).bfloat16()
    targets = torch.tensor([0, 1, 200, 255])
    nats = loss(logits, targets)
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, loss(logits.float(), targets), rtol=0, atol=0)
