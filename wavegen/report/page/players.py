"""A sound on a page: a player, its waveform and its spectrogram, each with a text that stands for it."""

from __future__ import annotations

import base64
import io
import math

import numpy as np

from wavegen.audio.read import Floats
from wavegen.report.page.charts import SIZE, Axis
from wavegen.report.page.markup import Markup, tag
from wavegen.report.page.samples import Sound
from wavegen.report.pictures.spectrogram import HIGHEST_DB, LOWEST_DB, Spectrogram, envelope, spectrogram

WAVE_COLUMNS = 400
SPECTRUM_COLUMNS = 360
COLOURS = 48  # of a spectrogram: steps of less than 2 dB, and a picture half as large as with 256


def player(sound: Sound) -> Markup:
    """The sound as an article of the page."""
    seconds = len(sound.waveform) / sound.rate_hz
    spectrum = spectrogram(sound.waveform, sound.rate_hz, SPECTRUM_COLUMNS)
    time = Axis(0.0, seconds, "seconds", lambda value: f"{value:g} s")
    kilohertz = Axis(0.0, sound.rate_hz / 2000, "kHz", lambda value: f"{value:g} kHz")
    ticks = [
        tag("span", time.show(round(tick, 6)), style=f"left:{time.percent(tick):.2f}%") for tick in time.ticks(5)[:-1]
    ]
    frequencies = [
        tag("span", kilohertz.show(tick), style=f"bottom:{kilohertz.percent(tick):.2f}%")
        for tick in kilohertz.ticks(4)
        if 0 < tick < 0.97 * kilohertz.high
    ]
    return tag(
        "article",
        tag("h3", sound.name),
        tag(
            "audio",
            controls=True,
            preload="metadata",
            src=_data_uri("audio/wav", _wav(sound)),
            aria_label=f"{sound.name}, {seconds:.1f} seconds",
        ),
        tag("div", _wave(sound.waveform, describe_level(sound.waveform)), class_="wave"),
        tag(
            "div",
            tag(
                "img",
                src=_data_uri("image/png", _picture(spectrum)),
                alt=f"Spectrogram of {sound.name}: {describe_spectrum(spectrum, sound.rate_hz)}",
                width=spectrum.level_db.shape[1],
                height=spectrum.level_db.shape[0],
            ),
            tag("div", frequencies, class_="frequencies", aria_hidden="true"),
            class_="spectrum",
        ),
        tag("div", ticks, class_="times", aria_hidden="true"),
        class_="sound",
    )


def describe_level(waveform: Floats) -> str:
    """A waveform in words."""
    peak = float(np.abs(waveform).max())
    rms = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64))))
    if peak == 0:
        return "silence"
    return f"peak {20 * math.log10(peak):.1f} dBFS, RMS {20 * math.log10(rms):.1f} dBFS"


def describe_spectrum(spectrum: Spectrogram, rate_hz: int) -> str:
    """A spectrogram in words."""
    power = np.power(10.0, spectrum.level_db / 10, dtype=np.float64).mean(axis=1)
    hertz = np.arange(len(power)) * rate_hz / spectrum.fft_size
    below = np.cumsum(power) / power.sum()
    half, most = (float(hertz[np.searchsorted(below, share)]) for share in (0.5, 0.95))
    strongest = float(hertz[int(np.argmax(power))])
    return (
        f"0 to {rate_hz / 2000:g} kHz, strongest near {strongest:,.0f} Hz; "
        f"half of the power lies below {half:,.0f} Hz, 95% below {most:,.0f} Hz"
    )


def _wave(waveform: Floats, words: str) -> Markup:
    """The waveform as one closed path around its envelope."""
    lowest, highest = envelope(waveform, WAVE_COLUMNS)
    places = np.linspace(0, SIZE, len(lowest))
    upper = [f"{x:.0f} {100 - 100 * y:.0f}" for x, y in zip(places, highest, strict=True)]
    lower = [f"{x:.0f} {100 - 100 * y:.0f}" for x, y in zip(places[::-1], lowest[::-1], strict=True)]
    return tag(
        "svg",
        tag("path", d="M" + "L".join([*upper, *lower]) + "Z"),
        viewBox=f"0 0 {SIZE} 200",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"Waveform: {words}",
    )


def _picture(spectrum: Spectrogram) -> bytes:
    """The spectrogram as a PNG file, a pixel for each of its numbers, low frequencies below."""
    from matplotlib import colormaps
    from matplotlib.image import imsave

    file = io.BytesIO()
    colours = colormaps["magma"].resampled(COLOURS)
    imsave(file, spectrum.level_db, vmin=LOWEST_DB, vmax=HIGHEST_DB, cmap=colours, origin="lower", format="png")
    return file.getvalue()


def _wav(sound: Sound) -> bytes:
    """The sound as a 16-bit WAV file.

    FLAC is half as large, but Chromium (156) cannot play one of a single frame, which a short audition is.
    """
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.clip(sound.waveform, -1.0, 1.0), sound.rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
