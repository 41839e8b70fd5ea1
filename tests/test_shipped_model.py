"""The model that comes with wavegen, by the name of voice: small, licensed, and able to make sound."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import wavegen
from wavegen.cli import app
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import SHIPPED_MODEL

SPEECH = Path(__file__).parent / "data" / "speech"
HELD_OUT = ("privacy-incorrect", "vm-incorrect", "confbridge-rest-talk-vol-out")  # of the clips that it never heard
ORDER_2_MARKOV = 4.296  # bits/sample of all clips that it never heard


def call(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_is_small_and_knows_nothing_of_where_it_was_trained():
    assert SHIPPED_MODEL.stat().st_size < 1e6
    checkpoint = load_checkpoint(SHIPPED_MODEL)
    assert checkpoint.is_for_use_only
    assert checkpoint.config.data.folder is None
    assert "/" not in json.dumps(checkpoint.config.data.model_dump())


def test_its_licence_is_shipped_with_it():
    licence = (SHIPPED_MODEL.parent / "LICENSE.md").read_text(encoding="utf-8")
    assert "Allison Smith" in licence
    assert "CC BY-SA 3.0" in licence
    assert "https://creativecommons.org/licenses/by-sa/3.0/" in licence
    assert f"{load_checkpoint(SHIPPED_MODEL).step:,} steps" in licence


def test_it_is_the_small_presets_network():
    config = load_checkpoint(SHIPPED_MODEL).config
    assert config.model == wavegen.load_config("small").model
    assert config.audio.sample_rate_hz == 16000


def test_it_makes_sound_without_a_word_of_doubt():
    model = wavegen.load("voice")
    assert model.undertrained_warning() is None
    clips = model.generate(2, count=2, seed=1)
    assert clips.shape == (2, 32000)
    assert np.isfinite(clips).all()
    level_db = 10 * np.log10(np.square(clips, dtype=np.float64).mean())
    assert -40 < level_db < -10, "speech, neither silence nor noise"


def test_silence_is_blamed_on_the_option_that_makes_it():
    given = ["generate", "voice", "--seconds", "3", "--top-p", "0.7", "--seed", "1"]
    said = CliRunner().invoke(app, given).stderr
    assert "generated.wav: silence from end to end; leave out --top-p 0.7" in said


def test_it_predicts_speech_that_it_was_not_trained_on():
    model = wavegen.load("voice")
    bits = [model.score(model.load_clip(SPEECH / f"{name}.flac")) for name in HELD_OUT]
    assert max(bits) < ORDER_2_MARKOV
    assert np.mean(bits) < ORDER_2_MARKOV - 1


def test_every_command_takes_it_by_its_name():
    call("generate", "voice", "-o", "first.wav", "--seconds", "0.1")
    assert soundfile.info("first.wav").frames == 1600
    assert "this model" in call("inspect", "voice")
    assert call("inspect", "demo") == call("inspect", "voice"), "its old name"
    call("export", "voice", "-o", "model.safetensors")
    assert "bits/sample" in call("evaluate", "voice", SPEECH / f"{HELD_OUT[0]}.flac")
    tiny = ("training.batch_size=1", "training.window_targets=100", "training.audition_every=0")
    settings = [part for value in tiny for part in ("--set", value)]
    Path("mine").mkdir()
    shutil.copy(SPEECH / "digits-17.flac", "mine")
    call("train", "mine", "--init-from", "voice", "--run", "run", "--steps", "1", *settings)
    assert (Path("run") / "checkpoints" / "best.safetensors").is_file()


def test_it_cannot_be_scored_on_what_it_held_out():
    done = CliRunner().invoke(app, ["evaluate", "voice"])
    assert done.exit_code == 2
    assert done.stderr == ("error: an exported model has no list of its training and held-out clips; give files\n")
