import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recordings import write_noise
from wavegen.audio.quantize import Quantizer
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.audio.write import write_clip
from wavegen.config import load_config
from wavegen.data import cache as cache_module
from wavegen.data.corpus import TAIL, manifest_differences
from wavegen.data.recordings import read_recordings
from wavegen.errors import DataError, UsageError

RATE = 16000
QUANTIZER = Quantizer("mu_law", 256)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus").mkdir()
    return tmp_path / "corpus"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Read the corpus of a folder as it is, with a cache of its own and shares that a configuration does not allow."""
    monkeypatch.setenv("WAVEGEN_CACHE", str(tmp_path / "cache"))

    def build_with(folder, validation=0.1, labels="none", progress=None, **audio):
        config = load_config("small")
        unprepared = {"remove_dc": False, "trim_db": None, "pause_seconds": None, "level": "keep", "max_gain_db": None}
        validation = str(validation) if isinstance(validation, Path) else validation
        data = {"folder": str(folder), "validation": validation, "labels": labels}
        sections = {"audio": {**unprepared, **audio}, "data": data}
        changed = {name: getattr(config, name).model_copy(update=keys) for name, keys in sections.items()}
        return read_recordings(config.model_copy(update=changed), progress)

    return build_with


def write_many(folder, count, first_seed=0):
    for i in range(count):
        write_noise(folder / f"{first_seed + i:03d}.wav", 500 + i, seed=first_seed + i)


def splits(corpus):
    return {clip.name: clip.split for clip in corpus.clips}


# --- what is used -------------------------------------------------------------------------------------------


def test_a_mixed_folder(folder, build):
    write_noise(folder / "a.wav", RATE)
    write_noise(folder / "sub" / "b.flac", 44100, rate_hz=44100)
    write_noise(folder / "c.ogg", 48000, rate_hz=48000)
    (folder / "broken.wav").write_bytes((folder / "a.wav").read_bytes()[:20])
    (folder / "empty.wav").touch()
    (folder / "text.mp3").write_text("no audio")
    (folder / "song.m4a").write_bytes(b"whatever")
    (folder / "README.txt").write_text("about")
    os.mkfifo(folder / "pipe.wav")

    corpus = build(folder, 0)

    assert [clip.name for clip in corpus.clips] == ["a.wav", "c.ogg", "sub/b.flac"]
    assert [clip.n_samples for clip in corpus.clips] == [RATE] * 3
    assert [clip.stored.source_seconds for clip in corpus.clips] == pytest.approx([1.0] * 3)
    assert corpus.folder == folder
    reasons = dict(corpus.unusable)
    assert list(reasons) == ["broken.wav", "empty.wav", "pipe.wav", "song.m4a", "text.mp3"]
    assert reasons["broken.wav"].startswith("libsndfile cannot read it (")
    assert reasons["empty.wav"] == "the file is empty (0 bytes)"
    assert reasons["pipe.wav"] == "a pipe, a socket or a device, not a file"
    assert f"find {folder} -iname '*.m4a' -exec sh -c 'ffmpeg " in reasons["song.m4a"]
    assert reasons["text.mp3"].startswith("libsndfile cannot read it (no audio format is recognized in it)")


def test_classes_are_those_of_the_file(folder, build):
    write_noise(folder / "a.flac", 44100, rate_hz=44100)
    (clip,) = build(folder, 0).clips
    expected = QUANTIZER.encode(load_waveform(folder / "a.flac", Preparation(RATE)))
    np.testing.assert_array_equal(clip.classes(), expected)
    assert not clip.classes().flags.writeable


def test_the_second_scan_decodes_nothing(folder, build, monkeypatch):
    write_many(folder, 20)
    (folder / "bad.wav").write_text("no audio")
    first = build(folder)

    def fail(path, *_):
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(cache_module, "open_audio", fail)
    assert build(folder) == first


def test_a_single_sample_is_used(folder, build):
    write_noise(folder / "a.wav", 1)
    corpus = build(folder)
    assert [clip.n_samples for clip in corpus.clips] == [1]
    assert corpus.validation == ()


def test_progress(folder, build):
    write_many(folder, 3)
    seen = []
    build(folder, 0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_what_was_trimmed_is_kept_and_what_was_cut_off_is_said(folder, build):
    tone = 0.5 * np.sin(np.arange(RATE) / 5)
    soundfile.write(folder / "silence.wav", np.concatenate([np.zeros(RATE), tone]), RATE)
    soundfile.write(folder / "cut.mp3", np.concatenate([tone, tone]), RATE)
    content = (folder / "cut.mp3").read_bytes()
    (folder / "cut.mp3").write_bytes(content[: len(content) // 2])
    corpus = build(folder, 0, trim_db=40.0)
    ((cut, what_cut),) = corpus.shortened
    assert cut == "cut.mp3"
    assert what_cut.startswith("damaged or cut off: ")
    assert " s less than its header claims" in what_cut
    assert 0.9 < corpus.clips[1].stored.trimmed_seconds <= 1.0


def test_silent_and_too_loud_files_are_pointed_out(folder, build):
    write_noise(folder / "silent.wav", amplitude=0)
    write_noise(folder / "loud.wav", n_samples=50_000, amplitude=3)
    assert build(folder, 0).notes[1:] == (
        "Louder than full scale and clipped: 1 file: loud.wav (up to 3; audio.level=peak avoids it).",
        "Silent from end to end: 1 file: silent.wav.",
    )
    assert len(build(folder, 0, level="peak").notes) == 2


def test_what_wavegen_generated_is_left_out(folder, build):
    write_many(folder, 3)
    names = [clip.name for clip in build(folder).clips]
    for name in ("generated.wav", "more/generated.flac", "more/generated.ogg"):
        (folder / name).parent.mkdir(exist_ok=True)
        write_clip(np.full(500, 0.25, np.float32), str(folder / name), RATE, overwrite=False)
    write_noise(folder / "deep" / "run" / "auditions" / "step-00000010.wav")  # of a version that left no comment
    (folder / "deep" / "run" / "config.yaml").touch()
    (folder / "deep" / "run" / "checkpoints").mkdir()
    why = "generated by wavegen, as its comment says, and no recording"
    for _ in range(2):  # the second time from the cache
        corpus = build(folder)
        assert [clip.name for clip in corpus.clips] == names
        assert dict(corpus.unusable) == {
            "deep/run/": "the folder of a run, whose audio is generated",
            **dict.fromkeys(("generated.wav", "more/generated.flac", "more/generated.ogg"), why),
        }


# --- nothing usable -----------------------------------------------------------------------------------------


def test_a_folder_without_audio(folder, build):
    (folder / "README.txt").touch()
    with pytest.raises(
        DataError, match=r"expected recordings \(.*\.wav.*\), found none; 1 other entry was ignored"
    ) as caught:
        build(folder)
    assert caught.value.exit_code == 1


def test_the_error_of_a_folder_of_series_names_the_command(folder, build):
    (folder / "deep").mkdir()
    (folder / "deep" / "a.csv").write_text("1\n2\n")
    np.save(folder / "b.npy", np.arange(5.0))
    advice = "those take --config book-simple --set series.synthetic=null"
    with pytest.raises(DataError, match=rf"found none, but series of numbers \(b\.npy; deep/a\.csv\); {advice}"):
        build(folder)


def test_nothing_usable_lists_the_first_reasons(folder, build):
    for i in range(8):
        (folder / f"{i}.wav").touch()
    expected = r"none of 8 files can be used: 8 files: 0\.wav; 1\.wav; 2\.wav; and 5 more: the file is empty"
    with pytest.raises(DataError, match=expected):
        build(folder)


def test_a_missing_folder(folder, build):
    with pytest.raises(UsageError, match="expected a folder of recordings or a file, found none"):
        build(folder / "nowhere")


# --- split by share -----------------------------------------------------------------------------------------


def test_the_share_holds_out_about_that_many(folder, build):
    write_many(folder, 300)
    corpus = build(folder, 0.2)
    # 300 fair draws with chance 0.2; the seeds are fixed, and a false alarm with other files has a chance of 1e-5
    assert 30 <= len(corpus.validation) <= 90
    assert len(corpus.train) + len(corpus.validation) == 300
    assert corpus.notes == ()


def test_adding_and_renaming_files_moves_nothing(folder, build):
    write_many(folder, 40)
    before = splits(build(folder, 0.3))
    write_many(folder, 40, first_seed=100)
    for name in ["000.wav", "001.wav", "002.wav", "003.wav"]:
        (folder / name).rename(folder / f"renamed-{name}")
    after = splits(build(folder, 0.3))
    assert {name.removeprefix("renamed-"): split for name, split in after.items()}.items() >= before.items()


def test_a_larger_share_only_adds(folder, build):
    write_many(folder, 40)
    small, large = ({clip.name for clip in build(folder, share).validation} for share in (0.2, 0.4))
    assert small < large


def test_copies_are_on_the_same_side(folder, build):
    write_many(folder, 40)
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"copy-{path.name}")
    after = splits(build(folder, 0.3))
    assert all(after[f"copy-{i:03d}.wav"] == after[f"{i:03d}.wav"] for i in range(40))
    (note,) = build(folder, 0.3).notes  # and none of held-out files that are also trained on
    assert re.match(r"\d+ training files repeat another, byte for byte.", note)


@pytest.mark.parametrize(
    ("count", "share", "why"),
    [
        (9, 0.1, "There are fewer than 10 usable files: the last 10% of each"),
        (10, 1e-9, "A share of 1e-09 selects none of the files: the last 1e-07% of each"),
        (10, 1 - 1e-9, "A share of 1 selects all of the files: the last 100% of each"),
    ],
)
def test_ends_are_held_out_where_whole_files_cannot_be(folder, build, count, share, why):
    write_many(folder, count)
    whole = {clip.name: clip for clip in build(folder, 0).clips}
    corpus = build(folder, share)
    assert corpus.notes == (f"{why} is held out instead of whole files.",)
    assert len(corpus.train) == len(corpus.validation) == count
    tails = {clip.name: clip for clip in corpus.validation}
    for head in corpus.train:
        tail, clip = tails[head.name + TAIL], whole[head.name]
        assert tail.n_samples == min(max(1, round(share * clip.n_samples)), clip.n_samples - 1)
        assert head.n_samples + tail.n_samples == clip.n_samples
        assert head.content_hash == tail.content_hash == clip.content_hash
        np.testing.assert_array_equal(np.concatenate([head.classes(), tail.classes()]), clip.classes())
        assert (len(head.classes()), len(tail.classes())) == (head.n_samples, tail.n_samples)


def test_a_share_of_zero_holds_out_nothing_and_adds_a_note(folder, build):
    write_many(folder, 3)
    corpus = build(folder, 0)
    assert corpus.validation == ()
    assert len(corpus.train) == 3
    assert corpus.notes == ("Nothing is held out (data.validation is 0): there will be no held-out bits/sample.",)


# --- split by name ------------------------------------------------------------------------------------------


def test_a_list_of_names(folder, build, tmp_path):
    write_many(folder, 4)
    write_noise(folder / "sub" / "x.wav", seed=9)
    (tmp_path / "held.txt").write_bytes(b"\xef\xbb\xbf001.wav\r\n\r\n./sub/x.wav  \n")
    corpus = build(folder, tmp_path / "held.txt")
    assert [clip.name for clip in corpus.validation] == ["001.wav", "sub/x.wav"]
    assert len(corpus.train) == 3
    assert corpus.notes == ()


def test_a_list_with_names_that_are_not_there(folder, build, tmp_path):
    write_many(folder, 2)
    (tmp_path / "held.txt").write_text("000.wav\nzero.wav\none.wav\n")
    with pytest.raises(UsageError, match=r"held\.txt: 2 names are not among the .*: one\.wav; zero\.wav$") as caught:
        build(folder, str(tmp_path / "held.txt"))
    assert caught.value.exit_code == 2


def test_a_listed_file_that_cannot_be_used_is_no_wrong_call(folder, build, tmp_path):
    write_many(folder, 3)
    (folder / "bad.wav").touch()
    (tmp_path / "held.txt").write_text("bad.wav\n000.wav\n")
    assert [clip.name for clip in build(folder, tmp_path / "held.txt").validation] == ["000.wav"]
    (tmp_path / "held.txt").write_text("bad.wav\n")
    with pytest.raises(DataError, match=r"held\.txt: holds out no usable file of .*; see data\.validation"):
        build(folder, tmp_path / "held.txt")
    (tmp_path / "held.txt").write_text("000.wav\n001.wav\n002.wav\n")
    with pytest.raises(DataError, match=r"held\.txt: holds out every usable file of .*; see data\.validation"):
        build(folder, tmp_path / "held.txt")


def test_a_folder_inside(folder, build):
    write_many(folder / "talk", 3)
    write_many(folder / "test", 2, first_seed=10)
    (folder / "test" / "bad.wav").touch()
    corpus = build(folder, "test")
    assert [clip.name for clip in corpus.validation] == ["test/010.wav", "test/011.wav"]
    assert [clip.name for clip in corpus.train] == ["talk/000.wav", "talk/001.wav", "talk/002.wav"]
    assert dict(corpus.unusable) == {"test/bad.wav": "the file is empty (0 bytes)"}


def test_a_folder_inside_that_is_reached_by_a_link_too(folder, build):
    write_many(folder / "talk", 3)
    write_many(folder / "test", 2, first_seed=10)
    (folder / "again").symlink_to("test")
    assert [clip.name[:4] for clip in build(folder, "test").train] == ["talk"] * 3


def test_a_folder_elsewhere(folder, build, tmp_path):
    write_many(folder, 3)
    write_many(tmp_path / "test", 2, first_seed=10)
    corpus = build(folder, tmp_path / "test")
    assert [clip.name for clip in corpus.validation] == ["../test/010.wav", "../test/011.wav"]
    assert len(corpus.train) == 3
    np.testing.assert_array_equal(
        corpus.validation[0].classes(),
        QUANTIZER.encode(soundfile.read(tmp_path / "test" / "010.wav", dtype="float32")[0]),
    )


def test_the_working_directory_comes_before_the_folder(folder, build, tmp_path, monkeypatch):
    write_many(folder, 3)
    write_many(folder / "test", 1, first_seed=10)
    assert [clip.name for clip in build(folder, "test").validation] == ["test/010.wav"]
    write_many(tmp_path / "test", 1, first_seed=20)
    monkeypatch.chdir(tmp_path)
    assert [clip.name for clip in build(Path("corpus"), "test").validation] == ["../test/020.wav"]


def test_a_validation_that_is_nowhere_or_everything(folder, build):
    write_many(folder, 3)
    with pytest.raises(UsageError, match=r"expected a share, a folder or a list .* found nothing at x"):
        build(folder, "x" * 300)
    with pytest.raises(UsageError, match=r"data\.validation: .* holds the training folder itself"):
        build(folder, folder.parent)


def test_copies_among_the_training_files_are_counted(folder, build):
    write_many(folder, 3)
    for name in ("a copy.wav", "another.wav"):
        (folder / name).write_bytes((folder / "000.wav").read_bytes())
    assert build(folder, 0).notes[1:] == ("2 training files repeat another, byte for byte.",)


def test_held_out_copies_of_training_files_are_pointed_out(folder, build, tmp_path):
    write_many(folder, 3)
    write_many(tmp_path / "test", 2)
    (note,) = build(folder, tmp_path / "test").notes
    assert note == "2 held-out files are also trained on, byte for byte: ../test/000.wav; ../test/001.wav."


# --- labels -------------------------------------------------------------------------------------------------


def test_labels_are_the_first_folder(folder, build):
    write_noise(folder / "anna" / "1.wav", seed=1)
    write_noise(folder / "anna" / "more" / "2.wav", seed=2)
    write_noise(folder / "ben" / "3.wav", seed=3)
    write_noise(folder / "4.wav", seed=4)
    corpus = build(folder, 0, labels="subfolders")
    assert {clip.name: clip.label for clip in corpus.clips} == {
        "4.wav": "corpus",
        "anna/1.wav": "anna",
        "anna/more/2.wav": "anna",
        "ben/3.wav": "ben",
    }
    assert corpus.labels == ("anna", "ben", "corpus")
    assert corpus.notes[1:] == (
        "1 file is in no sub-folder, which would be the label, and labelled with the folder's own name, corpus: 4.wav.",
    )
    assert build(folder, 0).labels == ()
    assert len(build(folder, 0).notes) == 1
    assert {clip.label for clip in build(folder, 0).clips} == {None}


def test_flat_folders_have_one_label_and_a_note(folder, build, tmp_path):
    write_many(folder, 7)
    (folder / "006.wav").write_bytes(b"")
    write_many(tmp_path / "test", 1, first_seed=20)
    corpus = build(folder, tmp_path / "test", labels="subfolders")
    assert corpus.labels == ("corpus", "test")
    why = "in no sub-folder, which would be the label, and labelled with the folder's own name"
    assert set(corpus.notes) == {
        f"6 files are {why}, corpus: 000.wav; 001.wav; 002.wav; and 3 more.",
        f"1 file is {why}, test: ../test/020.wav.",
        "1 label is only held out, never trained on: test.",
    }


def test_held_out_ends_keep_their_label(folder, build):
    write_noise(folder / "anna" / "1.wav")
    assert [clip.label for clip in build(folder, labels="subfolders").clips] == ["anna", "anna"]


@pytest.mark.parametrize("place", ["corpus/test", "test"])
def test_labels_in_a_validation_folder_are_its_own_subfolders(folder, build, tmp_path, place):
    write_noise(folder / "anna" / "1.wav", seed=1)
    write_noise(folder / "ben" / "2.wav", seed=2)
    write_noise(tmp_path / place / "anna" / "3.wav", seed=3)
    write_noise(tmp_path / place / "carl" / "4.wav", seed=4)
    corpus = build(folder, tmp_path / place, labels="subfolders")
    assert [clip.label for clip in corpus.validation] == ["anna", "carl"]
    assert [clip.label for clip in corpus.train] == ["anna", "ben"]
    assert corpus.notes == ("1 label is only held out, never trained on: carl.",)


def test_a_validation_folder_below_a_label_has_that_label(folder, build):
    write_noise(folder / "anna" / "1.wav", seed=1)
    write_noise(folder / "anna" / "test" / "2.wav", seed=2)
    corpus = build(folder, "anna/test", labels="subfolders")
    assert [clip.label for clip in corpus.clips] == ["anna", "anna"]


# --- manifests ----------------------------------------------------------------------------------------------


def test_a_manifest_survives_json(folder, build):
    write_many(folder / os.fsdecode(b"caf\xe9"), 2)
    manifest = build(folder, labels="subfolders").manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert len(manifest) == 4
    assert set(manifest[0]) == {"name", "n_samples", "content_hash", "split", "label"}


def test_manifests_that_agree_have_no_differences(folder, build):
    write_many(folder, 12)
    assert manifest_differences(build(folder).manifest(), build(folder).manifest()) == []


def test_many_differences_between_manifests_are_counted(folder, build):
    write_many(folder, 139)
    (line,) = manifest_differences([], build(folder, 0).manifest())
    first = "; ".join(f"{i:03d}.wav (train, {500 + i} samples)" for i in range(3))
    assert line == f"139 added: {first}; and 136 more"


def test_differences_between_manifests_are_lines_to_read(folder, build):
    write_many(folder, 12)
    before = build(folder, 0, labels="subfolders").manifest()
    (folder / "000.wav").unlink()
    write_noise(folder / "new\n.wav", 700)
    write_noise(folder / "001.wav", 800)
    write_noise(folder / "002.wav", 502, seed=77)
    os.utime(folder / "002.wav", (1, 1))  # a disk may note times so coarsely that this one would be the same
    now = build(folder, 0, labels="subfolders").manifest()
    for clip in now:
        if clip["name"] == "003.wav":
            clip |= {"split": "validation", "label": "other", "features": "0a1b"}
    assert manifest_differences(before, now) == [
        "removed: 000.wav (train, 500 samples)",
        "3 changed: 001.wav (n_samples: 501 before, 800 now; other content); 002.wav (other content);"
        " 003.wav (split: 'train' before, 'validation' now; label: 'corpus' before, 'other' now; other features)",
        "added: new\\n.wav (train, 700 samples)",
    ]


def test_a_flat_folder_may_be_one_sound(folder, build):
    write_many(folder, 7)
    notes = build(folder, 0, labels="subfolders").notes
    assert notes[1:] == (
        "there are no sub-folders, which would be labels: right for one sound, several need one each.",
    )
