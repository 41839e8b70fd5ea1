"""What to call next: lines to paste into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from wavegen.data.corpus import TAIL, Corpus, by_content


def resuming(run: Path) -> str:
    """The call that goes on with a run."""
    return shlex.join(["wavegen", "train", "--run", str(run), "--resume"])


def forecasting(run: Path) -> str:
    """The call that goes on with a series by a run's model."""
    return shlex.join(["wavegen", "generate", str(run), "--prime", "series.csv", "-o", "forecast.csv"])


def hearing(run: Path, labels: tuple[str, ...], makes_sound_of_mel: bool, corpus: Corpus) -> str:
    """The call that makes a run heard.

    Args:
        run: its folder.
        labels: that its model knows; the first is taken, or that of the recording.
        makes_sound_of_mel: whether its model takes mel spectrograms: those of a held-out recording, the auditions' one.
        corpus: the recordings.
    """
    clip = by_content(corpus.validation or corpus.train)[0]
    words = ["wavegen", "generate", str(run)]
    if labels:
        label = clip.label if makes_sound_of_mel and clip.label is not None else labels[0]
        words += [f"--label={label}"] if label.startswith("-") else ["--label", label]
    if makes_sound_of_mel:
        words += ["--mel-from", str(corpus.folder / clip.name.removesuffix(TAIL))]
    return shlex.join([*words, "-o", "new.wav"])
