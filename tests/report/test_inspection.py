import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from wavegen.audio.quantize import Quantizer
from wavegen.config import load_config, override, preset_names
from wavegen.errors import AudioError, CheckpointError, ConfigError, UsageError
from wavegen.evaluation.measure import BITS, SQUARED_ERROR, Measure
from wavegen.model.building import build_model
from wavegen.report.inspection import Inspection, inspect_path, inspect_paths
from wavegen.report.tables import print_tables
from wavegen.training.checkpoint import Checkpoint, save_checkpoint
from wavegen.training.progress import Progress
from wavegen.training.run_folder import RunFolder

RATE = 16000
BASELINES = {
    "uniform": 8.0,
    "unigram": 7.6,
    "order-1 Markov": 4.9,
    "order-2 Markov": 4.3,
    "linear prediction": 3.7,
}


def sine(amplitude: float, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write(path: Path, waveform: np.ndarray, rate_hz: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate_hz, subtype=subtype)
    return path


def text_of(inspection: Inspection) -> str:
    file = io.StringIO()
    print_tables(inspection.tables, file)
    return file.getvalue()


def inspected(path: Path | str, kind: str) -> tuple[dict[str, Any], str]:
    """The facts, after a trip through strict JSON, and the printed tables."""
    inspection = inspect_path(str(path))
    facts = json.loads(json.dumps(inspection.facts, allow_nan=False))
    assert facts == inspection.facts
    assert inspection.kind == facts["kind"] == kind
    return facts, text_of(inspection)


# --- folder -------------------------------------------------------------------------------------------------


def test_folder_counts_usable_files_by_format(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.wav", sine(0.5, 2.0))
    write(tmp_path / "sub" / "stereo.flac", np.zeros((44100 * 5, 2)), 44100, "PCM_24")
    write(tmp_path / "click.ogg", sine(0.5, 0.5))
    (tmp_path / "notes.txt").write_text("no audio")
    facts, text = inspected(tmp_path, "folder")
    assert facts["usable_files"] == 5
    assert facts["unusable_files"] == 0
    assert facts["ignored_entries"] == 1
    assert facts["minutes"] == pytest.approx(11.5 / 60)
    assert (facts["shortest_seconds"], facts["median_seconds"], facts["longest_seconds"]) == (0.5, 2.0, 5.0)
    expected = [
        ("WAV", "PCM_16", 16, RATE, 1, 3, 0.1),
        ("FLAC", "PCM_24", 24, 44100, 2, 1, 5 / 60),
        ("OGG", "VORBIS", None, RATE, 1, 1, 0.5 / 60),
    ]
    assert [tuple(entry.values()) for entry in facts["formats"]] == [pytest.approx(entry) for entry in expected]
    assert "5 files, 11.5 s" in text
    assert "shortest 500 ms, median 2.0 s, longest 5.0 s" in text
    assert "WAV 16 bit" in text
    assert "OGG Vorbis" in text
    assert "cannot be used" not in text


def test_folder_says_why_files_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "good.wav", sine(0.5, 1.0))
    write(tmp_path / "nothing.wav", np.zeros(0))
    (tmp_path / "empty.flac").touch()
    (tmp_path / "text.wav").write_text("not audio at all")
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    facts, text = inspected(tmp_path, "folder")
    assert facts["usable_files"] == 1
    reasons = {entry["name"]: entry["reason"] for entry in facts["unusable"]}
    assert list(reasons) == ["empty.flac", "nothing.wav", "phone.m4a", "text.wav"]
    assert reasons["empty.flac"] == "the file is empty (0 bytes)"
    assert reasons["nothing.wav"] == "no audio in it (0 samples)"
    assert "ffmpeg" in reasons["phone.m4a"]
    assert "no audio format is recognized" in reasons["text.wav"]
    assert "4 files" in text
    assert "the file is empty (0 bytes)" in text


def test_folder_shows_a_few_bad_files_and_counts_the_rest(tmp_path: Path) -> None:
    for i in range(40):
        (tmp_path / f"{i:02d}.wav").touch()
    facts, text = inspected(tmp_path, "folder")
    assert len(facts["unusable"]) == 40
    assert "00.wav" in text
    assert "39.wav" not in text
    assert "and 28 more" in text


def test_empty_folder_is_inspected_too(tmp_path: Path) -> None:
    facts, text = inspected(tmp_path, "folder")
    assert facts["usable_files"] == 0
    assert facts["median_seconds"] is None
    assert facts["formats"] == []
    assert "0 files" in text


def test_folder_reports_progress_up_to_the_last_file(tmp_path: Path) -> None:
    for i in range(50):
        write(tmp_path / f"{i}.wav", np.zeros(10))
    calls: list[tuple[int, int]] = []
    inspect_path(str(tmp_path), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (50, 50)
    assert calls == sorted(calls)
    assert len(calls) > 1


def test_names_with_control_characters_stay_on_their_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b[31m.wav").touch()
    facts, text = inspected(tmp_path, "folder")
    assert facts["unusable"][0]["name"] == "a\nb\x1b[31m.wav"
    assert "a\\nb\\x1b[31m.wav" in text
    assert "\x1b" not in text


# --- folder, heard --------------------------------------------------------------------------------------------


def heard(folder: Path) -> tuple[dict[str, Any], str]:
    inspection = inspect_paths([str(folder)], hear=True)
    facts = json.loads(json.dumps(inspection.facts, allow_nan=False))
    assert facts == inspection.facts
    return facts, text_of(inspection)


def test_headers_alone_say_nothing_of_the_sound(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", sine(0.5, 1.0))
    facts, text = inspected(tmp_path, "folder")
    assert facts["heard"] is None
    assert facts["files"] == [{"name": "a.wav", "seconds": 1.0, "rate_hz": RATE, "channels": 1, "level": None}]
    assert "levels" not in text


def test_listening_finds_levels_clipping_offset_and_silence(tmp_path: Path) -> None:
    write(tmp_path / "good.wav", sine(0.5, 2.0))
    write(tmp_path / "quiet.wav", np.concatenate([sine(0.05, 1.0), np.zeros(RATE)]))
    write(tmp_path / "loud.wav", np.clip(sine(2.0, 1.0), -1.0, 1.0))
    write(tmp_path / "offset.wav", sine(0.2, 1.0) - 0.1)
    write(tmp_path / "silent.wav", np.zeros(RATE))
    facts, text = heard(tmp_path)
    together = facts["heard"]
    assert together["peak_dbfs"]["lowest"] == pytest.approx(-26.02, abs=0.01)
    assert together["peak_dbfs"]["median"] == pytest.approx((-6.02 - 10.46) / 2, abs=0.01)
    assert together["peak_dbfs"]["highest"] == pytest.approx(0.0, abs=0.01)
    assert together["rms_dbfs"]["lowest"] == pytest.approx(-29.03 - 3.01, abs=0.01)
    assert (together["clipped_files"], together["dc_offset_files"], together["silent_files"]) == (1, 1, 1)
    assert together["silent_share"] == pytest.approx(2 / 7, abs=0.01)
    levels = {file["name"]: file["level"] for file in facts["files"]}
    assert levels["quiet.wav"]["silent_share"] == pytest.approx(0.5, abs=0.01)
    assert levels["good.wav"]["silent_share"] == 0
    assert together["full_scale_samples"] == levels["loud.wav"]["clipped_samples"] > 5000
    for shown in ("clipped: 66.5", "DC offset -0.100", "silent from end to end", "1 file without any sound"):
        assert shown in text
    assert "good.wav" not in text


def test_listening_finds_the_same_sound_under_any_name_and_format(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-9000, 9000, RATE, dtype=np.int16)
    write(tmp_path / "a.wav", noise)
    write(tmp_path / "sub" / "b.flac", noise)
    write(tmp_path / "c.wav", noise, rate_hz=8000)  # the same numbers are another sound at another rate
    write(tmp_path / "d.wav", noise[:-1])
    facts, text = heard(tmp_path)
    assert facts["heard"]["duplicates"] == [["a.wav", "sub/b.flac"]]
    training = facts["heard"]["training"]
    assert (training["files"], training["sample_rate_hz"]) == (4, RATE)
    assert 60 * (training["minutes"] - training["distinct_minutes"]) == pytest.approx(1.0)
    assert "the same as a.wav" in text
    assert "1.0 s of it repeated" in text


def test_listening_takes_what_comes_out_of_a_file_and_not_what_its_header_says(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.flac", np.random.default_rng(0).normal(0, 0.1, 4 * RATE)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "short.wav", sine(0.5, 1.0))
    assert inspected(tmp_path, "folder")[0]["usable_files"] == 3
    facts, _ = heard(tmp_path)
    reasons = {entry["name"]: entry["reason"] for entry in facts["unusable"]}
    lengths = {file["name"]: file["seconds"] for file in facts["files"]}
    assert lengths["whole.flac"] == 4.0
    assert "damaged" in reasons.get("cut.flac", "") or lengths["cut.flac"] < 4.0
    assert facts["heard"]["training"]["files"] == facts["usable_files"] == len(lengths)


def test_listening_reports_both_passes(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.wav", sine(0.5, 0.1))
    calls: list[tuple[int, int]] = []
    inspect_paths([str(tmp_path)], lambda done, total: calls.append((done, total)), hear=True)
    assert calls.count((3, 3)) == 2


def test_an_empty_folder_is_heard_too(tmp_path: Path) -> None:
    facts, text = heard(tmp_path)
    assert facts["heard"]["training"]["files"] == 0
    assert facts["heard"]["silent_share"] is None
    assert "0 files" in text


# --- audio --------------------------------------------------------------------------------------------------


def test_audio_level_of_a_known_sine(tmp_path: Path) -> None:
    facts, text = inspected(write(tmp_path / "a.wav", sine(0.5, 2.0, 400.0)), "audio")
    level = facts["level"]
    assert level["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert level["rms_dbfs"] == pytest.approx(-9.03, abs=0.01)
    assert level["dc_offset"] == pytest.approx(0, abs=1e-4)
    assert level["clipped_samples"] == 0
    assert level["leading_silence_seconds"] == level["trailing_silence_seconds"] == 0
    assert (facts["rate_hz"], facts["channels"], facts["bits"], facts["encoding"]) == (RATE, 1, 16, "PCM_16")
    assert (facts["samples_per_channel"], facts["seconds"], facts["missing_seconds"]) == (32000, 2.0, 0.0)
    assert facts["file_bytes"] == (tmp_path / "a.wav").stat().st_size
    for shown in ("WAV 16 bit", "16,000 Hz", "2.0 s (32,000 samples)", "-6.0 dBFS", "-9.0 dBFS"):
        assert shown in text
    assert "missing" not in text


def test_audio_dc_offset_is_that_of_the_worst_channel(tmp_path: Path) -> None:
    left = sine(0.2, 1.0, 400.0)
    facts, text = inspected(write(tmp_path / "a.wav", np.stack([left, left - 0.25], axis=1)), "audio")
    assert facts["level"]["dc_offset"] == pytest.approx(-0.25, abs=1e-4)
    assert "-0.2500 of full scale" in text


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "ULAW", "ALAW", "FLOAT", "PCM_32"])
def test_audio_clipping_is_found_in_every_encoding(tmp_path: Path, subtype: str) -> None:
    loud = np.clip(sine(0.5, 1.0, 400.0), -0.45, 0.45)
    silent = write(tmp_path / "quiet.wav", loud, subtype=subtype)
    assert inspected(silent, "audio")[0]["level"]["clipped_samples"] == 0
    loud[100:103], loud[200:205] = 1.0, -1.0
    facts, _ = inspected(write(tmp_path / "a.wav", loud, subtype=subtype), "audio")
    assert facts["level"]["clipped_samples"] == 8
    assert facts["level"]["clipped_share"] == 8 / RATE


def test_audio_silence_at_both_ends(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-5, RATE)
    waveform = np.concatenate([noise[:8000], sine(0.5, 1.0), noise[:4000]])
    facts, text = inspected(write(tmp_path / "a.flac", waveform, subtype="PCM_24"), "audio")
    assert facts["level"]["leading_silence_seconds"] == pytest.approx(0.5, abs=0.011)
    assert facts["level"]["trailing_silence_seconds"] == pytest.approx(0.25, abs=0.011)
    assert facts["level"]["silence_threshold_db"] == 60
    assert "silence at start  0.50 s" in text


def test_audio_of_digital_silence(tmp_path: Path) -> None:
    facts, text = inspected(write(tmp_path / "a.wav", np.zeros(8000)), "audio")
    assert facts["level"]["peak_dbfs"] is None
    assert facts["level"]["rms_dbfs"] is None
    assert facts["level"]["leading_silence_seconds"] == 0.5
    assert facts["mu_law"]["signal_to_noise_db"] is None
    assert facts["mu_law"]["classes_used"] == 1
    assert "digital silence" in text


def test_audio_quantization_is_that_of_the_quantizer(tmp_path: Path) -> None:
    # two channels whose mix is off the 16-bit grid now and then; more samples than one block of decoding
    rng = np.random.default_rng(1)
    envelope = np.abs(np.sin(np.arange(700_000) / 50_000))[:, None]
    path = write(tmp_path / "a.wav", rng.laplace(0, 0.05, (700_000, 2)).clip(-1, 1) * envelope)
    facts, text = inspected(path, "audio")
    mono = soundfile.read(path, dtype="float32")[0].mean(axis=1, dtype=np.float32)
    quantizer = Quantizer()
    classes = quantizer.encode(mono)
    error = mono - quantizer.decode(classes)
    ratio = 10 * math.log10(np.square(mono, dtype=float).sum() / np.square(error, dtype=float).sum())
    assert facts["mu_law"]["classes_used"] == len(np.unique(classes))
    assert facts["mu_law"]["signal_to_noise_db"] == pytest.approx(ratio, abs=1e-4)
    assert 30 < ratio < 40
    assert f"{len(np.unique(classes))} of 256" in text
    assert f"{ratio:.1f} dB" in text


def test_audio_reports_progress_in_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.zeros(2**21 + 5))
    calls: list[tuple[int, int]] = []
    inspect_path(str(path), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (2**21 + 5, 2**21 + 5)
    assert calls == sorted(calls)
    assert len(calls) > 1


def test_audio_shorter_than_a_piece_of_the_level(tmp_path: Path) -> None:
    facts, _ = inspected(write(tmp_path / "a.wav", np.array([0.5])), "audio")
    assert facts["level"]["peak_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert facts["level"]["rms_dbfs"] == pytest.approx(-6.02, abs=0.01)
    assert facts["level"]["leading_silence_seconds"] == facts["level"]["trailing_silence_seconds"] == 0


def test_audio_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(AudioError, match=r"a\.wav: libsndfile cannot read it"):
        inspect_path(str(tmp_path / "a.wav"))


# --- config -------------------------------------------------------------------------------------------------


def test_config_file_is_resolved_and_built(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(
        "audio: {sample_rate_hz: 8000}\n"
        "model: {cycles: 2, dilation_cycle: [1, 2, 4], kernel_size: 3, residual_channels: 8}\n"
        "training: {steps: 9000, batch_size: 4, window_targets: 1000}\n"
    )
    facts, text = inspected(file, "config")
    config = load_config(file)
    model = build_model(config)
    assert facts["config"] == config.model_dump()
    network = facts["network"]
    assert network["parameters"] == model.n_parameters
    assert network["multiply_adds_per_sample"] == model.multiply_adds
    assert network["residual_blocks"] == 6
    assert network["receptive_field_samples"] == 1 + 2 * 2 * 7
    assert network["receptive_field_ms"] == pytest.approx(29 / 8)
    training = facts["training"]
    assert training["targets_per_step"] == 4000
    assert training["audio_seconds_per_step"] == 0.5
    assert training["audio_hours_in_all"] == pytest.approx(1.25)
    assert training["memory_bytes"] > 4 * 5 * model.n_parameters
    for shown in (
        "model.dilation_cycle [1, 2, 4]",
        "audio.trim_db null",
        f"{model.n_parameters:,}",
        "29 samples (3.6 ms)",
        "4,000 targets, 0.50 s of audio",
        "9,000 steps, 1:15 h of audio",
    ):
        assert shown in " ".join(text.split())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "layers 18 x block sound"),
        ("bias: false, activation: relu", "18 x block: ReLU without a gate, no biases sound"),
        (
            "activation: tanh, weight_norm: true, dropout: 0.05",
            "18 x block: tanh without a gate, weight norm, dropout 0.05 sound",
        ),
    ],
)
def test_config_says_in_what_its_blocks_are_not_the_papers(tmp_path: Path, keys: str, words: str) -> None:
    path = tmp_path / "forms.yaml"
    path.write_text(f"model: {{{keys}}}")
    assert words in " ".join(inspected(path, "config")[1].split())


def test_config_with_minutes_does_not_know_its_steps(tmp_path: Path) -> None:
    file = tmp_path / "my.yml"
    file.write_text("training: {minutes: 10}\n")
    facts, text = inspected(file, "config")
    assert facts["training"]["audio_hours_in_all"] is None
    assert facts["training"]["minutes"] == 10
    assert "10 minutes; the steps are measured at the start" in text


def test_every_preset_is_inspected_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert preset_names()
    for name in preset_names():
        facts, text = inspected(name, "config")
        assert facts["path"] == name
        assert text.startswith(f"{name}\n")


def test_wrong_config_gives_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: {cylces: 2}\n")
    with pytest.raises(ConfigError, match="did you mean 'cycles'"):
        inspect_path(str(file))


# --- checkpoint and run -------------------------------------------------------------------------------------


def make_checkpoint(step: int, validation: dict[str, Any] | None, steps: int = 2000) -> Checkpoint:
    config = load_config().with_values("training", steps=steps, minutes=None)
    config = config.with_values("data", folder="my recordings").with_values("audio", sample_rate_hz=RATE)
    progress = Progress(
        step=step,
        updates=step - 2,
        targets=step * 7200,
        seconds=step * 0.5,
        best_bits=validation and 3.9,
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


def validation_line(step: int, bits: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "validation_bits": bits, "baselines": BASELINES, "held_out_seconds": 30.0, **more}


def step_line(step: int, bits: float | None) -> dict[str, Any]:
    return {
        "step": step,
        "train_bits": bits,
        "hours_heard": step / 1000,
        "seconds": step * 0.5,
        "skipped": 1,
        "targets_per_second": 1e4,
    }


def test_checkpoint_says_where_its_training_stands(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, validation_line(1000, 4.0)), path)
    facts, text = inspected(path, "checkpoint")
    assert (facts["step"], facts["total_steps"], facts["skipped_steps"]) == (1000, 2000, 2)
    assert facts["hours_heard"] == pytest.approx(0.125)
    assert facts["minutes_trained"] == pytest.approx(500 / 60)
    assert (facts["best_bits_per_sample"], facts["best_step"]) == (3.9, 600)
    assert facts["last_validation"]["baselines_bits_per_sample"] == BASELINES
    assert facts["network"]["parameters"] == build_model(make_checkpoint(1, None).config).n_parameters
    assert len(facts["data"].pop("held_out_hash")) == 16
    assert facts["data"] == {
        "folder": "my recordings",
        "train_clips": 9,
        "validation_clips": 1,
        "train_minutes": 9.0,
        "validation_minutes": 1.0,
        "labels": ["speaker 0", "speaker 1", "speaker 2"],
    }
    assert facts["versions"]["torch"] == "2.9.0"
    assert facts["file_bytes"] == path.stat().st_size
    for shown in (
        "1,000 of 2,000 (50%)",
        "7:30 min of audio",
        "8:20 min",
        "4.000 bits/sample at step 1,000",
        "3.900 bits/sample at step 600",
        "9 clips, 9:00 min",
        "3: speaker 0, speaker 1, speaker 2",
        "torch 2.9.0",
    ):
        assert shown in text


def test_figures_in_other_classes_say_so(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(1000, validation_line(1000, 9.5))
    keys = ["quantization.kind=linear", "quantization.classes=65536", "model.input=scalar"]
    checkpoint.config = override(checkpoint.config, [*keys, "output.kind=logistic_mixture"])
    save_checkpoint(checkpoint, tmp_path / "step.safetensors")
    _, text = inspected(tmp_path / "step.safetensors", "checkpoint")
    assert "9.500 bits/sample in 65,536 linear classes at step 1,000" in text
    assert re.search(r"\n +model +bits/sample in 65,536 linear classes\n", text)


def test_checkpoint_ranks_the_model_among_the_baselines_on_the_same_audio(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(2000, validation_line(2000, 4.5, held_out_bits=4.0)), path)
    facts, text = inspected(path, "checkpoint")
    assert facts["last_validation"]["bits_per_sample"] == 4.5
    assert facts["last_validation"]["all_bits_per_sample"] == 4.0
    assert "4.500 bits/sample at step 2,000 (4.000 on all held-out audio)" in text
    rows = [line.split() for line in text.partition("step 2,000, 30.0 s of held-out audio")[2].splitlines()[3:9]]
    assert [row[-1] for row in rows] == ["8.000", "7.600", "4.900", "4.300", "4.000", "3.700"]
    assert rows[4][:2] == ["this", "model"]


def test_checkpoint_before_the_first_validation(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(10, None), path)
    facts, text = inspected(path, "checkpoint")
    assert facts["last_validation"] is None
    assert "no validation yet" in text


def test_figures_that_are_not_finite_stay_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, validation_line(1000, math.nan)), path)
    facts, text = inspected(path, "checkpoint")
    assert facts["last_validation"]["bits_per_sample"] is None
    assert "- bits/sample at step 1,000" in text


def test_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "step.safetensors"
    save_checkpoint(make_checkpoint(1000, None), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged: its content does not match its hash"):
        inspect_path(str(path))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
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


def test_run_says_where_its_training_stands(run: RunFolder) -> None:
    facts, text = inspected(run.path, "run")
    assert (facts["step"], facts["total_steps"], facts["newest_checkpoint_step"]) == (1050, 2000, 1000)
    assert facts["hours_heard"] == pytest.approx(1.05)
    assert facts["minutes_trained"] == pytest.approx(525 / 60)
    assert facts["recent_train_bits_per_sample"] == pytest.approx(8 - (951 + 1050) / 2 / 500)
    assert (facts["best_bits_per_sample"], facts["best_step"]) == (4.5, 600)
    assert facts["data"]["train_clips"] == 9
    assert facts["auditions"] == ["auditions/step-00000500.wav", "auditions/step-00001000.wav"]
    assert [(entry["file"], entry["step"]) for entry in facts["checkpoints"]] == [
        ("checkpoints/step-00000900.safetensors", 900),
        ("checkpoints/step-00001000.safetensors", 1000),
        ("checkpoints/best.safetensors", 600),
    ]
    for shown in (
        "1,050 of 2,000",
        "step 1,000; --resume goes on from there",
        "5.999 bits/sample, mean of the last 100 steps",
        "4.950 bits/sample at step 1,050",
        "4.500 bits/sample at step 600",
        "2, the last is auditions/step-00001000.wav",
        "best.safetensors",
    ):
        assert shown in text


def test_run_shows_its_curve_in_a_few_rows(run: RunFolder) -> None:
    facts, text = inspected(run.path, "run")
    assert [entry["step"] for entry in facts["validations"]] == list(range(50, 1051, 50))
    first = facts["validations"][0]
    steps = [step for step in range(1, 51) if step != 7]
    assert first["train_bits_per_sample"] == pytest.approx(np.mean([8 - step / 500 for step in steps]))
    assert facts["validations"][3]["train_bits_per_sample"] == pytest.approx(8 - (151 + 200) / 2 / 500)
    assert first["hours_heard"] == pytest.approx(0.05)
    title, _, curve = text.partition("validations (bits/sample)\n")
    rows = curve.partition("\n\n")[0].splitlines()[2:]
    assert title.endswith(f"{len(rows)} of 21 ")
    assert len(rows) <= 12
    assert rows[0].split()[0] == "50"
    assert rows[-1].split()[0] == "1,050"
    assert [row.split()[0] for row in rows if row.endswith("best")] == ["600"]


def test_run_without_a_checkpoint_yet(tmp_path: Path) -> None:
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
    assert "7.900 bits/sample, mean of the last step" in text


@pytest.mark.parametrize(("preset", "measure"), [("small", BITS), ("book-simple", SQUARED_ERROR)])
def test_run_of_which_every_step_was_skipped(tmp_path: Path, preset: str, measure: Measure) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(load_config(preset).to_yaml())
    for step in (1, 2, 3):
        entry = {"step": step, f"train_{measure.key}": None, measure.heard: 0.0, "skipped": step}
        run.append_metrics({**entry, "gradient_norm": None, "targets_per_second": 1e4, "seconds": step * 0.5})
    run.append_metrics({"step": 3, f"validation_{measure.key}": math.nan, "baselines": {"uniform": math.nan}})
    facts, text = inspected(run.path, "run")
    assert (facts["step"], facts["skipped_steps"], facts["recent_steps"]) == (3, 3, 0)
    assert facts[f"best_{measure.fact}"] is facts[f"recent_train_{measure.fact}"] is None
    assert "median of the last 3 steps" in text
    assert "mean of the last" not in text
    assert inspect_paths([str(run.path)] * 2).facts["runs"][0]["skipped_steps"] == 3


def test_run_without_its_metrics_goes_by_its_checkpoint(run: RunFolder) -> None:
    run.metrics_file.unlink()
    facts, _ = inspected(run.path, "run")
    assert facts["step"] == facts["newest_checkpoint_step"] == 1000
    assert facts["best_step"] == 600


def test_run_with_damaged_checkpoints_is_still_shown(run: RunFolder) -> None:
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
def test_a_run_fits_the_terminal(run: RunFolder, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text = inspected(run.path, "run")[1]
    assert max(map(len, text.splitlines())) <= columns
    assert "\x1b" not in text


# --- which kind ---------------------------------------------------------------------------------------------


def test_nothing_there_says_what_can_be_inspected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone: nothing there; expected a folder of recordings, .* preset \(.*small"):
        inspect_path(str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="did you mean 'small'"):
        inspect_path("smal")
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path(str(tmp_path / "gone.safetensors"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path(str(tmp_path / "file" / "below"))
    with pytest.raises(UsageError, match="nothing there"):
        inspect_path("a\0b")
    with pytest.raises(UsageError, match="cannot be looked at: File name too long"):
        inspect_path("x" * 5000)


def test_what_lies_on_disk_goes_before_a_preset_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small" / "a.wav", sine(0.5, 1.0))
    assert inspect_path("small").kind == "folder"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="named pipe"):
        inspect_path(str(tmp_path / "a.wav"))
