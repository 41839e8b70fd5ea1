import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest

from wavegen.config import Config
from wavegen.errors import CheckpointError, TrainingError, UsageError
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.run_folder import SHIPPED_MODEL, RunFolder, find_checkpoint, run_of


def checkpoint(step):
    weights = {"w": np.full(3, step, dtype=np.float32)}
    return Checkpoint(Config(), step, weights, weights)


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def steps_in(run):
    return [int(path.stem.removeprefix("step-")) for path in run.step_checkpoints()]


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path / "runs" / "mine")
    run.create("model: {}\n")
    return run


# --- the folder --------------------------------------------------------------------------------------------------


def test_a_new_run_has_its_configuration_and_nothing_to_resume(run):
    assert run.config_file.read_text() == "model: {}\n"
    assert run.step_checkpoints() == []
    assert list(run.metrics()) == []
    with pytest.raises(
        UsageError, match=r"mine: nothing to resume: expected a checkpoint in .*checkpoints, found none"
    ):
        run.load_newest()


def test_an_existing_run_is_never_overwritten(run):
    with pytest.raises(
        UsageError,
        match=r"mine: this run folder is not empty; continue with .* --resume, or choose another: run='.*mine-2'$",
    ):
        run.create("training: {}\n")
    assert run.config_file.read_text() == "model: {}\n"


def test_an_empty_folder_may_become_a_run_and_a_file_may_not(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").create("a: b\n")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="expected a new folder for the run, found a file"):
        RunFolder(tmp_path / "file").create("a: b\n")
    with pytest.raises(UsageError, match=r"cannot make the run folder: Not a directory; choose another"):
        RunFolder(tmp_path / "file" / "run").create("a: b\n")


def test_a_configuration_is_replaced_as_a_whole(run):
    run.write_config("training: {}\n")
    assert run.config_file.read_text() == "training: {}\n"
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "config.yaml"]


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        (["/sounds/drums/"], "drums"),
        (["here"], "here"),
        (["."], "inside"),
        ([".."], "above"),
        (["waves"], "waves"),
        (["/"], "recordings"),
        (["one.wav"], "one"),
        (["one.wav", "../two.wav"], "inside-above"),
        (["/sounds/*.wav"], "sounds"),
        (["a", "x/b", "c", "d"], "a-b-c"),
    ],
)
def test_a_run_is_named_after_its_data(sources, name, tmp_path, monkeypatch):
    (tmp_path / "above" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "inside")
    for file in ("one.wav", "../two.wav"):
        Path(file).touch()
    assert run_of(sources).path == Path("runs") / name


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep_last", "kept"), [(1, [1000]), (3, [9, 500, 1000]), (10, [1, 2, 9, 500, 1000])])
def test_the_last_checkpoints_are_kept_and_the_best(run, keep_last, kept):
    for step in (1, 2, 9, 500, 1000):
        if step == 2:
            run.save_best(checkpoint(step))
        path = run.save(checkpoint(step), keep_last)
        assert path.is_file()
    assert steps_in(run) == kept
    assert run.best_checkpoint.is_file()
    newest, damaged = run.load_newest()
    assert (newest.step, damaged) == (1000, [])


def test_steps_are_ordered_as_numbers(run):
    for step in (99_999_999, 100_000_000, 5):
        run.save(checkpoint(step), keep_last=9)
    assert steps_in(run) == [5, 99_999_999, 100_000_000]


def test_what_is_no_numbered_checkpoint_is_left_alone(run):
    others = ["best.safetensors", "step-9.safetensors.old", "notes.txt"]
    for name in others:
        (run.checkpoints / name).touch()
    for step in (1, 2, 3):
        run.save(checkpoint(step), keep_last=1)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == sorted([*others, "step-00000003.safetensors"])


def test_what_a_killed_save_left_is_removed_by_the_next(run):
    (run.checkpoints / ".step-00000003.safetensors.x.tmp").touch()
    run.save(checkpoint(4), keep_last=1)
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-00000004.safetensors"]


def test_a_failed_save_deletes_nothing(run, monkeypatch):
    for step in (1, 2):
        run.save(checkpoint(step), keep_last=2)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        run.save(checkpoint(3), keep_last=1)
    assert steps_in(run) == [1, 2]


