"""Errors travel between processes: a pool pickles what its worker raised."""

import pickle

import pytest

from wavegen.errors import AudioError, ConfigError, DataError, ParameterError, UsageError
from wavegen.training.process_group import RemoteError

ERRORS = [
    AudioError("a.wav: damaged", lasting=False),
    ConfigError(["my.yaml:1: a", "my.yaml:2: b"]),
    DataError("none; give {recordings}", {"recordings": "DIR"}),
    ParameterError("top_k", "expected less", 5, {"engine": "torch"}),
    RemoteError(3),
    UsageError("none"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_another_process_is_the_same(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
