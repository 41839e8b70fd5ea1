"""Checkpoints, and the runs that they belong to."""

import json
import math
import re

import numpy as np
import pytest

from inspections import RATE, inspected
from wavegen.audio.levels import RecordingProfile
from wavegen.config import load_config, override
from wavegen.errors import CheckpointError
from wavegen.evaluation.scores import BITS, SQUARED_ERROR
from wavegen.inspect import as_dict, inspect_path, inspect_paths
from wavegen.model.building import build_model
from wavegen.runs.checkpoint import Checkpoint, save_checkpoint
from wavegen.runs.run_folder import RunFolder
from wavegen.training.progress import Progress

BASELINES = {
    "uniform": 8.0,
    "unigram": 7.6,
    "order-1 Markov": 4.9,
    "order-2 Markov": 4.3,
    "linear prediction": 3.7,
}


def words(text):
    """Without line breaks."""
    return " ".join(text.split())


def make_checkpoint(step, validation, steps=2000):
    config = load_config().with_values("training", steps=steps, minutes=None)
    config = config.with_values("data", folder="my recordings").with_values("audio", sample_rate_hz=RATE)
    progress = Progress(
        step=step,
        updates=step - 2,
        targets=step * 7200,
        seconds=step * 0.5,
        best_loss=validation and 3.9,
        best_step=validation and 600,
        validation=validation or {},
    )
    manifest = [
        {
            "name": f"{i}.wav",
            "n_samples": 60 * RATE,
            "content_hash": "0",
            "split": "validation" if i == 0 else "train",
            "label": f"speaker {i % 3}",
        }
        for i in range(10)
    ]
    arrays = {"output.weight": np.zeros((4, 4), np.float32)}
    return Checkpoint(config, step, arrays, arrays, ({}, {}), manifest, dict(vars(progress)), {"torch": "2.9.0"})


def validation_line(step, bits, **more):
    return {"step": step, "validation_bits": bits, "baselines": BASELINES, "held_out_seconds": 30.0, **more}


def step_line(step, bits):
    return {
        "step": step,
        "train_bits": bits,
        "hours_of_audio": step / 1000,
        "seconds": step * 0.5,
        "skipped": 1,
        "targets_per_second": 1e4,
    }


def test_inspecting_a_checkpoint_shows_its_progress(tmp_path):
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, validation_line(1000, 4.0)), path)
    facts, text = inspected(path, "checkpoint")
    assert (facts["step"], facts["total_steps"], facts["skipped_steps"]) == (1000, 2000, 2)
    assert facts["seen"] == pytest.approx(0.125)
    assert facts["minutes_trained"] == pytest.approx(500 / 60)
    assert (facts["best_loss"], facts["best_step"]) == (3.9, 600)
    assert facts["last_validation"]["baselines"] == BASELINES
    assert facts["network"]["parameters"] == build_model(make_checkpoint(1, None).config).n_parameters
    assert len(facts["data"].pop("held_out_hash")) == 16
    assert facts["data"] == {
        "folder": "my recordings",
        "train": {"clips": 9, "minutes": 9.0, "points": None},
        "validation": {"clips": 1, "minutes": 1.0, "points": None},
        "labels": ["speaker 0", "speaker 1", "speaker 2"],
    }
    assert facts["versions"]["torch"] == "2.9.0"
    assert facts["file_bytes"] == path.stat().st_size
    for shown in (
        "1,000 of 2,000 (50%)",
        "7:30 min of audio in all (0.8 passes)",
        "8:20 min",
        "4.000 bits/sample on 30.0 s of held-out audio at step 1,000",
        "3.900 bits/sample at step 600",
        "9 clips, 9:00 min",
        "3: speaker 0, speaker 1, speaker 2",
        "torch 2.9.0",
    ):
        assert shown in text


