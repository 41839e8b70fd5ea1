"""Series on the command line: train, evaluate, generate, inspect, and what is refused in one line."""

import csv
import json
import shutil

import numpy as np
import pytest

from command_line import wavegen
from trainings import newest
from wavegen.series.corpus import make_sine_mixtures

TINY = [
    *("--config", "book-simple", "--steps", "30", "--set", "series.points=20", "--set", "output.horizon=3"),
    *("--set", "training.window_targets=48", "--set", "training.threads=1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a model was trained, without a folder of data: runs/waves."""
    folder = tmp_path_factory.mktemp("place")
    said = wavegen("train", *TINY, cwd=folder).stderr
    assert "done: runs/waves" in said
    assert "wavegen forecast runs/waves series.csv" in said
    (folder / "prime.csv").write_text("day,a,b\nMonday,0.1,-0.2\nTuesday,0.15,-0.1\nFriday,0.3,0\n")
    np.save(folder / "long.npy", np.sin(np.arange(60.0)))
    np.save(folder / "short.npy", np.sin(np.arange(58.0)))
    np.save(folder / "prime.npy", np.array([[0.1, 0.15, 0.3], [-0.2, -0.1, 0.0]]))
    return folder


def read_table(text):
    header, *rows = text.splitlines()
    return header, np.array([[float(cell) for cell in row.split(",")] for row in rows])


def test_forecasts_go_to_tables_arrays_and_standard_output(place):
    printed = wavegen("forecast", "runs/waves", "prime.csv", "-o", "-", cwd=place)
    header, table = read_table(printed.stdout)
    assert (header, table.shape) == ("a forecast,b forecast", (3, 2))
    assert "columns without numbers are left out: day" in printed.stderr
    wavegen("forecast", "runs/waves", "prime.npy", "--steps", "8", "-o", "f.npy", cwd=place)
    array = np.load(place / "f.npy")
    assert array.shape == (2, 8)
    assert array[:, :3] == pytest.approx(table.T, rel=1e-6)
    before = (place / "f.npy").read_bytes()
    refused = wavegen("forecast", "runs/waves", "prime.npy", "-o", "f.npy", cwd=place, exit_code=2)
    assert refused.stderr.startswith("error: f.npy: already exists")
    assert (place / "f.npy").read_bytes() == before
    wavegen("forecast", "runs/waves", "prime.npy", "-o", "f.npy", "--overwrite", cwd=place)
    assert np.load(place / "f.npy").shape == (2, 3)
    wavegen("forecast", "runs/waves", "prime.csv", cwd=place)
    assert read_table((place / "forecast.csv").read_text())[1] == pytest.approx(table)


def test_pictures_show_forecasts_and_their_errors(place):
    held = ("--hold-back", "2", "-o", "held.npy")
    said = wavegen("forecast", "runs/waves", "long.npy", *held, "--plot", "held.png", cwd=place).stderr
    assert "written: held.png" in said
    known = wavegen("forecast", "runs/waves", "short.npy", "-o", "-", cwd=place).stdout
    assert np.load(place / "held.npy") == pytest.approx(read_table(known)[1][:2, 0])
    wavegen("evaluate", "runs/waves", "long.npy", "--plot", "errors.png", cwd=place)
    wavegen("inspect", "runs/waves", "--plot", "losses.png", cwd=place)
    for name in ("held", "errors", "losses"):
        assert (place / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    last = json.loads((place / "runs/waves/metrics.jsonl").read_text().splitlines()[-2])
    assert last["epochs"] == last["points_seen"] / (7000 * 17)
    refused = wavegen("evaluate", "runs/waves", "long.npy", "--plot", "errors.png", cwd=place, exit_code=2)
    assert "errors.png: already exists" in refused.stderr
    refused = wavegen("forecast", "runs/waves", "long.npy", "--hold-back", "80", "-o", "-", cwd=place, exit_code=2)
    assert "--hold-back: expected less than the shortest series, 60 values, found 80" in refused.stderr


def test_evaluate_scores_held_out_test_and_given_series(place):
    held_out = json.loads(wavegen("evaluate", "runs/waves", "--json", cwd=place).stdout)
    entries = [json.loads(line) for line in (place / "runs/waves/metrics.jsonl").read_text().splitlines()]
    *_, last = (entry for entry in entries if "validation_loss" in entry)
    assert held_out["error"] == pytest.approx(last["validation_loss"], rel=1e-5)
    assert (held_out["series"], held_out["positions"], len(held_out["by_horizon"])) == (2000, 2000 * 17, 3)
    assert held_out["next_value"] == held_out["by_horizon"][0]
    baselines = {name: each["error"] for name, each in held_out["baselines"].items()}
    assert baselines == pytest.approx(last["baselines"])
    assert baselines["linear"] < baselines["last value"]
    test = json.loads(wavegen("evaluate", "runs/waves", "--test", "--json", cwd=place).stdout)
    assert (test["series"], test["error"] != held_out["error"]) == (1000, True)
    np.save(place / "long.npy", np.sin(np.arange(200.0)))
    given = wavegen("evaluate", "runs/waves", "long.npy", "prime.csv", cwd=place, exit_code=0)
    assert "1 series, 197 positions" in given.stdout
    assert "expected 4 values or more, found 3" in given.stderr


def test_evaluate_leaves_out_what_cannot_be_used_and_writes_a_table(place):
    rng = np.random.default_rng(0)
    for name in ("good", "other"):
        np.save(place / f"{name}.npy", rng.normal(size=60))
    np.save(place / "bad.npy", np.array([1.0, np.nan]))
    files = ["good.npy", "bad.npy", "other.npy"]
    done = wavegen("evaluate", "runs/waves", *files, "--json", "--csv", "scores.csv", cwd=place)
    assert "left out: bad.npy: expected finite numbers, found nan at [1]" in done.stderr
    document, rows = json.loads(done.stdout), list(csv.DictReader((place / "scores.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["good.npy", "other.npy"]
    for row, series in zip(rows, document["clips"], strict=True):
        assert (int(row["n_positions"]), float(row["error"])) == (57, series["error"])
        assert float(row["error of linear"]) == series["baselines"]["linear"]["error"]
        assert (row["trained_on"], series["trained_on"]) == ("false", False)
    low, high = document["interval_95"]
    assert low < document["error"] < high
    assert document["minus_baselines"].keys() == {"last value", "linear"}
    refused = wavegen("evaluate", "runs/waves", "good.npy", "--csv", "scores.csv", cwd=place, exit_code=2)
    assert "scores.csv: already exists" in refused.stderr
    nothing = wavegen("evaluate", "runs/waves", "bad.npy", cwd=place, exit_code=1)
    assert "error: bad.npy: expected series to score (.npy, .csv), found none that can be used" in nothing.stderr


def test_evaluate_knows_the_series_that_it_was_trained_on(place):
    waves = make_sine_mixtures(20)
    header = ",".join("abc")
    np.savetxt(place / "known.csv", waves[[5, 7000, 9500]].T, "%.17g", ",", header=header, comments="")
    done = wavegen("evaluate", "runs/waves", "known.csv", "--json", cwd=place)
    assert [each["trained_on"] for each in json.loads(done.stdout)["clips"]] == [True, False, False]
    assert "1 of 3 series was trained on, and the figures are not of held-out series: known.csv[a]" in done.stderr


def test_inspect_knows_series_and_their_runs(place):
    shown = " ".join(wavegen("inspect", "runs/waves", cwd=place).stdout.split())
    assert " points of held-out series at step 30, the best" in shown
    found = json.loads(wavegen("inspect", "prime.csv", "--json", cwd=place).stdout)
    assert [(each["name"], each["points"]) for each in found["series"]] == [("prime.csv[a]", 3), ("prime.csv[b]", 3)]
    assert "book-simple" in wavegen("config", cwd=place).stdout


def test_a_run_resumes(place, tmp_path):
    run = shutil.copytree(place / "runs/waves", tmp_path / "run")
    said = wavegen("train", "--run", run, "--resume", "--steps", "35").stderr
    assert "resumed at step 30 of 35" in said
    assert newest(run).step == 35


REFUSED = {
    "steps": (["forecast", "RUN", "prime.npy", "--steps", "0", "-o", "-"], "--steps: expected a whole number from 1"),
    "a wave file": (["forecast", "RUN", "prime.csv", "-o", "a.wav"], "a.wav: expected a name that ends in"),
    "a recording": (
        ["forecast", "RUN", "prime.wav", "-o", "-"],
        "prime.wav: expected series of numbers in a file that ends in",
    ),
    "a model of sound": (["forecast", "voice", "prime.csv", "-o", "-"], "expected a model of series of numbers"),
    "the old command": (
        ["generate", "RUN", "--prime", "prime.csv", "--steps", "3", "-o", "a.csv"],
        "a model of series forecasts: wavegen forecast runs/waves prime.csv --steps 3 -o a.csv",
    ),
    "no series": (["generate", "RUN"], "a model of series forecasts: wavegen forecast runs/waves series.csv"),
    "steps of sound": (["generate", "voice", "--steps", "3"], "--steps: only wavegen forecast has this option"),
    "label": (["evaluate", "RUN", "prime.csv", "--label", "a"], "--label: not with a model of series; leave it out"),
    "a folder too": (
        ["train", ".", "--config", "book-simple"],
        "series.synthetic: expected null with a folder",
    ),
    "bench": (["bench", "--config", "book-simple"], "bench: expected a model of sound, found output.kind: regr"),
    "embedding": (
        ["train", "--config", "book-simple", "--set", "model.input=embedding"],
        "model.input: expected scalar with output.kind regression",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(case, place):
    arguments, complaint = REFUSED[case]
    done = wavegen(*("runs/waves" if each == "RUN" else each for each in arguments), cwd=place, exit_code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
