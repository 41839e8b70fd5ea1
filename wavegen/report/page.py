"""The page about a run: one HTML file without scripts that needs no network, to read, to play and to send."""

from __future__ import annotations

import base64
import io
import re
import shlex
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
from wavegen.audio.quantize import Floats
from wavegen.audio.read import decode
from wavegen.config import Config
from wavegen.data.corpus import Progress
from wavegen.errors import AudioError, ParameterError, UsageError, WavegenError
from wavegen.inspect.runs import RunFacts
from wavegen.output_file import write_output
from wavegen.report import as_yaml
from wavegen.report.models import data_table, network_table, ranking_title, resolution, seen_text, step_text
from wavegen.report.plots import encode
from wavegen.report.plots.audio import small_figure
from wavegen.report.plots.models import ranking_figure, run_figure, smooth
from wavegen.runs.run_folder import THIS_MODEL, History, Validation, find_checkpoint
from wavegen.text import format_duration, pluralize, printable

MOST_ROWS = 100  # of the table of validations
MOST_AUDITIONS = 6
AUDITION_SECONDS = 10.0  # of each: a page is to be sent to friends
SEED = 0
MOST_SAMPLES = 20
LONGEST_SECONDS = 60.0


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


@dataclass(frozen=True)
class SampleRequest:
    """The new samples that the page has.

    Attributes:
        temperatures: of one sample each.
        seconds: length of each; 0 for no samples.
    """

    temperatures: tuple[float, ...]
    seconds: float

    @classmethod
    def parse(cls, temperatures: str, seconds: float) -> SampleRequest:
        """Read the command line's options.

        Raises:
            UsageError: they are out of their range.
        """
        try:
            numbers = tuple(float(text) for text in temperatures.split(","))
        except ValueError:
            numbers = (-1.0,)
        if not all(0 <= number < float("inf") for number in numbers):
            found = f"expected numbers, 0 or more, such as 0.7,1; found '{temperatures}'"
            raise ParameterError("temperatures", found)
        if len(numbers) > MOST_SAMPLES:
            raise ParameterError("temperatures", f"expected at most {MOST_SAMPLES} numbers, found {len(numbers)}")
        if not 0 <= seconds <= LONGEST_SECONDS:
            raise ParameterError("sample_seconds", f"expected 0 to {LONGEST_SECONDS:g}, found {seconds:g}")
        return cls(numbers if seconds > 0 else (), seconds)


def write_page(found: RunFacts, target: Path, request: SampleRequest, progress: Progress) -> int:
    """Write the page about a run.

    Args:
        found: the run.
        target: of the HTML file.
        request: the new samples to generate.
        progress: called with (samples made, samples in all).

    Returns:
        The page's bytes.

    Raises:
        CheckpointError, ModelError: there is a checkpoint to generate from, and it is damaged.
        WavegenError: the page cannot be written.
    """
    content = build_page(found, request, progress).encode("utf-8")
    write_output(target, content)
    return len(content)


def build_page(found: RunFacts, request: SampleRequest, progress: Progress) -> str:
    """Return the page as text; arguments as ``write_page``."""
    run, is_audio = Path(found.path), found.loss_unit.is_bits
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    samples, origin = generate_samples(run, request, progress) if is_audio else ([], "")
    auditions, problems = read_auditions(run, found.auditions)
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
        auditions_note=" ".join([note, *map(printable, problems)]),
        auditions=[_player(sound) for sound in auditions],
        plots=_plots(found),
        validations=_validations(found.history),
        n_validations=len(found.history.validations),
        data=None if found.data is None else data_table(found.data).rows,
        network=network_table(found.network).rows,
        configuration=_configuration(found.config),
        command=printable(_command(found)),
        version=__version__,
        made=datetime.now(UTC),
    )


def generate_samples(run: Path, request: SampleRequest, progress: Progress) -> tuple[list[Sound], str]:
    """Generate a sample at each temperature from a run's best checkpoint, all after silence and with the same seed.

    Returns:
        The samples, and a sentence on their origin, or on why there are none.

    Raises:
        CheckpointError, ModelError: the checkpoint is damaged.
    """
    if not request.temperatures:
        return [], "None were asked for."
    try:
        checkpoint = find_checkpoint(run)
    except UsageError:
        return [], "There is no checkpoint yet to generate from."
    model = load(checkpoint)
    rate = model.sample_rate_hz
    n_samples = max(1, round(request.seconds * rate))
    conditions: dict[str, Any] = {}
    recording = ""
    if (source := model.conditioner.frames) is not None:
        try:
            clip = model.clips.held_out()[0]
        except WavegenError as error:
            return [], f"This model makes sound of {source.kind}, and there is no recording to take them of: {error}"
        assert clip.condition is not None
        assert clip.condition.frames is not None
        n_samples = min(n_samples, clip.condition.frames.n_samples)
        conditions[source.name], recording = clip.condition.frames, f" of the {source.noun} of {clip.name}"
        if clip.condition.label is not None:
            conditions["labels"] = [dict(zip(model.labels, clip.condition.label.tolist(), strict=True))]
    waveforms = np.zeros((len(request.temperatures), n_samples), np.float32)
    for i, temperature in enumerate(request.temperatures):
        stop = 0
        for block in model.stream(n_samples / rate, temperature=temperature, seed=SEED, **conditions):
            start, stop = stop, stop + block.shape[1]
            waveforms[i, start:stop] = block[0]
            progress(i * n_samples + stop, waveforms.size)
    both = zip(request.temperatures, waveforms, strict=True)
    sounds = [Sound(f"Temperature {temperature:g}", waveform, rate) for temperature, waveform in both]
    doubt = model.undertrained_warning()
    if model.labels and not conditions:
        recording = f" as {model.labels[0]}"
    origin = f"Generated from silence{recording} by {checkpoint.name} (step {model.checkpoint.step:,}), seed {SEED}."
    return sounds, f"{origin} Note: {doubt}." if doubt else origin