def test_figures_in_other_classes_name_them(tmp_path):
    checkpoint = make_checkpoint(1000, validation_line(1000, 9.5))
    keys = ["quantization.kind=linear", "quantization.classes=65536", "model.input=scalar"]
    checkpoint.config = override(checkpoint.config, [*keys, "output.kind=logistic_mixture"])
    save_checkpoint(checkpoint, tmp_path / "step.safetensors")
    _, text = inspected(tmp_path / "step.safetensors", "checkpoint")
    assert "9.500 bits/sample in 65,536 linear classes on 30.0 s of held-out audio at step 1,000" in words(text)
    assert re.search(r"\n +model +bits/sample in 65,536 linear classes\n", text)


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"held_out_bits": 4.0, "validation_bits": 4.5}, ""),  # of an older version: baselines of all held-out audio
        ({"all_held_out_seconds": 162.0}, " on 30.0 s of the 2:42 min held out"),
    ],
    ids=["older version", "today's"],
)
def test_checkpoint_ranks_the_model_among_the_baselines_on_the_same_audio(tmp_path, more, shown):
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(2000, validation_line(2000, 4.0) | more), path)
    facts, text = inspected(path, "checkpoint")
    assert facts["last_validation"]["loss"] == 4.0
    assert f"4.000 bits/sample{shown} at step 2,000" in words(text)
    rows = [line.split() for line in text.partition(f"Step 2,000, bits/sample{shown}")[2].splitlines()[3:9]]
    assert [row[-1] for row in rows] == ["8.000", "7.600", "4.900", "4.300", "4.000", "3.700"]
    assert rows[4][:2] == ["this", "model"]


@pytest.mark.parametrize(
    ("validation", "shown"),
    [
        (None, "no validation yet"),
        (validation_line(1000, math.nan), "- bits/sample on 30.0 s of held-out audio at step 1,000"),
    ],
    ids=["none yet", "not finite"],
)
def test_checkpoint_without_a_figure(tmp_path, validation, shown):
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, validation), path)
    facts, text = inspected(path, "checkpoint")  # valid JSON too
    assert (facts["last_validation"] or {"loss": None})["loss"] is None
    assert shown in words(text)


def test_damaged_checkpoint_is_an_error(tmp_path):
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, None), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: its content does not match its hash"):
        inspect_path(str(path))


@pytest.fixture
def run(tmp_path):
    """A run of 2,000 steps that was killed at step 1,050, with its newest checkpoint at step 1,000."""
    run = RunFolder(tmp_path / "run")
    run.create(make_checkpoint(1, None).config.to_yaml())
    lines = []
    for step in range(1, 1051):
        lines.append(step_line(step, None if step == 7 else 8 - step / 500))
        if step % 50 == 0:
            lines.append(validation_line(step, 4.5 + abs(step - 600) / 1000))
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1051, "tra')
    run.save_best(make_checkpoint(600, validation_line(600, 4.5)))
    for step in (900, 1000):
        run.save(make_checkpoint(step, validation_line(step, 4.9)), keep_last=3)
    run.auditions.mkdir()
    for step in (500, 1000):
        run.audition_file(step).touch()
        run.audition_file(step).with_suffix(".png").touch()
    return run


def test_inspecting_a_run_shows_its_progress(run):
    facts, text = inspected(run.path, "run")
    assert (facts["step"], facts["total_steps"], facts["newest_checkpoint_step"]) == (1050, 2000, 1000)
    assert facts["seen"] == pytest.approx(1.05)
    assert facts["minutes_trained"] == pytest.approx(525 / 60)
    assert facts["recent_train_loss"] == pytest.approx(8 - (951 + 1050) / 2 / 500)
    assert (facts["best_loss"], facts["best_step"]) == (4.5, 600)
    assert facts["data"]["train"]["clips"] == 9
    assert facts["auditions"] == ["auditions/step-00000500.wav", "auditions/step-00001000.wav"]
    assert [(entry["file"], entry["step"]) for entry in facts["checkpoints"]] == [
        ("checkpoints/step-00000900.safetensors", 900),
        ("checkpoints/step-00001000.safetensors", 1000),
        ("checkpoints/best.safetensors", 600),
    ]
    for shown in (
        "1,050 of 2,000",
        "step 1,000; --resume continues from there",
        "5.999 bits/sample, mean of the last steps",
        "4.950 bits/sample on 30.0 s of held-out audio at step 1,050",
        "4.500 bits/sample at step 600",
        "2, the last is auditions/step-00001000.wav",
        "best.safetensors",
    ):
        assert shown in text


