"""Recordings of long notes and decays: the preset that they are trained with, where none is asked for."""

import numpy as np
import pytest
import soundfile

from command_line import wavegen
from wavegen import train
from wavegen.config import load_config, load_for_long_events
from wavegen.training.start import _for_events
from wavegen.training.task import task_type

NARROW = ["model.residual_channels=4", "model.gate_channels=4", "model.skip_channels=4", "model.head_channels=4"]
QUICK = [*NARROW, "training.steps=1", "training.threads=1", "training.precision=float32", "training.audition_every=0"]
OPTIONS = [part for each in QUICK for part in ("--set", each)]


def write_decays(folder, tau_seconds):
    """Write three notes that decay; within 40 dB of its start each lasts for 4.6 time constants."""
    folder.mkdir()
    for name, hz in (("a", 220), ("b", 330), ("c", 440)):
        seconds = np.arange(round(5 * tau_seconds * 16000)) / 16000
        note = 0.8 * np.exp(-seconds / tau_seconds) * np.sin(2 * np.pi * hz * seconds)
        soundfile.write(folder / f"{name}.wav", note, 16000)
    return folder


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return write_decays(tmp_path_factory.mktemp("long") / "notes", 2.0)


def test_long_notes_are_trained_with_music(notes, tmp_path):
    result = wavegen("train", notes, "--run", tmp_path / "run", *OPTIONS)
    assert "config: music (about 8 s from one onset to the next: music hears 216 ms, small 64 ms)" in result.stderr
    assert "times the receptive field" not in result.stderr
    frozen, music = load_config(tmp_path / "run" / "config.yaml"), load_config("music")
    assert frozen.model.dilations == music.model.dilations
    assert frozen.data.quiet_weight == music.data.quiet_weight == 1
    assert (frozen.training.batch_size, frozen.training.window_targets) == (4, 8192)
    assert frozen.data.labels == "none", "of the preset for labels only the rest is taken"
    assert frozen.model.residual_channels == 4, "what is asked for stays"
    resumed = wavegen("train", "--run", tmp_path / "run", "--resume", "--steps", "2")
    assert "resumed at step 1 of 2" in resumed.stderr


def test_a_preset_that_is_asked_for_stays(notes, tmp_path):
    result = wavegen("train", notes, "--config", "small", "--run", tmp_path / "run", *OPTIONS)
    assert "config: music" not in result.stderr
    assert "times the receptive field" in result.stderr
    assert load_config(tmp_path / "run" / "config.yaml").data.quiet_weight == load_config("small").data.quiet_weight


def chosen(folder, *overrides):
    """The configuration that the default preset becomes, and the one that it is."""
    given = [f"data.folder={folder}", *overrides]
    config, said = load_config("small", given), []
    corpus = task_type(config).read_corpus(config, None)
    found = _for_events(config, load_for_long_events(given), corpus, said.append)
    assert (found is config) == (not said)
    return found, config


def test_other_events_keep_the_default(notes, tmp_path):
    found, default = chosen(notes)
    assert found != default
    found, default = chosen(notes, "model.dilation_cycle=4")
    assert found is default, "with dilations of the user's the other preset hears no more"
    found, default = chosen(write_decays(tmp_path / "short", 0.2))
    assert found is default
    (tmp_path / "songs").mkdir()
    for name in "ab":
        song = 0.5 * np.sin(np.arange(70 * 16000) / 20)
        soundfile.write(tmp_path / "songs" / f"{name}.wav", song, 16000)
    found, default = chosen(tmp_path / "songs")
    assert found is default, "sound that goes on has no notes"


def test_from_python_too(notes, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("wavegen.api.load_for_long_events", lambda: load_for_long_events(QUICK))
    train(notes, run=tmp_path / "run", notice=said.append)
    assert any(text.startswith("config: music") for text in said)
    assert load_config(tmp_path / "run" / "config.yaml").data.folder == str(notes)
