"""Files that an earlier wavegen wrote: checkpoints of each kind give the outputs that they gave, and a run resumes.

``expected.npz`` holds, for each checkpoint, classes and the logits that the reference engine computed for them then.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import wavegen
from command_line import wavegen as call
from wavegen.runs.run_folder import RunFolder
from wavegen.sampling.engines.torch_engines import ReferenceEngine

OLD = Path(__file__).parent / "data" / "format_1"
KINDS = ["softmax", "weight_norm", "mixture", "gaussian", "labels", "mel", "stack", "gru", "lstm"]


@pytest.fixture(scope="module")
def expected():
    with np.load(OLD / "expected.npz") as arrays:
        return dict(arrays)


def logits_of(model, classes, conditions):
    engine = ReferenceEngine(model.network)
    before = np.full((1, engine.receptive_field), engine.padding(model.quantizer.silence))
    engine.start(before, conditions)
    return engine.force(classes)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_gives_the_logits_that_it_gave(kind, expected):
    model = wavegen.load(OLD / f"{kind}.safetensors", "cpu")
    label = {"low": 0.25, "high": 0.75} if kind == "labels" else None
    mel = model.mel_spectrogram(expected["mel/waveform"]) if kind == "mel" else None
    condition = model.conditioner.to_generate(label, mel)
    found = logits_of(model, expected[f"{kind}/classes"], condition and [condition])
    np.testing.assert_allclose(found, expected[f"{kind}/logits"], atol=1e-4)


def test_a_checkpoint_forecasts_what_it_forecast(expected):
    model = wavegen.load(OLD / "regression.safetensors", "cpu")
    found = model.forecast(expected["regression/values"], 10)
    np.testing.assert_allclose(found, expected["regression/forecasts"], atol=1e-4)


def test_a_run_resumes_to_the_same_weights(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(OLD / "run", run)
    call("train", OLD / "recordings", "--run", run, "--resume", "--accept-changes")
    (newest,) = run.glob("checkpoints/step-00000040.safetensors")
    found, whole = wavegen.load(newest, "cpu"), wavegen.load(OLD / "softmax.safetensors", "cpu")
    assert found.checkpoint.average.keys() == whole.checkpoint.average.keys()
    for name, array in whole.checkpoint.average.items():
        # processors round differently, and training lets that grow; on one machine the difference is 0
        np.testing.assert_allclose(found.checkpoint.average[name], array, atol=0.01, err_msg=name)


def test_the_losses_of_a_run_are_read_under_their_new_names():
    run = RunFolder(OLD / "run")
    entries = list(run.metrics())
    assert {entry["loss_unit"] for entry in entries} == {"bits/sample"}
    assert sum("train_loss" in entry and "hours_of_audio" in entry for entry in entries) == 40
    progress = wavegen.load(OLD / "softmax.safetensors", "cpu").checkpoint.metrics
    assert progress["best_loss"] == progress["validation"]["validation_loss"] < 8
    series = wavegen.load(OLD / "regression.safetensors", "cpu").checkpoint.metrics["validation"]
    assert (series["loss_unit"], series["validation_loss"] > 0) == ("squared error", True)
