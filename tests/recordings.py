"""Recordings that are made up."""

import os
from pathlib import Path

import numpy as np
import soundfile


def write_noise(path: Path, n_samples: int = 500, seed: int = 0, rate_hz: int = 16000, amplitude: float = 0.5) -> None:
    """Uniform noise; a WAV file keeps it to the last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-amplitude, amplitude, n_samples).astype(np.float32)
    soundfile.write(os.fsencode(path), samples, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
