"""Stacks of layers, recurrent ones among them, are trained, resumed, scored and shown as WaveNets are."""

import numpy as np
import pytest
import torch

import wavegen
from recordings import write_tones
from trainings import RATE_HZ, assert_same_state, begin, go_on, newest
from wavegen.bench import measure_training
from wavegen.config import load_config
from wavegen.errors import UsageError
from wavegen.inspect import inspect_path
from wavegen.report.inspected import draw, tables_of
from wavegen.report.training import plan_tables
from wavegen.training.compute import resolve_compute, training_bytes

TINY = [
    f"audio.sample_rate_hz={RATE_HZ}",
    "training.batch_size=4",
    "training.window_targets=100",
    "training.steps=12",
    "training.threads=1",
    "training.precision=float32",
    "training.validate_every=6",
    "training.audition_every=12",
    "training.audition_seconds=0.02",
    "training.ema_decay=0.8",
    "training.warmup_steps=2",
]
STACK = [
    "model.kind=stack",
    "model.layers=[{kind: conv, channels: 12, dilation: 1, activation: relu, name: a}, {kind: max_pool, dilation: 2},"
    " {kind: concatenate, source: a}, {kind: conv, channels: 12, dilation: 4, activation: tanh}]",
]
TWO_LSTM = "{kind: lstm, channels: 256}, {kind: lstm, channels: 256}"
KINDS = {
    "stack": STACK,
    "stack, nadam": [*STACK, "training.optimizer=nadam"],
    "gru": ["model.kind=stack", "model.layers=[{kind: gru, channels: 12}]", "model.context=20"],
    "lstm": [
        "model.kind=stack",
        "model.layers=[{kind: conv, channels: 12, kernel_size: 3}, {kind: lstm, channels: 12},"
        " {kind: rnn, channels: 12, layer_norm: true}]",
        "model.context=20",
    ],
}

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    return write_tones(tmp_path_factory.mktemp("tones"), range(100, 340, 20))


def config_of(kind, folder, *overrides):
    return load_config("small", [f"data.folder={folder}", *TINY, *KINDS[kind], *overrides])


@every_kind
def test_interrupted_and_resumed_equals_uninterrupted(kind, tones, tmp_path, stop_after):
    config = config_of(kind, tones)
    begin(config, tmp_path / "whole").fit()
    stop_after(begin(config, tmp_path / "parts"), step=5)
    go_on(tmp_path / "parts").fit()
    assert_same_state(newest(tmp_path / "whole"), newest(tmp_path / "parts"))


@pytest.mark.parametrize("kind", ["stack", "gru", "lstm"])
def test_learns_generates_and_scores(kind, tones, tmp_path):
    """From 8 bits: every network knows within some steps which classes are common."""
    longer = ["training.steps=60", "training.validate_every=60", "training.audition_every=60"]
    config = config_of(kind, tones, *longer)
    model = wavegen.train(tones, config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    clip = model.load_clip(tones / "3.wav")
    assert model.score(clip) < 6.5
    assert model.generate(0.05, count=2, prime=clip[:500]).shape == (2, 200)
    assert (tmp_path / "run" / "auditions" / "step-00000060.wav").exists()
    assert model.precision_costs == {}
    with pytest.raises(UsageError, match="engine='numba': it runs WaveNets"):
        model.generate(0.05, engine="numba")
    assert np.array_equal(model.generate(0.02, seed=3), wavegen.load(tmp_path / "run").generate(0.02, seed=3))


@every_kind
def test_minutes_are_calibrated_and_precision_chosen(kind, tones, tmp_path):
    overrides = ["training.minutes=0.2", "training.precision=auto", "training.backend=auto", "training.threads=2"]
    frozen = begin(config_of(kind, tones, *overrides), tmp_path / "run").config.training
    assert frozen.steps is not None
    assert frozen.steps >= 1
    assert frozen.backend == "torch"
    assert frozen.accumulation == (1 if kind.startswith("stack") else 2)  # of others each thread has a slice
    assert frozen.precision in ("float32", "bfloat16")


@pytest.mark.parametrize("kind", ["stack", "gru"])
def test_the_plan_inspect_and_the_picture_show_the_kind(kind, tones, tmp_path):
    file = tmp_path / "my.yaml"
    config = config_of(kind, tones)
    file.write_text(config.to_yaml())
    inspection = inspect_path(str(file))
    words = {"stack": "1 x conv, 1 x max pool, 1 x concatenate, 1 x conv", "gru": "1 x gru"}[kind]
    shown = [cell for table in tables_of(inspection) for row in table.rows for cell in row]
    assert words in shown
    draw(inspection, tmp_path / "network.png")
    assert (tmp_path / "network.png").read_bytes().startswith(b"\x89PNG")
    training = begin(config, tmp_path / "run")
    tables = plan_tables(training.plan, training.corpus, torch.device("cpu"), tmp_path)
    said = {row[0]: row[1] for table in tables for row in table.rows}
    assert said["kind"] == {"stack": "stack, 4 layers", "gru": "stack, 1 layer"}[kind]
    assert said["receptive field"].startswith({"stack": "8 samples", "gru": "all of the past; "}[kind])


@pytest.mark.slow
@pytest.mark.parametrize(("windows", "targets"), [(16, 512), (32, 2048)])
@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("rnn", []),
        ("rnn", ["model.layers=[{kind: lstm, channels: 256}, {kind: lstm, channels: 256}]"]),
        ("dense-skips", []),
    ],
    ids=str,
)
def test_the_memory_estimate_is_near_the_measured_peak(preset, overrides, windows, targets):
    batch = [f"training.batch_size={windows}", f"training.window_targets={targets}", "training.precision=float32"]
    config = load_config(preset, [*overrides, *batch])
    measured = measure_training(config, "torch", "float32", 2, recompute=False)
    assert measured.peak_memory_bytes is not None
    estimated = training_bytes(config, resolve_compute(config, torch.device("cpu")))
    assert estimated == pytest.approx(measured.peak_memory_bytes, rel=0.25)
