"""The page about a run: one HTML file without scripts that needs no network, to read, to play and to send."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import soundfile
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from wavegen import __version__
from wavegen.config import Config
from wavegen.inspect.facts import Progress
from wavegen.inspect.runs import RunFacts
from wavegen.output_file import write_output
from wavegen.report import as_yaml
from wavegen.report.models import data_table, network_table, ranking_title, resolution, seen_text, step_text
from wavegen.report.plots import to_svg
from wavegen.report.plots.audio import small_figure
from wavegen.report.plots.models import ranking_figure, run_figure, smooth
from wavegen.report.samples import SampleRequest, Sound, generate_samples, read_auditions
from wavegen.runs.run_folder import THIS_MODEL, History, Validation
from wavegen.text import format_duration, printable

MOST_ROWS = 100  # of the table of validations


@dataclass(frozen=True)
class Plot:
    """A matplotlib figure as an SVG image, with the text that stands for it."""

    source: str
    words: str

    @classmethod
    def of(cls, figure: Figure, words: str) -> Plot:
        """Render a figure. As an image of its own its identifiers cannot clash with those of others."""
        return cls(_data_uri("image/svg+xml", to_svg(figure)), words)


@dataclass(frozen=True)
class Player:
    """A clip to play, with its waveform and its spectrogram."""

    name: str
    source: str
    seconds: float
    plot: Plot

    @classmethod
    def of(cls, sound: Sound) -> Player:
        """Encode a clip as a 16-bit WAV file.

        FLAC is half as large, but Chromium (156) cannot play one of a single frame, which a short audition is.
        """
        file = io.BytesIO()
        soundfile.write(file, np.clip(sound.waveform, -1.0, 1.0), sound.rate_hz, format="WAV", subtype="PCM_16")
        figure, words = small_figure(sound.waveform, sound.rate_hz)
        plot = Plot.of(figure, f"Waveform and spectrogram of {sound.name}: {words}")
        return cls(sound.name, _data_uri("audio/wav", file.getvalue()), len(sound.waveform) / sound.rate_hz, plot)


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
        samples=[Player.of(sound) for sound in samples],
        auditions_note=" ".join([note, *map(printable, problems)]),
        auditions=[Player.of(sound) for sound in auditions],
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


def _plots(found: RunFacts) -> list[Plot]:
    """Return the curves of the training, and the model among the baselines."""
    history, loss_unit, validation = found.history, found.loss_unit, found.last_validation
    _, train = smooth(history.steps, history.train)
    if not train:
        return []
    words = f"Training loss from {train[0]:.3g} to {train[-1]:.3g} {loss_unit.full_name}."
    if scored := [loss_unit.format(loss) for _, loss in history.scored]:
        words += f" Held-out loss from {scored[0]} to {scored[-1]}."
    plots = [Plot.of(run_figure("", history, loss_unit.full_name), words)]
    if validation is not None and found.ranking:
        title = ranking_title(validation, loss_unit)
        words = ", ".join(f"{name} {loss_unit.format(loss)}" for name, loss in found.ranking)
        figure = ranking_figure(title[0].upper() + title[1:], loss_unit, found.ranking)
        plots.append(Plot.of(figure, f"{title}: {words}"))
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
        described = getattr(getattr(Config.model_fields.get(name), "annotation", None), "model_fields", {})
        rows = []
        for key, value in values.items():
            default = defaults.get(name, {}).get(key)
            meaning = [described[key].description] if key in described and described[key].description else []
            meaning += [f"default: {as_yaml(default)}"] if value != default else []
            rows.append((key, as_yaml(value), value != default, "; ".join(meaning)))
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
