"""The page about a run: one HTML file without scripts that needs no network, to read, to play and to send."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from wavegen import __version__
from wavegen.api import load
from wavegen.audio.mono import to_mono
from wavegen.audio.quantize import Floats, build_quantizer
from wavegen.audio.read import decode
from wavegen.config import Config
from wavegen.data.corpus import Progress
from wavegen.errors import UsageError, WavegenError
from wavegen.inspect.runs import RunFacts
from wavegen.report import as_yaml
from wavegen.report.curves import run_figure, smooth
from wavegen.report.models import data_table, network_table, seen_text, step_text, validation_row
from wavegen.report.plots import encode, small_figure
from wavegen.runs.run_folder import THIS_MODEL, Validation, find_checkpoint
from wavegen.text import evenly, format_duration, pluralize, printable

MOST_AUDITIONS = 6
AUDITION_SECONDS = 10.0  # of each: a page is to be sent to friends
SEED = 0


@dataclass(frozen=True)
class Sound:
    """A clip of the page.

    Attributes:
        name: its heading.
        waveform: (T,) float32 in [-1, 1].
        rate_hz: its sample rate.
    """

    name: str
    waveform: Floats
    rate_hz: int


def build_page(found: RunFacts, temperatures: Sequence[float], seconds: float, progress: Progress) -> str:
    """Build the page about a run.

    Args:
        found: the run.
        temperatures: of the new samples, one each.
        seconds: length of each; 0 for no samples.
        progress: called with (new samples made, new samples in all).

    Returns:
        The page as text.

    Raises:
        AudioError: an audition is damaged.
        CheckpointError, ModelError: there is a checkpoint to generate from, and it is damaged.
    """
    run, is_audio = Path(found.path), found.loss_unit.is_bits
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    samples, origin = generate_samples(run, temperatures, seconds, progress) if is_audio else ([], "")
    auditions = read_auditions(run, found.auditions)
    n_all = len(found.auditions)
    some = "All" if len(auditions) == n_all else f"{len(auditions)} of the {n_all}"
    note = f"{some} that the training left, with one seed: they compare." if auditions else "There are none yet."
    return template.render(
        name=printable(run.absolute().name),
        path=printable(found.path),
        is_audio=is_audio,
        tiles=_tiles(found),
        verdict=verdict(found.last_validation),
        origin=origin,
        samples=[_player(sound) for sound in samples],
        auditions_note=note,
        auditions=[_player(sound) for sound in auditions],
        plots=_plots(found),
        validations=[validation_row(found, each) for each in found.validations],
        data=None if found.data is None else data_table(found.data).rows,
        network=network_table(found.network, found.config).rows,
        configuration=_configuration(found.config),
        version=__version__,
        made=datetime.now(UTC),
    )


def generate_samples(
    run: Path, temperatures: Sequence[float], seconds: float, progress: Progress
) -> tuple[list[Sound], str]:
    """Generate a sample at each temperature from a run's best checkpoint, all after silence and with the same seed.

    Returns:
        The samples, and a sentence on their origin, or on why there are none.

    Raises:
        CheckpointError, ModelError: the checkpoint is damaged.
    """
    if seconds == 0:
        return [], "None were asked for."
    try:
        checkpoint = find_checkpoint(run)
    except UsageError:
        return [], "There is no checkpoint yet to generate from."
    model = load(checkpoint)
    rate = model.sample_rate_hz
    conditions: dict[str, Any] = {}
    recording = ""
    if (source := model.conditioner.frames) is not None:
        try:
            clip = model.clips.held_out()[0]
        except WavegenError as error:
            return [], f"This model makes sound of {source.kind}, and there is no recording to take them of: {error}"
        assert clip.condition is not None
        assert clip.condition.frames is not None
        seconds = min(seconds, clip.condition.frames.n_samples / rate)
        conditions[source.name], recording = clip.condition.frames, f" of the {source.noun} of {clip.name}"
        if clip.condition.label is not None:
            conditions["labels"] = [dict(zip(model.labels, clip.condition.label.tolist(), strict=True))]
    sounds = []
    for temperature in temperatures:
        waveform = model.generate(seconds, temperature=temperature, seed=SEED, **conditions)[0]
        sounds.append(Sound(f"Temperature {temperature:g}", waveform, rate))
        progress(len(sounds), len(temperatures))
    doubt = model.undertrained_warning()
    if model.labels and not conditions:
        recording = f" as {model.labels[0]}"
    origin = f"Generated from silence{recording} by {checkpoint.name} (step {model.checkpoint.step:,}), seed {SEED}."
    return sounds, f"{origin} Note: {doubt}." if doubt else origin


def read_auditions(run: Path, names: Sequence[str]) -> list[Sound]:
    """Read a run's auditions: a few, evenly spread, with the first and the last.

    Args:
        run: its folder.
        names: of the files in it, in order.

    Raises:
        AudioError: one is damaged.
    """
    sounds = []
    for name in evenly(names, MOST_AUDITIONS):
        frames, rate = decode(run / name)
        step = re.search(r"\d+", Path(name).stem)
        title = f"After {pluralize(int(step[0]), 'step')}" if step else Path(name).stem
        waveform = to_mono(frames)
        longest = round(AUDITION_SECONDS * rate)
        if len(waveform) > longest:
            title += f" (the first {AUDITION_SECONDS:g} s of {len(waveform) / rate:.1f} s)"
        sounds.append(Sound(title, waveform[:longest], rate))
    return sounds


def _tiles(found: RunFacts) -> list[tuple[str, str, str]]:
    """Return the main figures: name, value, unit."""
    loss_unit, network, speed = found.loss_unit, found.network, found.targets_per_second
    best_unit = loss_unit.full_name if found.best_loss is None else f"{loss_unit.full_name}, step {found.best_step:,}"
    reach, field_ms, rate = f"{network.receptive_field_samples:,}", network.receptive_field_ms, found.config.rate_hz
    return [
        ("best held-out", loss_unit.format(found.best_loss), best_unit),
        ("step", f"{found.step:,}", step_text(found.step, found.total_steps).partition(" ")[2]),
        ("trained on", seen_text(loss_unit, found.seen), ""),
        ("time trained", format_duration(60 * found.minutes_trained), ""),
        ("speed", "-" if speed is None else f"{speed:,.0f}", "targets/s"),
        ("parameters", f"{network.parameters:,}", ""),
        ("receptive field", *((reach, "points") if field_ms is None else (f"{field_ms:.0f} ms", f"{reach} samples"))),
        ("forecast", network.output, "")
        if rate is None
        else ("sound", f"{rate / 1000:g} kHz", str(build_quantizer(found.config))),
    ]


def verdict(validation: Validation | None) -> str:
    """Describe the model's quality in a sentence or two."""
    if validation is None:
        return "It was not validated yet: how good the model is, is not known."
    loss_unit = validation.loss_unit
    known = {name: loss for name, loss in validation.ranking() if loss is not None}
    own = known.pop(THIS_MODEL, None)
    if own is None:
        return f"The last validation, at step {validation.step:,}, has no finite loss: the training has failed."
    verb = "costs" if loss_unit.is_bits else "have"
    costs = f"held-out {loss_unit.data} {verb} {loss_unit.format(own)} {loss_unit.full_name}"
    figure = f"At step {validation.step:,} {costs} (lower is better)."
    better = sorted((loss, name) for name, loss in known.items() if loss <= own)
    if not known:
        return figure
    if not better:
        best, name = min((loss, name) for name, loss in known.items())
        return f"{figure} That beats every trivial baseline; the best of them is {name} with {loss_unit.format(best)}."
    beaten = ", ".join(name for name, loss in known.items() if loss > own) or "none of the trivial baselines"
    still = ", ".join(f"{name} ({loss_unit.format(loss)})" for loss, name in better)
    return f"{figure} That beats {beaten}; still better: {still}."


