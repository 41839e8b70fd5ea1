"""Pictures of sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.errors import AudioError, UsageError

WAVE_COLOUR = "#2b6cb0"
FFT_SIZE = 512  # 32 ms at 16 kHz: resolves the harmonics of a voice and still its syllables
DYNAMIC_RANGE_DB = 80.0


def draw_file(source: Path, path: Path) -> None:
    """Draw an audio file, mixed to mono.

    Raises:
        AudioError, UsageError: the file cannot be read, or the picture cannot be written.
    """
    from wavegen.audio.files import decode
    from wavegen.audio.signal import to_mono

    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: expected a name that ends in .png")
    frames, rate_hz = decode(source)
    try:
        draw_audio(path, to_mono(frames), rate_hz, source.name)
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {error.strerror}") from None


def draw_audio(path: Path, waveform: npt.NDArray[np.float32], sample_rate_hz: int, title: str) -> None:
    """Draw a waveform above its spectrogram.

    Args:
        path: of the PNG file.
        waveform: (T,) in [-1, 1].
        sample_rate_hz: of the waveform.
        title: stands above.
    """
    import librosa
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    seconds = len(waveform) / sample_rate_hz

    above.set_title(title)
    above.plot(np.arange(len(waveform)) / sample_rate_hz, waveform, linewidth=0.4, color=WAVE_COLOUR)
    above.set(ylabel="amplitude", ylim=(-1.0, 1.0), xlim=(0.0, seconds))
    above.grid(alpha=0.3)

    padded = np.pad(waveform, (0, max(0, FFT_SIZE - len(waveform))))
    magnitude = np.abs(librosa.stft(padded, n_fft=FFT_SIZE, hop_length=FFT_SIZE // 4))
    # 0 dB is a full-scale sine, so that pictures of different clips compare
    level_db = 20.0 * np.log10(np.maximum(magnitude / (FFT_SIZE / 4), 1e-6))
    image = below.imshow(
        level_db,
        origin="lower",
        aspect="auto",
        extent=(0.0, seconds, 0.0, sample_rate_hz / 2000),
        vmin=-DYNAMIC_RANGE_DB - 10.0,
        vmax=-10.0,
        cmap="magma",
        interpolation="nearest",
    )
    below.set(xlabel="seconds", ylabel="kHz")
    figure.colorbar(image, ax=below, label="dB", pad=0.01)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
