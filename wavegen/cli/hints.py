"""Commands to type next, ready to paste into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavegen.data.corpus import Corpus


def resume_command(run: Path) -> str:
    """Return the command that resumes a run."""
    return shlex.join(["wavegen", "train", "--run", str(run), "--resume"])


def forecast_command(run: str | Path, series: str = "series.csv", options: Sequence[str] = ()) -> str:
    """Return the command that forecasts series with a run's model."""
    return shlex.join(["wavegen", "forecast", str(run), series, *options])


def generate_command(run: Path, labels: tuple[str, ...], takes_mel: bool, corpus: Corpus[Any]) -> str:
    """Return the command that generates audio with a run's model.

    Args:
        run: its folder.
        labels: that its model knows; the first is taken, or that of the recording.
        takes_mel: the model is conditioned on mel spectrograms: those of a held-out recording, the auditions' one.
        corpus: the recordings.
    """
    from wavegen.data.corpus import TAIL, by_content

    clip = by_content(corpus.validation or corpus.train)[0]
    words = ["wavegen", "generate", str(run)]
    if labels:
        label = clip.label if takes_mel and clip.label is not None else labels[0]
        words += [f"--label={label}"] if label.startswith("-") else ["--label", label]
    if takes_mel:
        words += ["--mel-from", str(corpus.folder / clip.name.removesuffix(TAIL))]
    return shlex.join([*words, "-o", "new.wav"])
