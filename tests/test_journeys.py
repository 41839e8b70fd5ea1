"""Two journeys through the package, counted in modules: from a clip to its loss, and from a seed to a written file.

A reader who follows one of them opens these modules. The limits are what there is today: lower them when it sinks.
"""

import inspect
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

import wavegen
from tests.trainings import RATE_HZ, TINY, begin
from wavegen.audio.write import AudioWriter
from wavegen.config import load_config

PACKAGE = Path(wavegen.__file__).parent
LABELS = ["data.labels=subfolders", "model.label_channels=3"]
MEL = ["mel.n_mels=6", "mel.n_fft=64", "mel.hop_length=20", "mel.upsampling=4"]


@contextmanager
def functions_called():
    """Collect the functions that this thread calls, and all threads that start from now on.

    Yields:
        A set of (file, function); it can be emptied after a start-up.
    """
    called = set()

    def note(frame, event, _):
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # a function, not a module or a class
            called.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("anna", "carl"):
        (tmp_path / "audio" / label).mkdir(parents=True)
        for i in range(2):
            soundfile.write(tmp_path / "audio" / label / f"{i}.wav", rng.uniform(-0.5, 0.5, 3000), RATE_HZ)
    return tmp_path / "audio"


def names_of(called):
    """Name the modules of the package among the files of functions."""
    inside = {Path(file).relative_to(PACKAGE) for file, _ in called.copy() if file.startswith(f"{PACKAGE}/")}
    return sorted(str(path.with_suffix("")) for path in inside)


@pytest.mark.parametrize(
    ("keys", "most"),
    [
        (["training.backend=torch"], 10),
        (["training.backend=fused"], 11),
        (["training.backend=fused", *LABELS, *MEL], 15),
    ],
    ids=["torch", "fused", "conditioned"],
)
def test_from_a_clip_to_its_loss(recordings, tmp_path, keys, most):
    config = load_config("small", [f"data.folder={recordings}", *TINY, *keys])
    training = begin(config, tmp_path / "run")
    with functions_called() as called:
        for step in range(2):
            called.clear()  # the first step prepares buffers
            batch = training.windows.batch(step * 4, 4)
            training.backend.gradients(batch, 400)
    names = names_of(called)
    assert len(names) <= most, " ".join(names)


@pytest.mark.parametrize(("keys", "most"), [([], 12), (LABELS, 13)], ids=["plain", "labels"])
def test_from_a_seed_to_a_written_file(recordings, tmp_path, keys, most):
    config = load_config("small", [f"data.folder={recordings}", *TINY, *keys])
    begin(config, tmp_path / "run").fit()
    model = wavegen.load(tmp_path / "run")
    labels = {"labels": "anna"} if keys else {}
    with functions_called() as called:
        for seed in (1, 2):
            called.clear()  # the first clip loads the kernel
            (clip,) = model.generate(0.1, seed=seed, **labels)
            with AudioWriter(tmp_path / f"{seed}.wav", model.sample_rate_hz) as writer:
                writer.write(clip)
    names = names_of(called)
    assert len(names) <= most, " ".join(names)
