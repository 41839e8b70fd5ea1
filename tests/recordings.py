"""Recordings that are made up."""

import os

import numpy as np
import soundfile

from wavegen.audio.resample import resampled
from wavegen.audio.waveform import PreparedClip


def write_noise(path, n_samples=500, seed=0, rate_hz=16000, amplitude=0.5):
    """Uniform noise; a WAV file keeps it to the last bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-amplitude, amplitude, n_samples).astype(np.float32)
    soundfile.write(os.fsencode(path), samples, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)


def write_tones(
    folder,
    pitches_hz,
    *,
    rate_hz=4000,
    seconds=0.5,
    noise=0.01,
    seed=5,
):
    """A file for each pitch, 0.wav and so on: a tone with a phase of its own under noise. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    for i, hz in enumerate(pitches_hz):
        clip = 0.5 * np.sin(2 * np.pi * hz * time_s + i) + noise * rng.standard_normal(len(time_s))
        soundfile.write(folder / f"{i}.wav", clip, rate_hz)
    return folder


def prepare(preparation, waveform):
    """Return a waveform of the preparation's rate as it is trained on."""
    return np.concatenate(list(PreparedClip(waveform, preparation).blocks()))


def resample(waveform, from_hz, to_hz):
    return np.concatenate(list(resampled([waveform], from_hz, to_hz)))
