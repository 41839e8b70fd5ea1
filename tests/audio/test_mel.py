"""Mel frames: torchaudio's, whole and in parts, and files of frames from other programs."""

import dataclasses
import pickle
import re

import numpy as np
import pytest
import torch
import torchaudio

from wavegen.audio.frames import (
    FLOOR,
    LOWEST,
    ClipFrames,
    DeviceFrames,
    MelSpectrogram,
    normalized,
)
from wavegen.audio.quantize import Decoded, Quantizer
from wavegen.errors import UsageError

MEL = MelSpectrogram(sample_rate_hz=16000, n_mels=40, n_fft=1024, hop_length=200, f_min=50.0, f_max=7600.0)


def noise(n_samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


def frames_of(waveform):
    """All frames of a clip, (F, n_mels)."""
    return ClipFrames(MEL, waveform)[:]


@pytest.mark.parametrize("n_samples", [1, 199, 200, 201, 1000, 5000, 16001])
def test_frames_are_torchaudios_of_the_clip_between_silence(n_samples):
    waveform = noise(n_samples)
    n_frames = -(-n_samples // 200)
    before = (1024 - 200) // 2
    padded = np.pad(waveform, (before, n_frames * 200 - n_samples + before))
    spectrum = torchaudio.transforms.Spectrogram(n_fft=1024, hop_length=200, power=1.0, center=False)
    filters = torchaudio.functional.melscale_fbanks(513, 50.0, 7600.0, 40, 16000, norm="slaney", mel_scale="slaney")
    expected = torch.log(torch.clamp(spectrum(torch.from_numpy(padded)).t() @ filters, min=1e-5)).numpy()
    found = frames_of(waveform)
    assert found.shape == (n_frames, 40)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_frame_f_has_the_samples_from_f_hop_in_its_middle():
    """A click at sample t is loudest in frame t // hop, wherever in it."""
    for t in (0, 150, 199, 200, 399, 1234, 3999):
        waveform = np.zeros(4000, np.float32)
        waveform[t] = 1.0
        frames = frames_of(waveform)
        assert frames.sum(axis=1).argmax() == t // 200


@pytest.mark.parametrize("n_samples", [1, 200, 4333])
def test_frames_computed_on_a_device_are_those_of_the_cpu(n_samples):
    waveform = noise(n_samples)
    windows = ClipFrames(dataclasses.replace(MEL, in_windows=True), waveform)
    assert len(windows) == len(frames_of(waveform))
    for part in (slice(0, None), slice(3, 9), slice(5, 5)):
        rows = np.array(windows[part])
        assert rows.shape == (len(frames_of(waveform)[part]), 1024)
        if not len(rows):
            continue
        found = DeviceFrames(MEL, torch.device("cpu"))(torch.from_numpy(rows)).numpy()
        np.testing.assert_allclose(found, normalized(frames_of(waveform)[part]), rtol=1e-4, atol=1e-4)


def test_parts_are_parts_of_the_whole():
    waveform = noise(4333)
    frames = ClipFrames(MEL, waveform)
    whole = frames[:]
    assert len(frames) == len(whole) == 22
    for part in (slice(0, 1), slice(3, 9), slice(21, 22), slice(20, 99), slice(5, 5)):
        np.testing.assert_allclose(frames[part], whole[part], rtol=1e-4, atol=1e-4)


def test_no_more_of_a_clip_is_read_than_its_frames_need():
    asked = []

    class Samples:
        def __len__(self):
            return 1_000_000

        def __getitem__(self, part):
            asked.append((part.start, part.stop))
            return np.zeros(part.stop - part.start, np.float32)

    _ = ClipFrames(MEL, Samples())[100:103]
    assert asked == [(20_000 - 412, 20_600 + 412)]


def test_frames_of_classes_are_those_of_the_decoded_waveform():
    quantizer = Quantizer("mu_law", 256)
    classes = quantizer.encode(noise(3000))
    np.testing.assert_allclose(ClipFrames(MEL, Decoded(classes, quantizer))[:], frames_of(quantizer.decode(classes)))


def test_silence_is_the_floor():
    np.testing.assert_allclose(frames_of(np.zeros(1000, np.float32)), LOWEST, rtol=1e-6)
    assert np.float32(LOWEST) == np.log(np.float32(FLOOR))


def test_what_the_network_sees_is_about_zero():
    speech = normalized(frames_of(noise(16000)))
    assert np.abs(speech).max() < 3


def saved(tmp_path, frames):
    np.save(tmp_path / "frames.npy", frames)
    return tmp_path / "frames.npy"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_frames_of_other_programs_are_read(tmp_path, dtype):
    frames = frames_of(noise(3000)).astype(dtype)
    read = MEL.read(saved(tmp_path, frames))
    assert len(read) == 15
    assert read[2:5].dtype == np.float32
    np.testing.assert_array_equal(read[2:5], frames[2:5].astype(np.float32))


def some_frames():
    return frames_of(noise(3000))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda f: f.T, r"expected mel frames \(F, 40\), found \(40, 15\); transpose them"),
        (lambda f: f[:, :30], r"expected mel frames \(F, 40\), found \(15, 30\); this model's are 40 bands from 50 to"),
        (lambda f: f[None], r"\(F, 40\), found \(1, 15, 40\); this model's are .*every 200 samples at 16,000 Hz"),
        (lambda f: f[:0], r"\(F, 40\), found \(0, 40\)"),
        (lambda f: f.astype(np.int64), r"of floating point numbers, found int64"),
        (lambda f: np.where(f > -4, np.nan, f), r"of finite numbers, found some that are not"),
        (lambda f: np.where(f > -4, np.inf, f), r"of finite numbers, found some that are not"),
        (
            lambda f: 20 * f / np.log(10),
            r"natural logarithms of magnitudes, -11.51 .* decibels, .* have to be converted",
        ),
        (lambda f: np.exp(f) + 20, r"natural logarithms .* to 10, found 20"),
    ],
)
def test_the_error_of_unconventional_frames_names_the_problem(tmp_path, spoil, text):
    with pytest.raises(UsageError, match=rf"frames\.npy: {text}" if text.startswith("expected") else text):
        MEL.read(saved(tmp_path, spoil(some_frames())))


