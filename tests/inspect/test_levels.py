"""Folders of recordings, decoded."""

import json

import numpy as np
import pytest

from inspections import RATE, inspected, sine, text_of, write
from wavegen.inspect import as_dict, inspect_paths


def heard(folder):
    inspection = inspect_paths([str(folder)], decode=True)
    facts = json.loads(json.dumps(as_dict(inspection), allow_nan=False))
    assert facts == as_dict(inspection)
    return facts, text_of(inspection)


def test_headers_alone_give_no_levels(tmp_path):
    write(tmp_path / "a.wav", sine(0.5, 1.0))
    facts, text = inspected(tmp_path, "folder")
    assert facts["levels"] is None
    assert facts["files"] == [{"name": "a.wav", "seconds": 1.0, "rate_hz": RATE, "channels": 1, "level": None}]
    assert "levels" not in text


def test_listening_finds_levels_clipping_offset_and_silence(tmp_path):
    write(tmp_path / "good.wav", sine(0.5, 2.0))
    write(tmp_path / "quiet.wav", np.concatenate([sine(0.05, 1.0), np.zeros(RATE)]))
    write(tmp_path / "loud.wav", np.clip(sine(2.0, 1.0), -1.0, 1.0))
    write(tmp_path / "offset.wav", sine(0.2, 1.0) - 0.1)
    write(tmp_path / "silent.wav", np.zeros(RATE))
    facts, text = heard(tmp_path)
    together = facts["levels"]
    assert together["peak_dbfs"]["lowest"] == pytest.approx(-26.02, abs=0.01)
    assert together["peak_dbfs"]["median"] == pytest.approx((-6.02 - 10.46) / 2, abs=0.01)
    assert together["peak_dbfs"]["highest"] == pytest.approx(0.0, abs=0.01)
    assert together["rms_dbfs"]["lowest"] == pytest.approx(-29.03 - 3.01, abs=0.01)
    assert (together["clipped_files"], together["dc_offset_files"], together["silent_files"]) == (1, 1, 1)
    assert together["silent_share"] == pytest.approx(2 / 7, abs=0.01)
    levels = {file["name"]: file["level"] for file in facts["files"]}
    assert levels["quiet.wav"]["silent_share"] == pytest.approx(0.5, abs=0.01)
    assert levels["good.wav"]["silent_share"] == 0
    assert levels["loud.wav"]["clipped_samples"] > 5000
    for shown in ("clipped: 66.5", "DC offset: -0.100", "silent from end to end", "1 file without any sound"):
        assert shown in text
    assert "good.wav" not in text


def test_listening_finds_the_same_sound_under_any_name_and_format(tmp_path):
    noise = np.random.default_rng(0).integers(-9000, 9000, RATE, dtype=np.int16)
    write(tmp_path / "a.wav", noise)
    write(tmp_path / "sub" / "b.flac", noise)
    write(tmp_path / "c.wav", noise, rate_hz=8000)  # the same numbers are another sound at another rate
    write(tmp_path / "d.wav", noise[:-1])
    facts, text = heard(tmp_path)
    assert facts["levels"]["duplicates"] == [["a.wav", "sub/b.flac"]]
    assert facts["levels"]["repeated_seconds"] == pytest.approx(1.0)
    assert "the same as a.wav" in text
    assert "1 file with the very samples of another, 1.0 s in all" in text


def test_levels_are_of_the_decoded_samples_not_of_the_header(tmp_path):
    whole = write(tmp_path / "whole.flac", np.random.default_rng(0).normal(0, 0.1, 4 * RATE)).read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "short.wav", sine(0.5, 1.0))
    assert inspected(tmp_path, "folder")[0]["usable_files"] == 3
    facts, _ = heard(tmp_path)
    reasons = {entry["name"]: entry["reason"] for entry in facts["unusable"]}
    lengths = {file["name"]: file["seconds"] for file in facts["files"]}
    assert lengths["whole.flac"] == 4.0
    assert "damaged" in reasons.get("cut.flac", "") or lengths["cut.flac"] < 4.0
    assert facts["usable_files"] == len(lengths)


def test_listening_reports_both_passes(tmp_path):
    for i in range(3):
        write(tmp_path / f"{i}.wav", sine(0.5, 0.1))
    calls = []
    inspect_paths([str(tmp_path)], lambda done, total: calls.append((done, total)), decode=True)
    assert calls.count((3, 3)) == 2


def test_an_empty_folder_is_measured_too(tmp_path):
    facts, text = heard(tmp_path)
    assert facts["usable_files"] == 0
    assert facts["levels"]["silent_share"] is None
    assert "0 files" in text
