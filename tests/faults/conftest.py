"""The length of fault injection: WAVEGEN_FAULTS is "long" for `make test-faults`, or a multiple of the short form."""

import os
import threading

import pytest

from command_line import wavegen
from recordings import write_tones

FAULTS = os.environ.get("WAVEGEN_FAULTS", "1")
TINY_YAML = """
audio: {sample_rate_hz: 4000}
model: {cycles: 1, dilation_cycle: 4, residual_channels: 8, gate_channels: 8, skip_channels: 8, head_channels: 8}
training:
  steps: 6
  batch_size: 2
  window_targets: 100
  threads: 1
  precision: float32
  checkpoint_every: 2
  validate_every: 3
  audition_every: 3
  audition_seconds: 0.1
"""


@pytest.fixture(scope="session")
def how_many():
    """Return the number of cases: the first every day, the second in the long form."""
    return lambda short, long: long if FAULTS == "long" else short * int(FAULTS)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with recordings, a configuration and a small run trained on them, for tests that change none of it."""
    home = tmp_path_factory.mktemp("home")
    write_tones(home / "recordings", range(150, 390, 20))
    (home / "tiny.yaml").write_text(TINY_YAML)
    wavegen("train", "recordings", "--config", "tiny.yaml", "--run", "run", cwd=home)
    return home


@pytest.fixture
def same_threads():
    """No thread is left behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