def test_loading_skips_damaged_checkpoints_and_reports_them(run):
    for step in (1, 2, 3, 4):
        damaged = run.save(checkpoint(step), keep_last=9)
        if step in (1, 3):
            damage(damaged)
        if step == 4:
            damaged.write_bytes(damaged.read_bytes()[:100])
    found, said = run.load_newest()
    assert found.step == 2
    assert len(said) == 2
    assert said[0].startswith(f"{run.checkpoints / 'step-00000004.safetensors'}: expected a safetensors file")
    assert said[1].startswith(f"{run.checkpoints / 'step-00000003.safetensors'}: damaged: ")
    assert run.load_newest()[1] == said  # looking changes nothing


def test_nothing_but_damaged_checkpoints_is_an_error(run):
    for step in (1, 2):
        damage(run.save(checkpoint(step), keep_last=9))
    with pytest.raises(CheckpointError, match=r"step-00000002\.safetensors: damaged"):
        run.load_newest()


@pytest.mark.parametrize("keep_last", [1, 2])
def test_after_a_fall_back_damaged_files_do_not_push_out_new_ones(run, keep_last):
    for step in (100, 200, 300):
        path = run.save(checkpoint(step), keep_last=3)
        if step > 100:
            damage(path)
    assert run.load_newest()[0].step == 100
    run.prepare("training: {}\n", 100)
    assert run.save(checkpoint(110), keep_last).is_file()
    assert run.load_newest()[0].step == 110
    kept = {path.name for path in run.checkpoints.iterdir()}
    assert {"step-00000200.safetensors.damaged", "step-00000300.safetensors.damaged"} <= kept


# --- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_are_cut_back_to_a_step(run):
    entries = [{"step": step, "loss": step / 3, "note": "caf\u00e9"} for step in (1, 2, 2, 3, 4)]
    for entry in entries:
        run.append_metrics(entry)
    assert list(run.metrics()) == entries
    run.cut_metrics(2)
    assert list(run.metrics()) == entries[:3]
    run.append_metrics({"step": 3})
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [1, 2, 2, 3]
    run.cut_metrics(0)
    assert run.metrics_file.read_text() == ""


def test_resuming_from_a_step_removes_the_metrics_of_later_ones(run):
    for step in (1, 2, 3):
        run.append_metrics({"step": step})
    run.prepare("model: {}\n", 2)
    assert [entry["step"] for entry in run.metrics()] == [1, 2]


@pytest.mark.parametrize("cut", range(1, 23))
def test_a_torn_last_line_is_cut_off_and_harms_no_later_one(run, cut):
    for step in (1, 2, 3):
        run.append_metrics({"step": step, "b": 0.125})
    content = run.metrics_file.read_bytes()
    assert len(content) == 3 * 24
    run.metrics_file.write_bytes(content[:-cut])
    survivors = [1, 2, 3] if cut == 1 else [1, 2]  # only the line's end was lost
    assert [entry["step"] for entry in run.metrics()] == survivors
    run.cut_metrics(3)
    run.append_metrics({"step": 4})
    assert [json.loads(line)["step"] for line in run.metrics_file.read_text().splitlines()] == [*survivors, 4]


def test_metrics_under_an_older_key_are_read_under_the_new_one(run):
    run.append_metrics({"step": 1, "hours_of_audio": 0.25})
    run.append_metrics({"step": 2, "hours_of_audio": 0.5})
    assert [entry["hours_of_audio"] for entry in run.metrics()] == [0.25, 0.5]


@pytest.mark.parametrize("line", ["5", "null", "[1]", '"step"', '{"seconds": 5}', '{"step": null}', "\0\0\0"])
def test_a_line_of_metrics_that_is_none_is_left_out(run, line):
    run.append_metrics({"step": 1})
    with run.metrics_file.open("a") as file:
        file.write(f"{line}\n")
    run.append_metrics({"step": 2})
    assert [entry["step"] for entry in run.metrics()] == [1, 2]
    run.cut_metrics(1)
    assert run.metrics_file.read_text() == '{"step": 1}\n'


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\xff\xfe\xe9"])
def test_garbage_at_the_end_is_cut_off(run, garbage):
    """After a power cut the end of the file may be arbitrary bytes."""
    run.append_metrics({"step": 1})
    with run.metrics_file.open("ab") as file:
        file.write(garbage)
    run.cut_metrics(5)
    assert run.metrics_file.read_text() == '{"step": 1}\n'