def test_run_shows_its_curve_in_a_few_rows(run):
    facts, text = inspected(run.path, "run")
    assert [entry["step"] for entry in facts["validations"]] == list(range(50, 1051, 50))
    first = facts["validations"][0]
    steps = [step for step in range(1, 51) if step != 7]
    assert first["train_loss"] == pytest.approx(np.mean([8 - step / 500 for step in steps]))
    assert facts["validations"][3]["train_loss"] == pytest.approx(8 - (151 + 200) / 2 / 500)
    assert first["seen"] == pytest.approx(0.05)
    title, _, curve = text.partition("validations (bits/sample)\n")
    rows = curve.partition("\n\n")[0].splitlines()[2:]
    assert title.endswith(f"{len(rows)} of 21 ")
    assert len(rows) <= 12
    assert rows[0].split()[0] == "50"
    assert rows[-1].split()[0] == "1,050"
    assert [row.split()[0] for row in rows if row.endswith("best")] == ["600"]


def test_run_without_a_checkpoint_yet(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(make_checkpoint(1, None).config.to_yaml())
    facts, text = inspected(run.path, "run")
    assert facts["step"] == 0
    assert facts["newest_checkpoint_step"] is None
    assert facts["data"] is None
    assert facts["checkpoints"] == facts["auditions"] == facts["validations"] == []
    assert "none yet" in text
    run.append_metrics(step_line(1, 7.9))
    facts, text = inspected(run.path, "run")
    assert facts["step"] == 1
    assert "7.900 bits/sample, mean of the last steps" in text


@pytest.mark.parametrize(("preset", "loss_unit"), [("small", BITS), ("book-simple", SQUARED_ERROR)])
def test_run_of_which_every_step_was_skipped(tmp_path, preset, loss_unit):
    run = RunFolder(tmp_path / "run")
    run.create(load_config(preset).to_yaml())
    for step in (1, 2, 3):
        entry = {
            "step": step,
            "train_loss": None,
            "loss_unit": loss_unit.name,
            "hours_of_audio": 0.0,
            "points_seen": 0,
            "skipped": step,
        }
        run.append_metrics({**entry, "gradient_norm": None, "targets_per_second": 1e4, "seconds": step * 0.5})
    run.append_metrics(
        {"step": 3, "validation_loss": math.nan, "loss_unit": loss_unit.name, "baselines": {"uniform": math.nan}}
    )
    facts, text = inspected(run.path, "run")
    assert (facts["step"], facts["skipped_steps"]) == (3, 3)
    assert facts["best_loss"] is facts["recent_train_loss"] is None
    assert "median of the last steps" in text
    assert "mean of the last" not in text
    assert as_dict(inspect_paths([str(run.path)] * 2))["runs"][0]["skipped_steps"] == 3


def test_run_without_its_metrics_goes_by_its_checkpoint(run):
    run.metrics_file.unlink()
    facts, _ = inspected(run.path, "run")
    assert facts["step"] == facts["newest_checkpoint_step"] == 1000
    assert facts["best_step"] == 600


def test_run_with_damaged_checkpoints_is_still_shown(run):
    newest = run.step_checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    facts, text = inspected(run.path, "run")
    assert facts["newest_checkpoint_step"] == 900
    assert len(facts["damaged_checkpoints"]) == 1
    assert "damaged" in text
    for path in run.step_checkpoints():
        path.write_bytes(b"")
    facts, text = inspected(run.path, "run")
    assert facts["newest_checkpoint_step"] is None
    assert facts["step"] == 1050


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_run_fits_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = inspected(run.path, "run")[1]
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b" not in text


def test_inspecting_a_checkpoint_shows_its_recordings_profile(tmp_path):
    checkpoint = make_checkpoint(1000, None)
    tone = 0.1 * np.sqrt(2) * np.sin(np.arange(80_000) / 5).astype(np.float32)
    profile = RecordingProfile.of([tone, np.zeros(80_000, np.float32)], 16000)
    checkpoint.metrics["recordings"] = profile.as_dict()
    path = tmp_path / "step.safetensors"
    save_checkpoint(checkpoint, path)
    _, text = inspected(path, "checkpoint")
    words = " ".join(text.split())
    assert "-20 dB where loud, 50% silent, spectral centroid 5" in words
    assert "clips of 5.0 s to 5.0 s, median 5.0 s" in words
