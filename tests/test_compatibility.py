"""Files that an earlier wavegen wrote: checkpoints of each kind give the outputs that they gave, and a run resumes.

``expected.npz`` holds, for each checkpoint, classes and the logits that the reference engine computed for them then.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

import wavegen
from command_line import wavegen as call
from wavegen.sampling.engines.reference import ReferenceEngine

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
    mel = model.mel_of(expected["mel/waveform"]) if kind == "mel" else None
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
