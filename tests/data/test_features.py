"""Feature files beside recordings: what is read, what is left out and why, and the figures of their columns."""

import re

import numpy as np
import pytest

from recordings import write_noise
from wavegen.config import load_config
from wavegen.data import recordings
from wavegen.data.corpus import TAIL
from wavegen.data.recordings import read_recordings, with_conditions
from wavegen.errors import DataError

HOP = 50


def config_of(folder, *keys):
    return load_config("small", [f"data.folder={folder}", "data.validation=0", "features.columns=auto", *keys])


@pytest.fixture
def folder(tmp_path):
    """Twelve recordings of other lengths, with two columns that count the frames of all."""
    for i in range(12):
        n_samples = 1000 + 130 * i
        write_noise(tmp_path / "in" / f"{i:02}.wav", n_samples, seed=i)
        frames = np.arange(-(-n_samples // HOP))
        np.save(tmp_path / "in" / f"{i:02}.npy", np.stack([100 * i + frames, 0 * frames + 7], axis=1))
    return tmp_path / "in"


def reasons(folder, *keys):
    corpus = read_recordings(config_of(folder, *keys))
    return corpus, dict(corpus.unusable)


def test_columns_and_hop_are_found_and_frames_are_those_of_the_clip(folder):
    corpus, unusable = reasons(folder)
    assert not unusable
    assert len(corpus.clips) == 12
    clip = corpus.clips[3]
    assert (clip.features.hop_length, clip.features.columns) == (HOP, 2)
    np.testing.assert_array_equal(clip.features.frames()[2:4], [[302, 7], [303, 7]])
    assert clip.features.frames().n_samples == clip.n_samples == 1390


def test_the_hop_is_found_for_librosas_frames_too(folder):
    for path in folder.glob("*.wav"):
        n_samples = 1000 + 130 * int(path.stem)
        np.save(path.with_suffix(".npy"), np.ones((1 + n_samples // HOP, 1)))
    assert reasons(folder)[0].clips[0].features.hop_length == HOP


@pytest.mark.parametrize("hop", [80, 160, 200, 256, 400, 512])
def test_the_hop_of_clips_of_equal_length_is_a_round_number(hop):
    for n_samples in (4000, 16000, 40000):
        assert recordings._hop_of([(n_samples, 1 + n_samples // hop)] * 3) == hop
        assert recordings._hop_of([(n_samples, -(-n_samples // hop))] * 3) == hop


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path, frames: path.unlink(), r"\(F, D\) in a .npy file of the same name, found none: No such file"),
        (lambda path, frames: path.write_bytes(b"words"), r"in a .npy file of the same name, found something else"),
        (lambda path, frames: np.save(path, frames[:, :, None]), r"of the same name, found the shape \(21, 2, 1\)"),
        (lambda path, frames: np.save(path, frames[:, :1]), r"features \(F, 2\), found \(21, 1\); this model's are 2"),
        (lambda path, frames: np.save(path, frames[:-2]), r"as long as the recording, found 19 frames, not 21 of 50 "),
        (lambda path, frames: np.save(path, np.tile(frames, (2, 1))), r"found 42 frames, not 21 of 50 samples for its"),
        (lambda path, frames: np.save(path, np.where(frames > 100, np.nan, frames)), r"\(F, 2\) of finite numbers"),
        (lambda path, frames: np.save(path, 1e31 * frames), r"between -1e\+30 and 1e\+30, found 7e\+31 to"),
        (lambda path, frames: np.save(path, frames.astype("U5")), r"of floating point numbers, found <U5"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_its_clip_out_and_says_why(folder, spoil, reason):
    for i in (1, 2, 3, 4, 5):
        path = folder / f"{i:02}.npy"
        frames = np.load(path)[:21].astype(float)
        write_noise(path.with_suffix(".wav"), 1030, seed=i)
        np.save(path, frames)
        spoil(path, frames)
    corpus, unusable = reasons(folder)
    assert list(unusable) == ["01.wav", "02.wav", "03.wav", "04.wav", "05.wav"]
    assert all(re.search(reason, why) for why in unusable.values()), unusable
    assert len(corpus.train) == 7
    (note,) = [note for note in corpus.notes if "left out" in note]
    assert note.startswith("5 files are left out, expected features")
    assert note.endswith(": 01.wav; 02.wav; 03.wav; and 2 more.")


def test_a_frame_more_or_less_is_no_reason(folder):
    np.save(folder / "00.npy", np.zeros((21, 2)))
    np.save(folder / "01.npy", np.zeros((22, 2)))
    corpus, unusable = reasons(folder, "features.hop=50")
    assert not unusable
    assert [len(clip.features.frames()) for clip in corpus.clips[:2]] == [20, 22]


def test_a_hop_that_no_file_has_is_an_error(folder):
    with pytest.raises(DataError, match=r"none of 12 files can be used: .*as long as the recording"):
        read_recordings(config_of(folder, "features.hop=100"))
    with pytest.raises(DataError, match=r"this model's are 3 columns, a frame every 50 samples at 16,000 Hz"):
        read_recordings(config_of(folder, "features.columns=3", "features.hop=50"))


def test_the_configuration_has_the_figures_of_the_training_split(folder):
    config = config_of(folder, "data.validation=0.4")
    corpus = read_recordings(config)
    assert 0 < len(corpus.validation) < 12
    found = with_conditions(config, corpus).features
    frames = np.concatenate([np.load(clip.features.path) for clip in corpus.train])
    assert (found.columns, found.hop) == (2, HOP)
    np.testing.assert_allclose(found.mean, frames.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.scale, [frames[:, 0].std(), 1.0], rtol=1e-5)
    again = with_conditions(config.with_values("features", mean=[1.0, 2.0]), corpus).features
    assert (again.mean, again.scale) == ([1.0, 2.0], found.scale)


def test_the_held_out_end_of_a_clip_begins_with_a_frame(folder):
    for path in [*folder.glob("0[4-9].*"), *folder.glob("1*")]:
        path.unlink()
    corpus = read_recordings(config_of(folder, "data.validation=0.1"))
    heads, tails = corpus.train, corpus.validation
    assert [clip.name for clip in tails] == [clip.name + TAIL for clip in heads]
    for head, tail in zip(heads, tails, strict=True):
        assert head.n_samples + tail.n_samples == head.stored.n_samples
        assert (head.n_samples % HOP, tail.start) == (0, head.n_samples)
        whole = np.load(head.features.path)
        both = np.concatenate([head.features.frames()[:], tail.features.frames()[:]])
        np.testing.assert_array_equal(both, whole)


def test_features_that_change_are_noticed(folder):
    corpus = read_recordings(config_of(folder))
    clip = corpus.clips[0]
    assert {len(entry["features"]) for entry in corpus.manifest()} == {64}
    np.save(clip.features.path, np.zeros((19, 2)))
    with pytest.raises(DataError, match=r"00\.npy: expected the shape \(20, 2\) of before, found \(19, 2\)"):
        clip.features.frames()
    clip.features.path.unlink()
    with pytest.raises(DataError, match=r"00\.npy: expected the features of before, found none"):
        clip.features.frames()
