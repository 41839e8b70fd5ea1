"""Scores as tables, documents and CSV: what stands in them, and what they make of hostile names."""

import csv
import io
import json
import math

import numpy as np
import pytest

from wavegen.audio.quantize import Quantizer
from wavegen.cli.console import print_json
from wavegen.evaluation.sample_statistics import Figure, Heard, SampleFigures
from wavegen.evaluation.scores import SQUARED_ERROR, Score
from wavegen.report import print_tables
from wavegen.report.scores import (
    SampleComparison,
    clip_table,
    csv_text,
    label_tables,
    series_document,
    series_tables,
    sound_document,
    summary_table,
)
from wavegen.series.scores import Errors, SeriesScore

RATE_HZ = 100
HOSTILE = ["a\nb.wav", 'a,"b".wav', "=1+1.wav", "-6 dB.wav", "caf\udce9.wav", "\x1b[31m.wav"]


def score(name, n_samples, figure, label=None, trained_on=False):
    baselines = {"uniform": 8.0 * n_samples, "linear prediction": (figure + 0.5) * n_samples}
    return Score(name, n_samples, figure * n_samples, baselines, label, trained_on)


SCORES = [score("1", 100, 3.0, "anna"), score("2", 300, 2.0, "bert", True), score("3", 200, 4.0, "anna", None)]


def series_score(name, *errors):
    own = np.array(errors)[:, None]
    return SeriesScore(name, Errors.of(own), {"last value": Errors.of(2 * own)}, False)


SERIES = [series_score("a", 1.0, 2.0), series_score("b", 3.0, 5.0, 4.0)]


def read(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


# --- tables ---------------------------------------------------------------------------------------------------------


def test_the_summary_has_each_figure_with_its_margin_and_the_difference():
    table = summary_table(SCORES, RATE_HZ, Quantizer())
    assert table.title == "bits/sample of 3 clips, 6.0 s, 256 mu-law classes (8 bit) (lower is better)"
    assert table.columns == ("", "bits/sample", "+-", "this model minus it", "+-")
    rows = {name: cells for name, *cells in table.rows}
    assert rows["this model"] == ["2.8333", rows["this model"][1], "", ""]
    assert float(rows["this model"][1]) > 1
    assert rows["uniform"] == ["8.0000", "0.0000", "-5.1667", rows["this model"][1]]
    assert rows["linear prediction"][2:] == ["-0.5000", "0.0000"]


def test_of_one_clip_there_is_a_figure_without_a_margin():
    rows = {name: cells for name, *cells in summary_table(SCORES[:1], RATE_HZ, Quantizer()).rows}
    assert rows["this model"] == ["3.0000", "-", "", ""]
    assert rows["uniform"] == ["8.0000", "-", "-5.0000", "-"]


def test_without_baselines_there_is_nothing_to_differ_from():
    table = summary_table([Score("1", 100, 300.0, {}), Score("2", 100, 310.0, {})], RATE_HZ, Quantizer())
    assert table.columns == ("", "bits/sample", "+-")
    assert [len(row) for row in table.rows] == [3]


def test_each_label_has_a_line():
    (table,) = label_tables(SCORES, RATE_HZ)
    anna, bert = table.rows
    assert anna[:4] == ("anna", "2", "3.0 s", "3.6667")
    assert float(anna[4]) > 0
    assert bert == ("bert", "1", "3.0 s", "2.0000", "-", "2.5000")
    assert label_tables(SCORES[:1], RATE_HZ) == label_tables([score("1", 5, 3.0), score("2", 5, 3.0)], RATE_HZ) == []


def test_tables_of_hostile_names_can_be_printed():
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    print_tables([clip_table([score(name, 100, 3.0) for name in HOSTILE], RATE_HZ)], output)
    output.flush()
    assert b"\x1b" not in output.buffer.getvalue()


def test_series_have_a_margin_over_series():
    together = series_tables(SERIES, SQUARED_ERROR, summary=True)[0]
    rows = {name: cells for name, *cells in together.rows}
    assert rows["this model"][0] == "3"  # of five positions
    assert float(rows["this model"][1]) > 1
    assert rows["last value"][2:4] == ["-3", rows["this model"][1]]
    (alone,) = series_tables(SERIES[:1], SQUARED_ERROR, summary=False)
    assert [row[2] for row in alone.rows] == ["-", "-"]


# --- for programs ---------------------------------------------------------------------------------------------------


def test_the_document_has_intervals_labels_and_what_was_trained_on():
    document = sound_document(SCORES, RATE_HZ, Quantizer(), {"int8": 0.01})
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["n_clips"], document["samples"], document["seconds"]) == (3, 600, 6.0)
    assert document["bits_per_sample"] == pytest.approx(1700 / 600)
    low, high = document["interval_95"]
    assert (low + high) / 2 == pytest.approx(1700 / 600)
    assert document["baseline_intervals_95"]["uniform"] == pytest.approx([8, 8])
    minus = document["minus_baselines"]["linear prediction"]
    assert minus["bits_per_sample"] == pytest.approx(-0.5)
    assert minus["interval_95"] == pytest.approx([-0.5, -0.5])
    assert [(each["label"], each["n_clips"], each["interval_95"] is None) for each in document["labels"]] == [
        ("anna", 2, False),
        ("bert", 1, True),
    ]
    assert [(each["label"], each["trained_on"]) for each in document["clips"]] == [
        ("anna", False),
        ("bert", True),
        ("anna", None),
    ]


