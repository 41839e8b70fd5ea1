"""Sources of recordings: folders, files, patterns and lists."""

import glob

import pytest

from recordings import write_noise
from wavegen.data import sources as sources_module
from wavegen.data.sources import compact_sources, find_sources
from wavegen.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    """Two voices and a loose file."""
    for i, name in enumerate(("anna/1.wav", "anna/more/2.wav", "bert/1.wav", "bert/2.flac", "loose.wav")):
        write_noise(tmp_path / name, seed=i)
    return tmp_path


def labels(found):
    return {name: found.label(name)[0] for name in found.found.names}


def test_folders_and_files_are_named_and_labelled_as_in_the_folder_that_holds_them(folder):
    found = find_sources([folder / "anna", folder / "bert"])
    assert found.root == folder
    expected = {"anna/1.wav": "anna", "anna/more/2.wav": "anna", "bert/1.wav": "bert", "bert/2.flac": "bert"}
    assert labels(found) == expected
    whole = find_sources(folder)
    assert {name: whole.label(name)[0] for name in expected} == expected
    assert whole.label("loose.wav") == (folder.name, True)
    files = [folder / name for name in expected]
    assert find_sources(files).found.names == tuple(expected)
    assert labels(find_sources(files)) == {**expected, "anna/more/2.wav": "more"}  # the folder of the file


def test_what_is_given_twice_counts_once(folder):
    given = [folder / "anna", folder / "anna" / "1.wav", folder / "bert" / ".." / "anna", folder / "anna" / "more"]
    assert find_sources(given).found.names == ("1.wav", "more/2.wav")


def test_a_file_alone(folder):
    found = find_sources(folder / "anna" / "1.wav")
    assert (found.root, labels(found)) == (folder / "anna", {"1.wav": "anna"})
    (folder / "song.m4a").touch()
    ((name, why),) = find_sources(folder / "song.m4a").found.unusable
    assert name == "song.m4a"
    assert "ffmpeg" in why


def test_a_pattern_that_no_shell_expanded(folder, monkeypatch):
    assert find_sources(folder / "*" / "1.wav").found.names == ("anna/1.wav", "bert/1.wav")
    monkeypatch.setenv("HOME", str(folder))
    assert find_sources("~/bert/*").found.names == ("1.wav", "2.flac")
    write_noise(folder / "[a].wav")
    assert find_sources(folder / "[a].wav").found.names == ("[a].wav",)  # a file of that name, and no pattern
    with pytest.raises(UsageError, match=r"\*\.mp3: expected a folder of recordings or a file, found none"):
        find_sources(folder / "*.mp3")


def test_a_text_lists_files_and_folders_relative_to_itself(folder):
    text = folder / "lists" / "train.txt"
    text.parent.mkdir()
    lines = ("#EXTM3U", "../anna/1.wav|what she says\r", "", "../bert", "../gone.wav", r"..\loose.wav")
    text.write_text("\n".join(lines), encoding="utf-8-sig")
    found = find_sources(text)
    assert found.root == folder
    assert found.found.names == ("anna/1.wav", "bert/1.wav", "bert/2.flac", "loose.wav")
    assert found.found.unusable == (("../gone.wav", f"listed in {text}, and not there"),)


def test_words_next_to_recordings_are_no_list(folder):
    (folder / "notes.txt").write_text("Recorded in May.\n")
    found = find_sources(sorted(folder.iterdir()))
    assert found.found.names == find_sources(folder).found.names
    assert found.found.n_ignored == 1
    with pytest.raises(UsageError, match=r"notes\.txt: expected a list of recordings, .*: Recorded in May\.$"):
        find_sources(folder / "notes.txt")


def test_what_is_no_recordings_gets_the_right_command(folder):
    for name in ("run", "other run"):
        (folder / name / "checkpoints").mkdir(parents=True)
        (folder / name / "config.yaml").touch()
    (folder / "a.safetensors").touch()
    for name, command in (
        ("run", "wavegen train --run {} --resume"),
        ("run/config.yaml", "wavegen train DIR --config {}"),
        ("a.safetensors", "wavegen train DIR --init-from {}"),
    ):
        for look in (find_sources, compact_sources):
            with pytest.raises(UsageError) as caught:
                look([str(folder / name)])
            assert str(caught.value).endswith(command.format(folder / name))
    with pytest.raises(UsageError, match=r"this is a run, no recordings; .* --run '.*/other run' --resume"):
        find_sources(folder / "other run")
    found = find_sources([folder / "anna", folder / "run"]).found
    assert found.names == ("1.wav", "more/2.wav")
    assert found.unusable == ((str(folder / "run"), "the folder of a run, whose audio is generated"),)


@pytest.mark.parametrize("ending", ["wav", "WAV"])
def test_many_files_become_a_pattern_where_they_are_all_there_are(folder, monkeypatch, ending):
    monkeypatch.setattr(sources_module, "MOST_SOURCES", 3)
    odd = folder / "odd [1]"
    for i in range(5):
        write_noise(odd / f"{i}.{ending}", seed=i)
    (odd / "notes.txt").touch()
    expanded = [str(path) for path in sorted(odd.glob(f"*.{ending}"))]
    assert compact_sources(expanded[:3]) == expanded[:3]
    given = [*expanded, str(folder / "anna")]
    compact = compact_sources(given)
    assert compact == [f"{glob.escape(str(odd))}/*.{ending}", str(folder / "anna")]
    assert find_sources(compact) == find_sources(given)
    with pytest.raises(UsageError, match=r"expected at most 3 folders and files, found 4; list them in a text"):
        compact_sources(expanded[:4])
