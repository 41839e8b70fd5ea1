"""Folders of recordings, by their headers."""

import json

import numpy as np
import pytest

from command_line import wavegen
from inspections import RATE, inspected, sine, write
from wavegen.inspect import inspect_path


def test_folder_counts_usable_files_by_format(tmp_path):
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
    assert facts["seconds"] == {"lowest": 0.5, "median": 2.0, "highest": 5.0}
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


def test_inspecting_a_folder_shows_why_files_cannot_be_used(tmp_path):
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


def test_a_folder_says_how_many_recordings_have_features(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.wav", sine(0.5, 1.0))
    facts, text = inspected(tmp_path, "folder")
    assert facts["feature_files"] == 0
    assert "features" not in text
    for name in ("a", "b", "of nothing"):
        np.save(tmp_path / f"{name}.npy", np.zeros(80))
    facts, text = inspected(tmp_path, "folder")
    assert facts["feature_files"] == 2
    assert "2 of 3 files have one, name.npy" in text


def test_folder_shows_a_few_bad_files_and_counts_the_rest(tmp_path):
    for i in range(40):
        (tmp_path / f"{i:02d}.wav").touch()
    facts, text = inspected(tmp_path, "folder")
    assert len(facts["unusable"]) == 40
    assert "40 files: 00.wav; 01.wav; 02.wav; and 37 more" in " ".join(text.split())
    every = " ".join(wavegen("inspect", tmp_path, "--full").stdout.split())
    assert "39.wav" in every
    assert "more" not in every
    assert "39.wav" not in wavegen("inspect", tmp_path).stdout


def test_several_folders_and_files_and_a_list_are_inspected_together(tmp_path):
    for name in ("a/1.wav", "b/2.wav", "c.wav"):
        write(tmp_path / name, sine(0.5, 1.0))
    (tmp_path / "list.txt").write_text("a\nb\nc.wav\n")
    for given in ([tmp_path / "a", tmp_path / "b", tmp_path / "c.wav"], [tmp_path / "list.txt"]):
        facts = json.loads(wavegen("inspect", *given, "--json").stdout)
        assert facts["kind"] == "folder"
        assert [file["name"] for file in facts["files"]] == ["a/1.wav", "b/2.wav", "c.wav"]


def test_empty_folder_is_inspected_too(tmp_path):
    facts, text = inspected(tmp_path, "folder")
    assert facts["usable_files"] == 0
    assert facts["seconds"] is None
    assert facts["formats"] == []
    assert "0 files" in text


def test_folder_reports_progress_up_to_the_last_file(tmp_path):
    for i in range(50):
        write(tmp_path / f"{i}.wav", np.zeros(10))
    calls = []
    inspect_path(str(tmp_path), lambda done, total: calls.append((done, total)))
    assert calls[-1] == (50, 50)
    assert calls == sorted(calls)
    assert len(calls) > 1


def test_names_with_control_characters_stay_on_their_line(tmp_path):
    (tmp_path / "a\nb\x1b[31m.wav").touch()
    facts, text = inspected(tmp_path, "folder")
    assert facts["unusable"][0]["name"] == "a\nb\x1b[31m.wav"
    assert "a\\nb\\x1b[31m.wav" in text
    assert "\x1b" not in text