def test_csv_has_a_line_for_each_clip():
    rows = read(csv_text(sound_document(SCORES, RATE_HZ, Quantizer(), {})))
    columns = ["name", "label", "n_samples", "seconds", "bits", "bits_per_sample"]
    baselines = ["bits_per_sample of uniform", "bits_per_sample of linear prediction"]
    assert list(rows[0]) == [*columns, *baselines, "trained_on"]
    assert list(rows[1].values()) == ["2", "bert", "300", "3.0", "600.0", "2.0", "8.0", "2.5", "true"]
    assert [row["trained_on"] for row in rows] == ["false", "true", ""]


def test_csv_has_a_line_for_each_series():
    rows = read(csv_text(series_document(SERIES, SQUARED_ERROR)))
    assert rows[1] == {
        "name": "b",
        "n_positions": "3",
        "error": "4.0",
        "error_at_end": "4.0",
        "next_value": "4.0",
        "next_value_at_end": "4.0",
        "error of last value": "8.0",
        "trained_on": "false",
    }


def test_hostile_names_come_out_on_a_line_each_and_as_no_formula():
    hostile = [score(name, 100, 3.0, label=name) for name in HOSTILE]
    text = csv_text(sound_document(hostile, RATE_HZ, Quantizer(), {}))
    assert text.encode().decode() == text
    assert len(text.splitlines()) == 1 + len(HOSTILE)
    rows = read(text)
    names = ["a\\nb.wav", 'a,"b".wav', "'=1+1.wav", "'-6 dB.wav", "caf\\udce9.wav", "\\x1b[31m.wav"]
    assert [row["name"] for row in rows] == [row["label"] for row in rows] == names
    assert {row["bits_per_sample"] for row in rows} == {"3.0"}


@pytest.mark.parametrize("figure", [math.nan, math.inf])
def test_json_has_no_numbers_that_are_not_finite(figure, capsys):
    def refuse(text):
        raise AssertionError(text)

    print_json(sound_document([SCORES[0], score("4", 100, figure)], RATE_HZ, Quantizer(), {"int8": figure}))
    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["bits_per_sample"] is document["interval_95"] is document["precision_costs"]["int8"] is None
    assert document["clips"][0]["bits_per_sample"] == 3.0
    print_json(series_document([SERIES[0], series_score("c", figure, 1.0)], SQUARED_ERROR))
    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document["error"] is document["minus_baselines"]["last value"]["interval_95"] is None
    print_json([{"share_of_limit": figure, "batch": 1}])
    assert json.loads(capsys.readouterr().out) == [{"share_of_limit": None, "batch": 1}]


@pytest.mark.parametrize(("voiced", "interval", "is_said"), [(0.04, (0.02, 0.08), True), (0.4, (0.3, 0.5), False)])
def test_clips_that_lack_the_recordings_voice_are_called_noise(voiced, interval, is_said):
    """The score alone takes noise with the levels of speech for half of it."""

    def figures(score):
        return SampleFigures(score, None, -10.0, 1.0, 0.0, 0, 0.0, 400.0, 4, 40.0)

    def heard(share, interval):
        other = Figure(1.0, (1.0, 1.0))
        return Heard(None, Figure(share, interval), other, other)

    references = {"recordings": figures(0), "noise": figures(400)}
    few = {"these clips": heard(0.0, (0.0, 0.0)), "recordings": heard(0.1, (0.05, 0.15))}
    below = SampleComparison(figures(100), references, {}, few).table().more
    assert below == "75% of the way from the better impostor's score to the recordings'", "drums have no pitch to miss"
    assert SampleComparison(figures(401), references, {}, few).table().more == "worse than the better impostor"
    both = {"these clips": heard(voiced, interval), "recordings": heard(0.86, (0.85, 0.88))}
    said_below = SampleComparison(figures(100), references, {}, both).table().more
    said = "; but 4% of the frames have a pitch, of the recordings 86%: mostly noise" if is_said else ""
    assert said_below == f"75% of the way from the better impostor's score to the recordings'{said}"