def an_archive(path):
    with path.open("wb") as file:  # given a name, numpy would add .npz to it
        np.savez(file, frames=some_frames())


def a_cut_off_file(path):
    np.save(path, some_frames())
    path.write_bytes(path.read_bytes()[:-50])


class Trap:
    """Sets off when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: path.write_bytes(b""), "nothing"),
        (lambda path: path.write_bytes(b"nothing"), "something else"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no archive"), r"an \.npz archive"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00v\x00"), r"a damaged \.npy file"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x03\x00{(\n"), r"a damaged \.npy file"),
        (a_cut_off_file, r"a damaged \.npy file"),
        (an_archive, r"an \.npz archive"),
        (lambda path: path.write_bytes(pickle.dumps(Trap())), "a pickle, which is not loaded"),
        (lambda path: np.save(path, np.array([Trap()])), "an array of Python objects, which are not loaded"),
    ],
)
def test_what_is_no_file_of_frames_is_an_error_in_our_words(tmp_path, write, found):
    path = tmp_path / "bad.npy"
    write(path)
    with pytest.raises(UsageError) as error:
        MEL.read(path)
    expected = rf".*/{path.name}: expected mel frames as numpy\.save writes a float array \(F, 40\), found {found}; "
    assert re.fullmatch(expected + r"write them with numpy\.save\(FILE, frames\)", str(error.value))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.npy: expected mel frames .*, found none: No such file"):
        MEL.read(tmp_path / "gone.npy")
    with pytest.raises(UsageError, match=r"found none: Is a directory"):
        MEL.read(tmp_path)


def test_frames_in_memory_are_checked_like_files():
    frames = some_frames()
    for given in (frames, frames.tolist(), torch.from_numpy(frames)):
        read = MEL.checked(given, "mel")
        np.testing.assert_array_equal(read[:], frames)
        assert read.n_samples == 3000
    for given, text in [
        (frames.T.tolist(), r"mel: expected mel frames \(F, 40\), found \(40, 15\); transpose them"),
        (
            [[0.1] * 40, [0.1] * 39],
            r"mel: expected mel frames \(F, 40\), found a list that makes no array; its rows have to be",
        ),
        ((20 + frames).tolist(), r"mel: expected .* natural logarithms of magnitudes"),
        ("frames.npy", r"mel: expected mel frames \(F, 40\), found \(\);"),
        ([["a"] * 40], r"mel: expected mel frames \(F, 40\) of floating point numbers, found <U1"),
    ]:
        with pytest.raises(UsageError, match=text):
            MEL.checked(given, "mel")


def test_frames_know_how_long_their_clip_is():
    quantizer = Quantizer("mu_law", 256)
    clip = ClipFrames(MEL, Decoded(quantizer.encode(noise(2999)), quantizer))
    assert (len(clip), clip.n_samples) == (15, 2999)
    assert MEL.checked(clip, "mel") is clip
    assert MEL.checked(clip[:], "mel").n_samples == 3000


def test_frames_of_another_models_convention_are_refused():
    other = dataclasses.replace(MEL, hop_length=100)
    clip = ClipFrames(other, noise(3000))
    with pytest.raises(UsageError, match=r"mel: expected .* every 200 samples .*found those of .* every 100"):
        MEL.checked(clip, "mel")
