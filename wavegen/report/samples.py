"""Audio for the page about a run: new samples of its model, and the auditions that its training wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wavegen.api import load
from wavegen.audio.mono import to_mono
from wavegen.audio.quantize import Floats
from wavegen.audio.read import decode
from wavegen.data.corpus import Progress
from wavegen.errors import AudioError, ParameterError, UsageError, WavegenError
from wavegen.runs.run_folder import find_checkpoint
from wavegen.text import pluralize

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
    names = [f"Temperature {temperature:g}" for temperature in request.temperatures]
    sounds = [Sound(name, waveform, rate) for name, waveform in zip(names, waveforms, strict=True)]
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
