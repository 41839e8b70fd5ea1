"""Write one long recording out of short ones: room noise, pauses, fades; what a field recorder or a rehearsal leaves.

    python tests/programs/make_long_recording.py FOLDER LONG.flac [MINUTES=10]

The clips follow each other in an order drawn with seed 0, after pauses of 0.3 to 8 s. Each minute ends in a fade of
10 s, and pink noise at -62 dB below full scale (RMS) lies under everything.
"""

import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile

SAMPLE_RATE = 16_000
PAUSE_SECONDS = (0.3, 8.0)
FADE_SECONDS = 10
NOISE_DB = -62


def pink_noise(length: int, generator: np.random.Generator) -> np.ndarray:
    """Return noise of shape (length,) whose power falls by 3 dB an octave, with an RMS of 1."""
    spectrum = np.fft.rfft(generator.standard_normal(length))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, length)
    return noise / np.sqrt(np.mean(noise**2))


def long_recording(folder: Path, seconds: float) -> np.ndarray:
    """Return the recording, of shape (seconds x sample rate,), made of the sound files in a folder."""
    generator = np.random.default_rng(0)
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".wav", ".flac", ".ogg"})
    length = int(seconds * SAMPLE_RATE)
    sound = np.zeros(length)
    start = 0
    for index in generator.permutation(len(files)):
        clip, _ = librosa.load(files[index], sr=SAMPLE_RATE)
        clip = clip[: length - start]
        sound[start : start + len(clip)] = clip
        # Speakers hesitate for a moment more often than they leave the room: pauses are spread evenly over octaves.
        start += len(clip) + int(np.exp(generator.uniform(*np.log(PAUSE_SECONDS))) * SAMPLE_RATE)
        if start >= length:
            break
    else:
        sys.exit(f"{folder}: {start / SAMPLE_RATE:.0f} s of sound and pauses, {seconds:.0f} s are needed")
    fade = np.linspace(1, 0, FADE_SECONDS * SAMPLE_RATE)
    for end in range(60 * SAMPLE_RATE, length + 1, 60 * SAMPLE_RATE):
        sound[end - len(fade) : end] *= fade
    return sound + 10 ** (NOISE_DB / 20) * pink_noise(length, generator)


if __name__ == "__main__":
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 10
    soundfile.write(sys.argv[2], long_recording(Path(sys.argv[1]), 60 * minutes), SAMPLE_RATE, subtype="PCM_16")
