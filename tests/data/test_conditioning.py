"""Conditions of a clip: labels by name and weight, and frames in a model's convention."""

import numpy as np
import pytest

from wavegen.audio.frames import ClipFrames, MelSpectrogram
from wavegen.audio.quantize import Decoded, Quantizer
from wavegen.data.conditioning import Conditioner, list_labels, parse_label
from wavegen.errors import UsageError

QUANTIZER = Quantizer("mu_law", 256)
MEL = MelSpectrogram(8000, 10, 256, 100, 0.0, 4000.0)
SPEAKERS = Conditioner(("anna", "bert", "carl"), None, 1, QUANTIZER)
VOCODER = Conditioner((), MEL, 4, QUANTIZER)
BOTH = Conditioner(("anna", "bert"), MEL, 1, QUANTIZER)
PLAIN = Conditioner((), None, 1, QUANTIZER)
FRAMES = np.full((5, 10), -4.0, np.float32)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("anna", [1, 0, 0]),
        ("carl=2", [0, 0, 1]),
        ("anna=0.7,bert=0.3", [0.7, 0.3, 0]),
        ("bert=3,anna=1", [0.25, 0.75, 0]),
        ("anna=1,bert=0", [1, 0, 0]),
    ],
)
def test_labels_are_mixed_by_weight(text, weights):
    condition = SPEAKERS.to_generate(parse_label(text), None)
    np.testing.assert_allclose(condition.label, weights, rtol=1e-6)
    assert condition.frames is None


@pytest.mark.parametrize("text", ["anna=", "anna=x", "=1", "anna=1,", "anna=1,bert", ",=", "anna=1,anna=2"])
def test_what_is_no_label_says_what_is_expected(text):
    with pytest.raises(UsageError, match="label: expected NAME or NAME=WEIGHT,NAME=WEIGHT, each once, found '"):
        parse_label(text)


def test_a_known_name_may_have_any_signs_in_it():
    assert parse_label("a=1,b", known=["a=1,b"]) == {"a=1,b": 1.0}


@pytest.mark.parametrize(
    ("conditioner", "label", "frames", "text"),
    [
        (SPEAKERS, {"dora": 1.0}, None, "label: no such label 'dora'; this model knows anna, bert, carl"),
        (SPEAKERS, None, None, "label: expected one of anna, bert, carl, found none"),
        (SPEAKERS, {"anna": -1.0, "bert": 2.0}, None, "label: expected weights of 0 or more and not all 0"),
        (SPEAKERS, {"anna": 0.0}, None, "label: expected weights of 0 or more and not all 0"),
        (SPEAKERS, {"anna": float("nan")}, None, "label: expected weights of 0 or more and not all 0"),
        (SPEAKERS, {"anna": float("inf")}, None, "label: expected weights of 0 or more and not all 0"),
        (
            SPEAKERS,
            {"anna": 1.0},
            FRAMES,
            "mel: this model is not conditioned on mel spectrograms; leave it out, see ",
        ),
        (VOCODER, {"anna": 1.0}, FRAMES, "label: this model has no labels; leave it out, or see "),
        (VOCODER, None, None, "mel: expected mel frames, which this model makes sound of, found none"),
        (PLAIN, {"anna": 1.0}, None, "label: this model has no labels; leave it out, or see "),
    ],
)
def test_what_is_missing_or_too_much_is_a_wrong_call(conditioner, label, frames, text):
    with pytest.raises(UsageError, match="^.*" + text.replace(".", r"\.")):
        conditioner.to_generate(label, frames)


def test_a_recording_has_its_label_and_its_own_frames():
    waveform = (0.3 * np.sin(np.arange(1050) / 5)).astype(np.float32)
    classes = QUANTIZER.encode(waveform)
    condition = BOTH.of_clip(classes, "bert")
    np.testing.assert_array_equal(condition.label, [0, 1])
    np.testing.assert_array_equal(condition.frames[:], ClipFrames(MEL, Decoded(classes, QUANTIZER))[:])
    assert len(condition.frames) == 11, "the last one in part"
    assert PLAIN.of_clip(classes, "whatever") is None
    with pytest.raises(UsageError, match="label: no such label 'dora'; this model knows anna, bert"):
        BOTH.of_clip(classes, "dora")


def test_many_labels_are_not_all_shown():
    assert list_labels([f"s{i}" for i in range(25)]).endswith("s19, and 5 more")
