"""Sampling options: values in range, names that exist."""

import math

import pytest

from wavegen.errors import ParameterError, UsageError
from wavegen.sampling.sampler import SamplingOptions, samples_in


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"count": 0}, "count: expected a whole number, 1 or more, found 0"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 2^64 - 1, found -1"),
        ({"seed": 2**64}, "seed: expected a whole number from 0 to 2^64 - 1, found 18446744073709551616"),
        ({"temperature": -1.0}, "temperature: expected a number, 0 or more, found -1"),
        ({"threads": 0}, "threads: expected a whole number, 1 or more, up to 1024, found 0"),
        ({"labels": ["a", "b"]}, "labels: expected at most one for each clip, found 2 for 1"),
    ],
)
def test_a_value_out_of_range_names_its_parameter(values, text):
    with pytest.raises(ParameterError) as caught:
        SamplingOptions(**values)
    assert str(caught.value) == text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "seconds: expected a number above 0, or inf, found 0"),
        (math.nan, "seconds: expected a number above 0, or inf, found nan"),
        (1e12, "seconds: expected at most 10,000,000, or inf, found 1e+12"),
        (1e-5, "seconds=1e-05: shorter than one sample at 8,000 Hz"),
    ],
)
def test_a_length_out_of_range_is_refused(seconds, text):
    with pytest.raises(ParameterError) as caught:
        samples_in(seconds, 8000)
    assert str(caught.value) == text


def test_an_unknown_keyword_is_refused_with_the_nearest_known_one():
    with pytest.raises(UsageError, match=r"^unknown keyword 'temprature'; did you mean 'temperature'\?$"):
        SamplingOptions.from_keywords({"temprature": 1.0})
    with pytest.raises(UsageError, match=r"^unknown keyword 'xyz'; expected one of count, temperature, top_k"):
        SamplingOptions.from_keywords({"xyz": 1.0})


def test_the_command_line_words_an_error_with_its_own_names():
    error = ParameterError("top_k", "expected less", 5, {"engine": "torch", "threads": 1})
    assert str(error) == "top_k=5: expected less; give engine='torch' or threads=1"
    assert error.worded(lambda name, value: f"<{name} {value}>") == (
        "<top_k 5>: expected less; give <engine torch> or <threads 1>"
    )
