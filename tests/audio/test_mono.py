import numpy as np
import pytest
import soundfile

from tests.audio.odd_files import RATE, tone
from wavegen.audio.mono import group_warnings
from wavegen.audio.waveform import Preparation, load_waveform, open_audio


def prepared(tmp_path, frames, level="keep"):
    soundfile.write(tmp_path / "a.wav", frames, RATE, subtype="FLOAT")
    preparation = Preparation(RATE, level=level)
    with open_audio(tmp_path / "a.wav", preparation) as audio:
        return load_waveform(tmp_path / "a.wav", preparation), audio.warnings


def test_channels_that_cancel_are_not_mixed(tmp_path):
    x = tone()
    waveform, (warning,) = prepared(tmp_path, np.stack([x, -x], axis=1))
    np.testing.assert_array_equal(waveform, x)
    assert warning.startswith("channels cancel: their mix is 120 dB quieter; channel 1 is used alone")
    waveform, (warning,) = prepared(tmp_path, np.stack([0.5 * x, -0.9 * x], axis=1))
    np.testing.assert_array_equal(waveform, np.float32(-0.9) * x)
    assert "13 dB quieter; channel 2" in warning


@pytest.mark.parametrize(("n_silent", "n_all"), [(1, 2), (2, 4), (4, 6)])
def test_silent_channels_cost_no_level(tmp_path, n_silent, n_all):
    sound = np.stack([tone(seed=i) for i in range(n_all - n_silent)], axis=1)
    waveform, (warning,) = prepared(tmp_path, np.concatenate([np.zeros((len(sound), n_silent)), sound], axis=1))
    np.testing.assert_allclose(waveform, sound.mean(axis=1), atol=1e-7)
    assert warning.startswith("silent channels: 1")
    assert warning.endswith(f"of {n_all}, left out of the mix")


def test_an_offset_makes_no_channel_loud(tmp_path):
    x = tone()
    waveform, warnings = prepared(tmp_path, np.stack([x, np.full_like(x, 0.5)], axis=1))
    np.testing.assert_array_equal(waveform, x)
    assert [warning.partition(":")[0] for warning in warnings] == ["silent channels", "DC offset"]


def test_ordinary_stereo_is_the_mean_of_its_channels(tmp_path):
    two = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2)).astype(np.float32)
    waveform, warnings = prepared(tmp_path, two)
    np.testing.assert_array_equal(waveform, two.mean(axis=1, dtype=np.float32))
    assert warnings == ()


# --- impossible amplitudes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_integers_that_were_stored_as_floats_are_scaled(tmp_path, bits):
    full = 2 ** (bits - 1)
    integers = np.round(tone(amplitude=0.9).astype(np.float64) * full).astype(np.float32)
    waveform, (warning,) = prepared(tmp_path, integers)
    np.testing.assert_array_equal(waveform, integers / np.float32(full))
    assert warning == f"integers stored as floats: scaled by 1/{full:,}"


def test_floats_a_little_beyond_full_scale_are_sound(tmp_path):
    waveform, (warning,) = prepared(tmp_path, 5 * tone())
    np.testing.assert_array_equal(waveform, 5 * tone())
    assert warning.startswith("louder than full scale and clipped: up to 2")
    waveform, warnings = prepared(tmp_path, 5 * tone(), "peak")
    assert np.abs(waveform).max() < 1
    assert warnings == ()


def test_a_recording_that_stays_quiet_is_pointed_out(tmp_path):
    quiet = tone(amplitude=1.0) * np.float32(7.5e-4)
    assert prepared(tmp_path, quiet)[1] == ("quiet: -62 dB of full scale, as few classes",)
    assert prepared(tmp_path, quiet, "peak")[1] == ()


def test_warnings_are_grouped_by_kind_and_name_three_files():
    found = [(f"{i}.wav", ["silent from end to end", f"clipped: {i}%"]) for i in range(5)]
    assert group_warnings(found) == [
        "Silent from end to end: 5 files: 0.wav; 1.wav; 2.wav; and 2 more.",
        "Clipped: 5 files: 0.wav (0%); 1.wav (1%); 2.wav (2%); and 2 more.",
    ]