def _player(sound: Sound) -> dict[str, Any]:
    """Return a clip to play, as a 16-bit WAV file, with its waveform and its spectrogram.

    FLAC is half as large, but Chromium (156) cannot play one of a single frame, which a short audition is.
    """
    file = io.BytesIO()
    soundfile.write(file, np.clip(sound.waveform, -1.0, 1.0), sound.rate_hz, format="WAV", subtype="PCM_16")
    return {
        "name": sound.name,
        "source": _data_uri("audio/wav", file.getvalue()),
        "seconds": len(sound.waveform) / sound.rate_hz,
        "plot": _plot(small_figure(sound.waveform, sound.rate_hz), f"Waveform and spectrogram of {sound.name}"),
    }


def _plot(figure: Figure, words: str) -> dict[str, str]:
    """Return a figure as an SVG image, whose identifiers cannot clash with others', and the text that stands for it."""
    return {"source": _data_uri("image/svg+xml", encode(figure, "svg")), "words": words}


def _plots(found: RunFacts) -> list[dict[str, str]]:
    """Return the curves of the training, once it has any."""
    history, loss_unit = found.history, found.loss_unit
    _, train = smooth(history.steps, history.train)
    if not train:
        return []
    words = f"Training loss from {train[0]:.3g} to {train[-1]:.3g} {loss_unit.full_name}."
    if scored := [loss_unit.format(loss) for _, loss in history.scored]:
        words += f" Held-out loss from {scored[0]} to {scored[-1]}."
    return [_plot(run_figure("", history, loss_unit.full_name), words)]


def _configuration(config: Config) -> list[tuple[str, list[tuple[str, str, bool, str]]]]:
    """Return each section with its keys: key, value, whether it differs from the default, and its meaning."""
    defaults, sections = Config().model_dump(), []
    for name, values in config.model_dump().items():
        described, rows = type(getattr(config, name)).model_fields, []
        for key, value in values.items():
            default, meaning = defaults[name].get(key), described[key].description
            if value != default:
                meaning += f"; default: {as_yaml(default)}"
            rows.append((key, as_yaml(value), value != default, meaning))
        sections.append((name, rows))
    return sections


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
