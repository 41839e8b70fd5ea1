"""The plan that a training prints before it starts."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recordings import write_noise, write_tones
from wavegen.config import load_config, override
from wavegen.report import print_tables
from wavegen.report.training import plan_tables
from wavegen.training import task
from wavegen.training.plan import Trial, resolve_plan
from wavegen.training.task import task_type


def test_no_name_of_a_file_or_a_folder_commands_the_terminal(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no name is broken into lines
    folder = write_tones(tmp_path / "loud\x1b[31m", [200])
    (folder / "bad\x1b[2J.wav").write_bytes(b"no audio")
    config = load_config("small", ["training.precision=float32"]).with_values("data", folder=str(folder))
    file, cpu = io.StringIO(), torch.device("cpu")
    corpus = task_type(config).read_corpus(config)
    plan = resolve_plan(config, corpus, cpu, print)
    print_tables(plan_tables(plan, corpus, cpu, tmp_path / "run\x1b[1m"), file)
    assert "\x1b" not in file.getvalue()
    assert all(name in file.getvalue() for name in (r"loud\x1b[31m", r"bad\x1b[2J.wav"))


def preparation_of(folder, *overrides):
    """Return the rows of the plan's table on preparation, by name."""
    config = override(load_config("small").with_values("data", folder=str(folder)), ["training.precision=float32"])
    config = override(config, list(overrides))
    cpu = torch.device("cpu")
    corpus = task_type(config).read_corpus(config)
    tables = plan_tables(resolve_plan(config, corpus, cpu, print), corpus, cpu, folder / "run")
    assert [table.title for table in tables].index("Preparation") == 1
    (table,) = (table for table in tables if table.title == "Preparation")
    return dict(table.rows)


def test_the_plan_lists_the_preparation_of_the_recordings(tmp_path):
    quiet = np.concatenate([np.zeros(16000), 0.05 * np.sin(np.arange(16000) / 5), np.zeros(48000)])
    loud = np.concatenate([0.5 * np.sin(np.arange(16000) / 5), np.zeros(32000), 0.5 * np.sin(np.arange(16000) / 5)])
    for name, clip in (("quiet", quiet), ("loud", loud)):
        soundfile.write(tmp_path / f"{name}.wav", clip, 16000, subtype="FLOAT")
    rows = preparation_of(tmp_path)
    cut, _, words = rows["silence"].partition(" cut: ")
    assert 5.4 <= float(cut.removesuffix(" s")) <= 5.8
    assert words == "ends, pauses shortened to 0.3 s, 40 dB below each clip's loudest part"
    assert rows["level"] == "peak of each clip; their peaks were 20 dB apart"
    assert rows["order"] == (
        "75% of clips follow another one, the rest begin after silence; beginnings are seen more often; "
        "quiet windows are seen less often"
    )


def test_the_plan_lists_the_steps_of_preparation_that_are_off(tmp_path):
    write_noise(tmp_path / "a.wav", 8000)
    off = ["audio.trim_db=null", "audio.level=keep", "data.following=0", "data.beginnings=0", "data.quiet_weight=1"]
    assert preparation_of(tmp_path, *off) == {
        "silence": "kept",
        "level": "kept",
        "order": "every clip begins after silence",
    }
    no_pauses = preparation_of(tmp_path, "audio.pause_seconds=null", "audio.level=rms")
    assert no_pauses["silence"] == "0.0 s cut: ends, 40 dB below each clip's loudest part"
    assert no_pauses["level"].startswith("rms of each clip; ")
    vocoder = preparation_of(tmp_path, "mel.n_mels=20")
    assert (vocoder["silence"], vocoder["order"]) == ("kept", "every clip begins after silence")


def test_the_plan_of_series_has_no_preparation():
    config, cpu = load_config("book-simple", ["series.points=20"]), torch.device("cpu")
    corpus = task_type(config).read_corpus(config)
    plan = resolve_plan(task_type(config).with_corpus(config, corpus), corpus, cpu, print)
    titles = [table.title for table in plan_tables(plan, corpus, cpu, Path("run"))]
    assert "Preparation" not in titles


def test_the_plan_warns_where_notes_are_far_longer_than_the_receptive_field(tmp_path):
    time = np.arange(16000 * 8) / 16000
    for i in range(3):
        note = 0.5 * np.exp(-time / 2) * np.sin(2 * np.pi * 220 * (1 + i) * time)
        soundfile.write(tmp_path / f"{i}.wav", note, 16000, subtype="FLOAT")
    rows = preparation_of(tmp_path)
    assert "times the receptive field" in rows["events"]
    assert "--config music" in rows["events"]
    assert "events" not in preparation_of(tmp_path, "model.cycles=8")


@pytest.mark.parametrize(
    ("keys", "time"),
    [
        (["steps=9000"], "about 15:00 min"),
        (["steps=100000"], "about 2:46 h"),
        (["minutes=3"], "about 3:00 min"),
        (["steps=9000", "precision=float32"], None),
    ],
)
def test_the_plan_states_the_time(keys, time, tmp_path, monkeypatch):
    monkeypatch.setattr(Trial, "step_seconds", lambda *_, **__: 0.1)
    monkeypatch.setattr(task, "_scoring_seconds", lambda *_: 0.2)
    monkeypatch.setattr(task, "_sampling_seconds", lambda *_: 1e-4)
    data = {"folder": str(write_tones(tmp_path / "tones", [200] * 4))}
    config = load_config("small", [f"training.{key}" for key in keys]).with_values("data", **data)
    corpus, cpu = task_type(config).read_corpus(config), torch.device("cpu")
    tables = plan_tables(resolve_plan(config, corpus, cpu, print), corpus, cpu, tmp_path / "run")
    assert dict(tables[-1].rows).get("time") == time
