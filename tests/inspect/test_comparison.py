import io
import json
import re

import numpy as np
import pytest

from inspections import inspected
from wavegen.config import load_config, override
from wavegen.errors import UsageError
from wavegen.inspect import as_dict, inspect_paths
from wavegen.inspect.runs import compare_runs
from wavegen.report import print_tables
from wavegen.report.inspected import draw, tables_of
from wavegen.runs.checkpoint import Checkpoint
from wavegen.runs.run_folder import RunFolder

BASELINES = {"uniform": 8.0, "linear prediction": 4.0}


def write_run(path, config, bits, held_out="aa"):
    run = RunFolder(path)
    run.create(config.to_yaml())
    for step in (1, 2):
        run.append_metrics(
            {
                "step": step,
                "train_bits": 5.0,
                "learning_rate": 0.1,
                "targets_per_second": 2000.0 * step,
                "hours_of_audio": step,
                "seconds": 60 * step,
                "skipped": 0,
            }
        )
    run.append_metrics({"step": 2, "validation_bits": bits, "baselines": BASELINES})
    arrays = {"output.weight": np.zeros((4, 4), np.float32)}
    manifest = [
        {"name": "1.wav", "n_samples": 9, "content_hash": "bb", "split": "train", "label": None},
        {"name": "2.wav", "n_samples": 9, "content_hash": held_out, "split": "validation", "label": None},
    ]
    run.save(Checkpoint(config, 2, arrays, arrays, manifest=manifest), keep_last=1)
    return path


def compared(*runs):
    inspection = compare_runs(runs)
    file = io.StringIO()
    print_tables(tables_of(inspection), file)
    facts = json.loads(json.dumps(as_dict(inspection), allow_nan=False))
    assert facts == as_dict(inspection)
    assert inspection.kind == facts["kind"] == "comparison"
    return facts, file.getvalue()


@pytest.fixture
def config():
    return load_config().with_values("training", steps=2, minutes=None)


def test_figures_and_differences_stand_side_by_side(tmp_path, config):
    wide = config.with_values("model", residual_channels=64, dilation_cycle=[1, 2, 4])
    facts, text = compared(write_run(tmp_path / "narrow", config, 4.5), write_run(tmp_path / "wide", wide, 4.25))
    assert facts["names"] == ["narrow", "wide"]
    assert [run["best_loss"] for run in facts["runs"]] == [4.5, 4.25]
    assert [run["targets_per_second"] for run in facts["runs"]] == [3000, 3000]
    assert facts["losses_comparable"]
    assert facts["differences"] == {"model.dilation_cycle": [9, [1, 2, 4]], "model.residual_channels": [32, 64]}
    rows = {line.split("  ")[1]: line for line in text.splitlines() if line.startswith("  ")}
    assert rows["best held-out bits/sample"].split()[-3:] == ["4.500", "4.250", "best"]
    assert rows["trained on"].split()[-4:] == ["2:00", "h", "2:00", "h"]
    assert rows["targets/s"].split()[-2:] == ["3,000", "3,000"]
    assert rows["model.dilation_cycle"].split()[1:] == ["9", "[1,", "2,", "4]"]


def test_runs_that_do_not_compare_have_no_best_and_a_reason(tmp_path, config):
    other = config.with_values("audio", sample_rate_hz=8000)
    facts, text = compared(write_run(tmp_path / "a", config, 4.5), write_run(tmp_path / "b", other, 4.2, held_out="cc"))
    assert facts["not_comparable_because"] == [
        "they differ in audio.sample_rate_hz",
        "they were not validated on the same clips",
    ]
    assert "bits/sample do not compare: they differ in audio.sample_rate_hz" in " ".join(text.split())
    assert "4.200 best" not in text


