"""The exported step in ONNX's own runtime, against the torch engine and on its own."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from command_line import wavegen
from wavegen.config import load_config
from wavegen.data.conditioning import build_conditioner
from wavegen.errors import ModelError, UsageError
from wavegen.model.building import build_model
from wavegen.model.outputs import MEAN_UNIT
from wavegen.runs.checkpoint import Checkpoint, save_checkpoint
from wavegen.sampling.engines import build_engine
from wavegen.sampling.onnx_step import onnx_step

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

TINY = [
    *("model.cycles=1", "model.dilation_cycle=[1,3,2]", "model.residual_channels=6", "model.gate_channels=5"),
    *("model.skip_channels=7", "model.head_channels=9", "quantization.classes=16"),
]
FORMS = {
    "gated": [],
    "three taps": ["model.kernel_size=3"],
    "relu without biases": ["model.activation=relu", "model.bias=false"],
    "tanh": ["model.activation=tanh"],
    "weight norm": ["model.weight_norm=true"],
    "one-hot": ["model.input=one_hot"],
    "scalar": ["model.input=scalar"],
    "one block": ["model.dilation_cycle=[4]"],
    "labels": ["data.labels=subfolders", "data.label_names=[a, b, c]"],
    "features": ["features.columns=2", "features.hop=10", "features.mean=[3.0,-1.0]", "features.scale=[2.0,0.1]"],
    "labels and spectrograms": [
        *("data.labels=subfolders", "data.label_names=[a, b, c]"),
        *("mel.n_mels=5", "mel.n_fft=64", "mel.hop_length=12", "mel.upsampling=1"),
    ],
    "logistic mixture at 16 bit": [
        *("output.kind=logistic_mixture", "output.components=2", "model.input=scalar"),
        *("quantization.kind=linear", "quantization.classes=65536"),
    ],
}


def random_network(settings):
    """A configuration, and a network of its kind whose every weight matters."""
    config = load_config("small", [*TINY, *settings])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = build_model(config).requires_grad_(False).eval()
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return config, model


def weights_of(model):
    return {name: parameter.numpy() for name, parameter in model.named_parameters()}


class Session:
    """A step in a runtime that knows nothing of wavegen, fed with its own queues."""

    def __init__(self, content, batch):
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        shapes = {entry.name: entry.shape for entry in self.session.get_inputs()}
        self.queues = {
            name: np.zeros((reach, batch, channels), np.float32)
            for name, (reach, _, channels) in ((n, s) for n, s in shapes.items() if n.startswith("queue."))
        }

    def step(self, sample, **more):
        parameters, *after = self.session.run(None, {"sample": sample, **self.queues, **more})
        self.queues = dict(zip(self.queues, after, strict=True))
        return parameters


@pytest.mark.parametrize("form", FORMS)
def test_the_step_has_the_torch_engines_outputs(form):
    config, model = random_network(FORMS[form])
    rng, field, batch = np.random.default_rng(2), model.receptive_field, 3
    past, following = (rng.integers(0, config.quantization.classes, (batch, n)) for n in (field, 40))
    engine, conditions, more = build_engine("torch", model), None, {}
    conditioner, source = build_conditioner(config), build_conditioner(config).frames
    frames = None if source is None else rng.normal(0, 2, (batch, 60, source.width)).astype(np.float32)
    if config.n_labels:
        more["labels"] = rng.dirichlet(np.ones(3), batch).astype(np.float32)
    if config.n_labels or source is not None:
        conditions = [
            conditioner._condition(*(None if each is None else each[b] for each in (more.get("labels"), frames)))
            for b in range(batch)
        ]
    engine.start(past, conditions)
    expected = engine.force(following)

    session = Session(onnx_step(weights_of(model), config), batch)
    fed = np.concatenate([past, following[:, :-1]], axis=1)
    found = []
    for step, sample in enumerate(fed.T):  # step i predicts sample i - (field - 1) of the clip
        if source is not None:
            frame, place = divmod(max(step - field + 1, 0), source.hop_length)
            around = np.clip([frame - 1, frame, frame + 1], 0, 59)
            more |= {"frames": frames[:, around], "place": np.full(batch, place)}
        found.append(session.step(sample, **more))
    found = np.stack(found, axis=1)[:, field - 1 :]
    scale = np.abs(expected).max(axis=(0, 1))
    assert found.shape == expected.shape
    assert (expected.std(axis=1) > 1e-3 * scale).all(), "predictions that depend on what was heard"
    assert (np.abs(found - expected) / scale).max() <= 1e-5


def test_queues_of_zeros_are_right_after_the_receptive_field_less_one_and_not_before():
    config, model = random_network([])
    engine, field = build_engine("torch", model), model.receptive_field
    engine.start(np.full((1, field), 8))
    expected = engine.force(np.full((1, 1), 8))[0, 0]
    session = Session(onnx_step(weights_of(model), config), 1)
    found = np.concatenate([session.step(np.array([8])) for _ in range(field)])
    assert np.abs(found[field - 1] - expected).max() <= 1e-5
    assert np.abs(found[field - 2] - expected).max() > 1e-4


@pytest.mark.parametrize("form", ["gated", "labels", "logistic mixture at 16 bit"])
def test_the_metadata_hold_what_a_program_needs(form):
    config, model = random_network(FORMS[form])
    session = runtime.InferenceSession(onnx_step(weights_of(model), config), providers=["CPUExecutionProvider"])
    known = session.get_modelmeta().custom_metadata_map
    wide = form.endswith("16 bit")
    expected = {
        "sample_rate_hz": "16000",
        "quantization": "linear" if wide else "mu_law",
        "classes": "65536" if wide else "16",
        "silence": "32768" if wide else "8",
        "receptive_field": "7",
        "output": "logistic_mixture" if wide else "softmax",
    }
    assert known.items() >= expected.items()
    assert ("labels" in known) == (form == "labels")
    if form == "labels":
        assert json.loads(known["labels"]) == ["a", "b", "c"]
    if wide:
        assert (json.loads(known["components"]), json.loads(known["mean_unit"])) == (2, MEAN_UNIT)
        assert json.loads(known["log_scale_limits"]) == pytest.approx(model.distribution.scale_limits)


@pytest.mark.parametrize(
    ("preset", "text"),
    [
        ("rnn", r"^ONNX: expected a WaveNet to export, found a stack$"),
        ("dense-skips", r"^ONNX: expected a WaveNet to export, found a stack$"),
    ],
)
def test_other_models_are_refused(preset, text):
    with pytest.raises(UsageError, match=text):
        onnx_step({}, load_config(preset))


def test_a_model_of_series_is_refused():
    config = load_config("small", ["output.kind=regression", "model.input=scalar", "series.synthetic=waves"])
    assert config.model.kind == "wavenet"
    with pytest.raises(UsageError, match=r"^ONNX: expected a WaveNet of sound to export, found a model of series"):
        onnx_step({}, config)


def test_weights_that_do_not_fit_are_refused():
    config, model = random_network([])
    with pytest.raises(ModelError, match=r"the checkpoint lacks 'output\.bias'"):
        onnx_step({name: array for name, array in weights_of(model).items() if name != "output.bias"}, config)


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    config, model = random_network([])
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"^ONNX: the package onnx is not installed; pip install onnx$"):
        onnx_step(weights_of(model), config)


def test_the_command_line_writes_it_and_the_guides_loop_makes_sound_with_it(tmp_path, monkeypatch):
    config, model = random_network(["quantization.classes=256"])
    weights = weights_of(model)
    save_checkpoint(Checkpoint(config, 5, weights, weights), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    export = ["export", "model.safetensors", "-o"]
    assert wavegen(*export, "step.onnx").stderr.startswith("written: step.onnx, ")
    assert wavegen(*export, "step.onnx", exit_code=2).stderr.count("\n") == 1
    narrow = wavegen(*export, "b.onnx", "--precision", "bfloat16", exit_code=2)
    assert narrow.stderr == "error: --precision bfloat16: an ONNX step has float32 only; leave it out\n"

    guide = (Path(__file__).parents[2] / "wavegen" / "docs" / "export.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(import numpy as np, onnxruntime.*?)```", guide, re.DOTALL)
    exec(loop.replace("range(16000)", "range(500)"), {})
    clip, rate = soundfile.read("new.wav")
    assert (len(clip), rate) == (500, 16000)
    assert len(np.unique(clip)) > 50