def test_metrics_that_find_the_disk_full_are_written_when_there_is_room(run, monkeypatch):
    run.append_metrics({"step": 1})
    whole = run.metrics_file.read_bytes()

    class FullDisk(io.StringIO):
        def writelines(self, lines):
            with run.metrics_file.open("ab", 0) as file:
                file.write(lines[0][:5].encode())
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        opened = Path.open
        patch.setattr(
            Path, "open", lambda path, mode, *rest, **_: FullDisk() if mode == "a" else opened(path, mode, *rest)
        )
        assert "the disk is full; make room" in run.append_metrics({"step": 2})
        assert run.append_metrics({"step": 3}) is None, "told once"
        assert run.metrics_file.read_bytes() == whole, "no half line"
        with pytest.raises(CheckpointError, match="the disk is full"):
            run.save(checkpoint(3), keep_last=2)
    run.append_metrics({"step": 4})
    assert [entry["step"] for entry in run.metrics()] == [1, 2, 3, 4]


def test_metrics_that_cannot_be_written_stop_the_training(run):
    run.metrics_file.mkdir()
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written: Is a directory"):
        run.append_metrics({"step": 1})


# --- what a path means -------------------------------------------------------------------------------------------


def test_a_run_means_its_best_checkpoint_else_its_newest(run):
    for step in (1, 10, 9):
        path = run.save(checkpoint(step), keep_last=9)
        assert find_checkpoint(path) == path
    assert find_checkpoint(run.path).name == "step-00000010.safetensors"
    run.save_best(checkpoint(9))
    assert find_checkpoint(run.path) == run.best_checkpoint


def test_a_path_that_means_no_checkpoint_is_a_wrong_call(run, tmp_path):
    with pytest.raises(
        UsageError, match=r"nowhere: expected a run folder or a checkpoint, found nothing; train one first: "
    ):
        find_checkpoint(tmp_path / "nowhere")
    for folder in (run.path, tmp_path):
        with pytest.raises(
            UsageError, match=r": expected a run folder .*, found a folder without checkpoints in .*checkpoints$"
        ):
            find_checkpoint(folder)
    (tmp_path / "mine.yaml").write_text("model: {}")
    with pytest.raises(UsageError, match=r"mine\.yaml: .* found a configuration; .* wavegen train DIR --config .*mine"):
        find_checkpoint(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["voice", "demo"])
def test_its_names_mean_the_shipped_model_where_nothing_else_has_them(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(Path(name)) == SHIPPED_MODEL
    Path(name).mkdir()
    assert find_checkpoint(Path(name)) == SHIPPED_MODEL
    (Path(name) / "a.wav").touch()
    with pytest.raises(UsageError, match=f"{name}: .* found recordings and no model; train one: wavegen train {name}$"):
        find_checkpoint(Path(name))
    RunFolder(Path("runs", name)).create("model: {}\n")
    with pytest.raises(UsageError, match=f"{name}: .* found recordings and no model; did you mean runs/{name}\\?$"):
        find_checkpoint(Path(name))


def test_demo_means_the_shipped_model_beside_what_make_demo_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(Path("demo")) == SHIPPED_MODEL
    inside = RunFolder(Path("demo/run"))  # where `make demo` trains: the folder around it is no run
    inside.create("model: {}\n")
    (Path("demo") / "new.wav").touch()
    assert find_checkpoint(Path("demo")) == SHIPPED_MODEL
    newest = inside.save(checkpoint(3), keep_last=1)
    assert find_checkpoint(Path("demo/run")) == newest
    Path("demo").rename("else")
    Path("demo").touch()
    assert find_checkpoint(Path("demo")) == Path("demo")


def test_a_run_of_that_name_is_meant_even_before_its_first_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = RunFolder(Path("demo"))
    run.create("model: {}\n")
    with pytest.raises(
        UsageError, match="demo: expected a run folder or a checkpoint, found a folder without checkpoints in"
    ):
        find_checkpoint(Path("demo"))
    first = run.save(checkpoint(1), keep_last=1)
    assert find_checkpoint(Path("demo")) == first


@pytest.mark.parametrize(("name", "meant"), [("Voice", True), ("vioce", True), ("small", False)])
def test_the_shipped_model_is_named_only_to_whom_it_helps(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    ending = r"did you mean 'voice', the model that wavegen ships\?" if meant else "train one first: wavegen train DIR"
    with pytest.raises(UsageError, match=f"{name}: expected a run folder or a checkpoint, found nothing; {ending}$"):
        find_checkpoint(Path(name))
