"""The command line's output about a training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wavegen.audio.levels import RecordingProfile
from wavegen.cli.train import _print_next_steps
from wavegen.config import load_config
from wavegen.sampling.verdict import Verdict

RATE_HZ = 16000
LONGER = "Train longer with:\n  wavegen train --run r --resume --minutes 30\n"
STOPPED = "held-out audio was best at step 50: record more; longer training does not help\n"


def hiss(seconds, rms=0.05):
    return (rms * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


@pytest.mark.parametrize(
    ("clip", "warning", "best_step", "words"),
    [
        (hiss(4), None, 100, "last audition: as loud, as silent and as bright as the recordings\n"),
        (hiss(4), "undertrained", 100, f"undertrained\n{LONGER}"),
        (hiss(1), None, 100, "last audition: too short to judge\n"),
        (hiss(1, 0.001), None, 100, f"last audition: 34 dB quieter than the recordings\n{LONGER}"),
        (hiss(4, 0.01), None, 100, f"last audition: 14 dB quieter than the recordings\n{LONGER}"),
        (hiss(4, 0.01), None, 50, f"last audition: 14 dB quieter than the recordings\n{STOPPED}"),
        (hiss(4, 0.01), None, None, f"last audition: 14 dB quieter than the recordings\n{LONGER}"),
        (None, None, 100, ""),
    ],
)
def test_a_training_ends_with_what_generate_would_say_and_claims_nothing_unjudged(
    clip, warning, best_step, words, monkeypatch, capsys
):
    monkeypatch.setattr("wavegen.api.load", lambda _: SimpleNamespace(undertrained_warning=lambda: warning))
    audition = None
    if clip is not None:
        audition = Verdict(RATE_HZ, 1, RecordingProfile.of([hiss(20)], RATE_HZ))
        audition.update(clip[None])
    sound = SimpleNamespace(name="a.wav", content_hash="0", label=None)
    trainer = SimpleNamespace(
        config=load_config("small"),
        progress=SimpleNamespace(step=100, best_step=best_step),
        corpus=SimpleNamespace(folder=Path("sounds"), validation=[sound], train=[]),
    )
    _print_next_steps(trainer, Path("r"), audition)
    done = "done: r. Generate audio with:\n  wavegen generate r -o new.wav\n"
    assert capsys.readouterr().err == f"{words}{done}"
