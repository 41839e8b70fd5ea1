"""Every preset: trained briefly on recordings that it is for, and sampled."""

import re

import numpy as np
import pytest
import soundfile

import wavegen
from recordings import write_tones
from wavegen.config import Config, all_preset_names, preset_names, preset_text, presets_folder
from wavegen.config.yaml_source import parse_yaml
from wavegen.errors import UsageError
from wavegen.model.building import build_model
from wavegen.report.training import MUSIC_SECONDS
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import find_checkpoint

MOMENT = [
    "training.steps=2",
    "training.batch_size=1",
    "training.window_targets=100",
    "training.threads=1",
    "training.warmup_steps=0",
    "training.precision=float32",
    "training.audition_seconds=0.02",
    "training.audition_every=2",
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Two voices, two tones of each."""
    folder = tmp_path_factory.mktemp("recordings")
    for name, hz in (("anna", 220), ("bert", 110)):
        write_tones(folder / name, [hz, hz + 30], rate_hz=16000, seconds=0.25, noise=0)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "gpu-large" else ())
        for name in preset_names()
        if not wavegen.load_config(name).is_series
    ],
)
def test_trains_and_generates(name, recordings, tmp_path):
    config = wavegen.load_config(name, MOMENT)
    model = wavegen.train(recordings, config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    assert model.labels == (("anna", "bert") if config.data.labels == "subfolders" else ())
    recording = model.load_clip(recordings / "anna" / "0.wav")
    given = {"mel": model.mel_spectrogram(recording)} if config.mel.n_mels is not None else {}
    clips = model.generate(0.01, count=2, **given)
    assert clips.shape == (2, 160)
    assert model.score(recording, label="bert" if model.labels else None) > 0
    auditions = sorted((tmp_path / "run" / "auditions").glob("*.wav"))
    assert [soundfile.info(file).frames for file in auditions] == [320]


def test_another_form_of_the_blocks_trains_and_every_engine_draws_the_same_audio(recordings, tmp_path):
    """From directions and gains, without biases. A draw within 1e-6 of an edge is a false alarm, below 1%."""
    form = ["model.activation=tanh", "model.bias=false", "model.weight_norm=true", "model.dropout=0.2"]
    config = wavegen.load_config("small", [*MOMENT, *form])
    said = []
    model = wavegen.train(recordings, config, run=tmp_path / "run", device="cpu", notice=said.append)
    assert "backend: torch (the fused backend has no dropout)" in said
    names = set(load_checkpoint(find_checkpoint(tmp_path / "run")).average)
    assert {"blocks.0.conv.direction", "blocks.0.conv.gain", "skip.gain"} <= names
    assert not [name for name in names if name.endswith("bias")]
    reference, queue, fused = (
        model.generate(0.01, engine=name, precision="float32") for name in ("reference", "torch", "numba")
    )
    np.testing.assert_array_equal(queue, reference)
    np.testing.assert_array_equal(fused, reference)
    assert set(model.precision_costs) == {"bfloat16", "int8"}
    assert abs(model.precision_costs["int8"]) < 0.1


def test_the_receptive_field_of_music_is_what_the_plan_says():
    config = wavegen.load_config("music")
    assert build_model(config).receptive_field == MUSIC_SECONDS * config.audio.sample_rate_hz
    assert config.data.labels == "subfolders"


def test_the_default_preset_lists_every_key():
    listed = parse_yaml(presets_folder() / "small.yaml").tree
    known = {section: set(keys) for section, keys in Config().model_dump().items()}
    known["training"].discard("minutes")  # or steps
    assert {section: set(keys) for section, keys in listed.items()} == known
    assert wavegen.load_config("small") == Config()  # each with its default


def test_presets_have_the_receptive_field_in_their_comments():
    phrase = re.compile(r"hears ([\d,]+) samples, (\d+) ms at 16 kHz")
    said = {name: found.groups() for name in preset_names() if (found := phrase.search(preset_text(name)))}
    assert {"paper", "music", "speakers", "demo"} <= said.keys()
    for name, in_words in said.items():
        config = wavegen.load_config(name)
        heard = 1 + (config.model.kernel_size - 1) * sum(config.model.dilations)
        assert in_words == (f"{heard:,}", f"{1000 * heard / config.audio.sample_rate_hz:.0f}"), name


def test_a_vocoders_frames_have_the_length_in_its_comments():
    config, comments = wavegen.load_config("vocoder"), preset_text("vocoder")
    rate = config.audio.sample_rate_hz
    assert f"window, {1000 * config.mel.n_fft / rate:g} ms at {rate // 1000} kHz\n" in comments
    hop = config.mel.hop_length
    assert f"stands for, {1000 * hop / rate:g} ms: {rate / hop:g} frames a second\n" in comments


TEXTBOOK = sorted(set(all_preset_names()) - set(preset_names()))


def test_the_presets_of_the_textbook_are_not_in_the_list():
    assert len(TEXTBOOK) == 9
    for name in TEXTBOOK:
        assert preset_text(name).startswith(f"# yaml-language-server: $schema=wavegen.schema.json\n# {name}: ")
    with pytest.raises(UsageError, match="did you mean 'textbook/lstm'") as caught:
        wavegen.load_config("textbook/lstn")
    assert "book-simple, " in str(caught.value)
    assert "textbook/gru" not in str(caught.value)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_each_row_of_the_textbook_trains_and_forecasts(name, tmp_path, monkeypatch):
    monkeypatch.setattr("wavegen.series.corpus.N_TRAIN", 70)
    monkeypatch.setattr("wavegen.series.corpus.N_VALIDATION", 20)
    config = wavegen.load_config(name, ["training.steps=3", "training.threads=1"])
    assert wavegen.load_config(name).training.steps == 219 * {"linear": 20, "rnn-all": 13}.get(name.split("/")[1], 10)
    model = wavegen.train(config=config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    series = model.forecaster.held_out_series()
    errors = model.forecaster.score_series(series)
    n_positions = {"last": 1, "all": 24 if name.endswith("conv-gru") else 50}[config.series.positions]
    assert {each.n_positions for each in errors} == {n_positions}
    known = series[0].values[: len(series[0].values) - config.output.horizon]
    ahead = model.forecast(known, steps=10)
    truth = series[0].values[len(known) :]
    assert errors[0].at_end == pytest.approx(np.square(ahead[: config.output.horizon] - truth), rel=1e-3)


def test_the_textbooks_model_trains_and_forecasts_without_a_folder(tmp_path):
    """As it is but for the steps: ten epochs of 7,000 series take half a minute."""
    config = wavegen.load_config("book-simple", ["training.steps=20"])
    assert wavegen.load_config("book-simple").training.steps == -(-10 * 7000 // 32)
    model = wavegen.train(config=config, run=tmp_path / "run", device="cpu", notice=lambda text: None)
    (first, *_) = model.forecaster.held_out_series()
    assert model.forecast(first.values).shape == (10,)
    assert not (tmp_path / "run" / "auditions").exists()