def read_auditions(run: Path, names: Sequence[str]) -> tuple[list[Sound], list[str]]:
    """Read a run's auditions: a few, evenly spread, with the first and the last.

    Args:
        run: its folder.
        names: of the files in it, in order.

    Returns:
        The auditions, and why some are missing.
    """
    last = len(names) - 1
    chosen = sorted({round(i * last / (MOST_AUDITIONS - 1)) for i in range(MOST_AUDITIONS)}) if names else []
    sounds, problems = [], []
    for name in (names[i] for i in chosen):
        try:
            frames, rate = decode(run / name)
        except (AudioError, UsageError) as error:
            problems.append(str(error))
            continue
        step = re.search(r"\d+", Path(name).stem)
        title = f"After {pluralize(int(step[0]), 'step')}" if step else Path(name).stem
        waveform = to_mono(frames)
        longest = round(AUDITION_SECONDS * rate)
        if len(waveform) > longest:
            title += f" (the first {AUDITION_SECONDS:g} s of {len(waveform) / rate:.1f} s)"
        sounds.append(Sound(title, waveform[:longest], rate))
    return sounds, problems


def _tiles(found: RunFacts) -> list[tuple[str, str, str]]:
    """Return the main figures: name, value, unit."""
    loss_unit, network, speed = found.loss_unit, found.network, found.targets_per_second
    best_unit = loss_unit.full_name if found.best_loss is None else f"{loss_unit.full_name}, step {found.best_step:,}"
    reach, field_ms, rate = f"{network.receptive_field_samples:,}", network.receptive_field_ms, network.sample_rate_hz
    return [
        ("best held-out", loss_unit.format(found.best_loss), best_unit),
        ("step", f"{found.step:,}", step_text(found.step, found.total_steps).partition(" ")[2]),
        ("trained on", seen_text(loss_unit, found.seen), ""),
        ("time trained", format_duration(60 * found.minutes_trained), ""),
        ("speed", "-" if speed is None else f"{speed:,.0f}", "targets/s"),
        ("parameters", f"{network.parameters:,}", ""),
        ("receptive field", *((reach, "points") if field_ms is None else (f"{field_ms:.0f} ms", f"{reach} samples"))),
        ("forecast", network.output, "") if rate is None else ("sound", f"{rate / 1000:g} kHz", resolution(network)),
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
    figure, words = small_figure(sound.waveform, sound.rate_hz)
    return {
        "name": sound.name,
        "source": _data_uri("audio/wav", file.getvalue()),
        "seconds": len(sound.waveform) / sound.rate_hz,
        "plot": _plot(figure, f"Waveform and spectrogram of {sound.name}: {words}"),
    }


def _plot(figure: Figure, words: str) -> dict[str, str]:
    """Return a figure as an SVG image, whose identifiers cannot clash with others', and the text that stands for it."""
    return {"source": _data_uri("image/svg+xml", encode(figure, "svg")), "words": words}


def _plots(found: RunFacts) -> list[dict[str, str]]:
    """Return the curves of the training, and the model among the baselines."""
    history, loss_unit, validation = found.history, found.loss_unit, found.last_validation
    _, train = smooth(history.steps, history.train)
    if not train:
        return []
    words = f"Training loss from {train[0]:.3g} to {train[-1]:.3g} {loss_unit.full_name}."
    if scored := [loss_unit.format(loss) for _, loss in history.scored]:
        words += f" Held-out loss from {scored[0]} to {scored[-1]}."
    plots = [_plot(run_figure("", history, loss_unit.full_name), words)]
    if validation is not None and found.ranking:
        title = ranking_title(validation, loss_unit)
        words = ", ".join(f"{name} {loss_unit.format(loss)}" for name, loss in found.ranking)
        figure = ranking_figure(title[0].upper() + title[1:], loss_unit, found.ranking)
        plots.append(_plot(figure, f"{title}: {words}"))
    return plots


def _validations(history: History) -> list[tuple[str, ...]]:
    """Return rows for the last validation and others before it, evenly spread."""
    entries, loss_unit, best = history.validations, history.loss_unit, history.best
    rows: list[tuple[str, ...]] = []
    every = max(1, -(-len(entries) // MOST_ROWS))
    for each in entries[::-every][::-1]:
        loss = loss_unit.format(each.loss) + (" (best)" if best and each.step == best.step else "")
        seen, time = seen_text(loss_unit, each.seen or 0.0), format_duration(60 * (each.minutes_trained or 0.0))
        rows.append((f"{each.step:,}", loss_unit.format(each.train_loss), loss, seen, time))
    return rows


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


def _command(found: RunFacts) -> str:
    """Return the command to type next."""
    if not found.loss_unit.is_bits:
        return shlex.join(["wavegen", "forecast", found.path, "series.csv"])
    given: Sequence[str] = () if found.network.mel is None else ("--mel-from", "recording.wav")
    given = given if found.network.features is None else ("--features", "features.npy")
    return shlex.join(["wavegen", "generate", found.path, *given, "-o", "new.wav"])


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
