import math

import pytest

from wavegen.config.schema import TrainingConfig
from wavegen.training.step import schedule_factor


def rates(total_steps, warmup_steps, schedule):
    settings = TrainingConfig(warmup_steps=warmup_steps, schedule=schedule)
    return [0.5 * schedule_factor(step, settings, total_steps) for step in range(total_steps)]


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_warm_up_is_a_straight_line_from_above_zero(schedule):
    assert rates(100, 9, schedule)[:9] == pytest.approx([0.05 * (step + 1) for step in range(9)])


def test_constant_stays_at_the_peak():
    assert rates(50, 10, "constant")[10:] == [0.5] * 40
    assert rates(5, 0, "constant") == [0.5] * 5


@pytest.mark.parametrize("warmup_steps", [0, 10])
def test_cosine_falls_along_half_a_cosine(warmup_steps):
    falling = rates(warmup_steps + 1000, warmup_steps, "cosine")[warmup_steps:]
    assert falling[0] == pytest.approx(0.5, rel=1e-5)
    assert falling[250] == pytest.approx(0.5 * (1 + math.sqrt(0.5)) / 2, rel=5e-3)
    assert (falling[499] + falling[500]) / 2 == pytest.approx(0.25, rel=1e-9)
    assert falling == sorted(falling, reverse=True)
    assert all(a + b == pytest.approx(0.5) for a, b in zip(falling, reversed(falling), strict=True))
    assert 0 < falling[-1] < 1e-6


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize(
    ("total_steps", "warmup_steps"), [(1, 0), (1, 1), (2, 1), (5, 5), (5, 4), (3, 100), (300, 100)]
)
def test_every_step_counts_and_none_exceeds_the_peak(total_steps, warmup_steps, schedule):
    assert all(0 < rate <= 0.5 for rate in rates(total_steps, warmup_steps, schedule))


def test_the_last_of_very_many_steps_still_counts():
    assert schedule_factor(10**9 - 1, TrainingConfig(), 10**9) > 0
