"""How long fault injection takes: WAVEGEN_FAULTS is "long" for `make test-faults`, or so many times the short form."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

FAULTS = os.environ.get("WAVEGEN_FAULTS", "1")
COMMAND = [sys.executable, "-W", "error", "-m", "wavegen"]
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
def how_many() -> Callable[[int, int], int]:
    """How many cases: the first number every day, the second in the long form."""
    return lambda short, long: long if FAULTS == "long" else short * int(FAULTS)


@pytest.fixture(scope="session")
def wavegen() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line; whatever it meets, it shows no traceback."""

    def run(*arguments: object, exit_code: int = 0, cwd: Path | None = None, timeout: float = 120, **environment: str):
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == exit_code, done.stderr
        return done

    return run


def write_recordings(folder: Path, n: int = 12, rate_hz: int = 4000) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    seconds = np.arange(rate_hz // 2) / rate_hz
    for i in range(n):
        clip = 0.5 * np.sin(2 * np.pi * (150 + 20 * i) * seconds) + 0.01 * rng.standard_normal(len(seconds))
        soundfile.write(folder / f"clip{i}.wav", clip, rate_hz)
    return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, wavegen) -> Path:
    """A folder with recordings, a configuration and a small run trained on them, for tests that change none of it."""
    home = tmp_path_factory.mktemp("home")
    write_recordings(home / "recordings")
    (home / "tiny.yaml").write_text(TINY_YAML)
    wavegen("train", "recordings", "--config", "tiny.yaml", "--run", "run", cwd=home)
    return home


@pytest.fixture
def same_threads() -> Iterator[None]:
    """No thread is left behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
