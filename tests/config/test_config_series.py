"""The configuration of series: what goes together, and what does not, in one line each."""

import pytest

from wavegen.config import load_config, parse_config
from wavegen.errors import ConfigError

ALIGNED = "series: {windows: aligned}\n"
SERIES = "output:\n  kind: regression\nmodel:\n  input: scalar\n"


def read(text):
    return parse_config(text, "my.yaml")


def problems(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    return list(caught.value.problems)


def test_series_need_no_folder_where_they_are_synthetic():
    config = read(SERIES + "series:\n  synthetic: waves\n")
    assert (config.is_series, config.n_classes, config.output.horizon, config.output.error) == (True, 0, 1, "squared")
    assert read("").n_classes == 256
    assert parse_config(config.to_yaml(), "again") == config


@pytest.mark.parametrize(
    ("more", "place", "complaint"),
    [
        ("data:\n  labels: subfolders\n", "data.labels", "expected none with output.kind regression, found"),
        ("mel:\n  n_mels: 80\n", "mel.n_mels", "expected null with output.kind regression, found"),
        ("audio:\n  trim_db: 60.0\n", "audio.trim_db", "expected null with output.kind regression"),
        ("audio:\n  level: rms\n", "audio.level", "expected keep with output.kind regression"),
        ("training:\n  backend: fused\n", "training.backend", "expected auto, torch or compile with output.kind"),
        (
            "series:\n  synthetic: waves\ndata:\n  folder: x\n",
            "series.synthetic",
            "expected null with a folder of data, found",
        ),
        (
            "series:\n  synthetic: waves\n  points: 2\noutput:\n  kind: regression\n  horizon: 2\n",
            "series.points",
            "expected more than output.horizon, 2, found 2",
        ),
    ],
)
def test_what_series_do_not_have_is_refused(more, place, complaint):
    text = more + (SERIES if "output" not in more else "model:\n  input: scalar\n")
    (problem,) = problems(text)
    assert f" {place}: {complaint}" in problem


@pytest.mark.parametrize("audio", ["trim_db: null, level: keep", "trim_db: 40.0, level: peak", "remove_dc: true"])
def test_series_take_the_usual_preparation_and_none(audio):
    assert read(f"audio: {{{audio}}}\n{SERIES}").is_series


CONV = "{kind: conv, channels: 2, kernel_size: 4, stride: 2}"


@pytest.mark.parametrize(
    ("model", "more", "place", "complaint"),
    [
        (f"layers: [{CONV}]", "", "series.windows", "expected aligned with strides, found 'anywhere'"),
        (
            "layers: [{kind: dense, channels: 2}]",
            "series: {positions: last}",
            "series.windows",
            "expected aligned with",
        ),
        (
            f"layers: [{CONV}, {{kind: gru, channels: 2}}]",
            ALIGNED,
            "model.context",
            "expected 1 with strides, found 512",
        ),
        (f"layers: [{CONV}, {{kind: concatenate, source: input}}]", ALIGNED, "model.layers", "expected no concatenate"),
        (
            f"layers: [{CONV.replace('2}', '5}')}]",
            ALIGNED,
            "model.layers.0.stride",
            "expected at most 4, which the taps",
        ),
        ("layers: [{kind: gru, channels: 2, stride: 2}]", ALIGNED, "model.layers.0.stride", "gru has no such key"),
        ("layers: [{kind: rnn, channels: 2, layer_norm_epsilon: 0.1}]", "", "model.layers.0.layer_norm_epsilon", "rnn"),
        (
            "layers: [{kind: rnn, channels: 2}]\n  output_layer: false",
            "",
            "model.output_layer",
            "false: expected a layer",
        ),
        (
            f"layers: [{CONV}]",
            ALIGNED + "training: {window_targets: 3}",
            "training.window_targets",
            "expected more than 3",
        ),
    ],
)
def test_what_a_stack_of_series_cannot_be_is_refused(model, more, place, complaint):
    (problem,) = problems(f"output: {{kind: regression}}\nmodel:\n  kind: stack\n  input: scalar\n  {model}\n{more}")
    assert f" {place}: {complaint}" in problem


def test_strides_are_for_series_for_sound_needs_every_sample():
    (problem,) = problems(f"model:\n  kind: stack\n  layers: [{CONV}]\n")
    assert "model.layers.0.stride: expected 1, found 2: sound is generated sample by sample" in problem
    assert "write it as dilations" in problem


def test_values_are_no_classes_to_embed():
    (problem,) = problems("output:\n  kind: regression\n")
    assert "model.input: expected scalar with output.kind regression" in problem
    assert "found 'embedding'" in problem


def test_sound_is_not_synthetic():
    (problem,) = problems("series:\n  synthetic: waves\n")
    assert "series.synthetic: expected null: synthetic series need output.kind: regression" in problem


def test_keys_of_older_files_are_read_in_their_new_places(tmp_path):
    text = SERIES + "data:\n  synthetic: waves\n  synthetic_points: 20\n  offset: 0.5\n  scale: auto\n"
    series = read(text).series
    assert (series.synthetic, series.points, series.offset, series.scale) == ("waves", 20, 0.5, "auto")
    (tmp_path / "old.yaml").write_text(text.replace("20", "1"))
    with pytest.raises(ConfigError, match=r"old\.yaml:7: series\.points: expected"):  # the line in the file
        load_config(tmp_path / "old.yaml")
    assert load_config("book-simple", ["data.synthetic=null"]).series.synthetic is None
    (problem,) = problems(SERIES + "data:\n  scale: 1.0\nseries:\n  scale: 2.0\n")
    assert "my.yaml:6: data.scale: unknown key" in problem