@pytest.mark.parametrize(
    ("section", "key", "value", "why"),
    [
        ("audio", "level", "keep", "they differ in audio.level"),
        ("audio", "trim_db", 60.0, "they differ in audio.trim_db"),
        ("audio", "remove_dc", False, "they differ in audio.remove_dc"),
        ("audio", "pause_seconds", None, "they differ in audio.pause_seconds"),
        ("audio", "max_gain_db", 0.0, "they differ in audio.max_gain_db"),
        ("training", "validation_seconds", 1e-4, "they were validated on unequal parts of the same clips"),
    ],
)
def test_other_preparation_and_other_parts_of_the_clips_do_not_compare(tmp_path, config, section, key, value, why):
    other = config.with_values(section, **{key: value})
    facts, text = compared(write_run(tmp_path / "a", config, 4.5), write_run(tmp_path / "b", other, 4.2))
    assert facts["not_comparable_because"] == [why]
    assert "4.200 best" not in text


def test_limits_that_all_held_out_audio_is_within_compare(tmp_path, config):
    other = config.with_values("training", validation_seconds=None)
    facts, _ = compared(write_run(tmp_path / "a", config, 4.5), write_run(tmp_path / "b", other, 4.2))
    assert facts["losses_comparable"]


def test_bits_of_16_bit_samples_are_always_labelled(tmp_path, config):
    keys = [
        "quantization.kind=linear",
        "quantization.classes=65536",
        "model.input=scalar",
        "output.kind=logistic_mixture",
    ]
    fine = override(config, keys)
    facts, text = compared(write_run(tmp_path / "a", config, 4.5), write_run(tmp_path / "b", fine, 9.2))
    assert facts["not_comparable_because"] == [
        "they differ in quantization.kind",
        "they differ in quantization.classes",
    ]
    assert re.search(r"in classes +256 mu-law +65,536 linear\n", text)
    assert "bits/sample do not compare: they differ in quantization.kind" in " ".join(text.split())
    assert "4.500 best" not in text
    with pytest.raises(
        UsageError, match="runs of the same classes to draw, found bits/sample and bits/sample in 65,536"
    ):
        draw(compare_runs([tmp_path / "a", tmp_path / "b"]), tmp_path / "both.png")
    assert not (tmp_path / "both.png").exists()


def test_equal_configurations_are_reported_as_equal(tmp_path, config):
    run = write_run(tmp_path / "a", config, 4.5)
    facts, text = compared(run, run)
    assert facts["differences"] == {}
    assert facts["names"] == [str(run), str(run)]
    assert "the same in all" in text


def test_a_folder_of_runs_lists_their_figures(tmp_path, config):
    write_run(tmp_path / "a", config, 4.5)
    write_run(tmp_path / "b", config.with_values("data", folder="/voices"), 3.5)
    RunFolder(tmp_path / "new").create(config.to_yaml())
    RunFolder(tmp_path / "broken").create("nonsense: 1")
    facts, text = inspected(tmp_path, "runs")
    assert [run["name"] for run in facts["runs"]] == ["a", "b", "new"]
    assert [run["best_loss"] for run in facts["runs"]] == [4.5, 3.5, None]
    assert facts["runs"][1]["data"] == ["/voices"]
    assert list(facts["unreadable"]) == ["broken"]
    rows = {row[0]: " ".join(row) for row in map(str.split, text.splitlines()) if row}
    assert rows["b"] == "b 2 of 2 (100%) 3.500 bits/sample 4.000 2:00 min"
    assert rows["new"].startswith("new 0 of 2 (0%) - - ")
    with pytest.raises(UsageError, match="give the runs themselves"):
        draw(inspect_paths([str(tmp_path)]), tmp_path / "runs.png")


def test_only_runs_can_be_compared(tmp_path, config):
    run = str(write_run(tmp_path / "a", config, 4.5))
    for other in ("small", str(tmp_path), str(tmp_path / "gone"), "x\0y"):
        with pytest.raises(UsageError, match="expected a run to compare with the others, found none there"):
            inspect_paths([run, other])
    with pytest.raises(UsageError, match="--listen: expected a folder of recordings, found 2 paths"):
        inspect_paths([run, run], decode=True)
    with pytest.raises(UsageError, match=r"--listen: expected a folder of recordings, found .*a"):
        inspect_paths([run], decode=True)
