"""``wavegen export``: a model for use alone, and what can and cannot be done with it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors import safe_open

import command_line
import wavegen
from recordings import write_tones
from wavegen.errors import CheckpointError, UsageError
from wavegen.runs.checkpoint import for_use, load_checkpoint, save_checkpoint
from wavegen.runs.run_folder import RunFolder, find_checkpoint
from wavegen.sampling.engines.packing import round_to_bfloat16

TINY = [
    *("audio.sample_rate_hz=8000", "model.cycles=1", "model.dilation_cycle=4", "model.residual_channels=8"),
    *("training.steps=20", "training.batch_size=2", "training.window_targets=100", "training.audition_every=0"),
    *("training.threads=1", "training.precision=float32"),
    "data.validation=recordings/held_out.txt",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's folder with recordings and a run."""
    home = tmp_path_factory.mktemp("home")
    write_tones(home / "recordings", [200, 250, 300], rate_hz=8000, seconds=1, noise=0)
    (home / "recordings/held_out.txt").write_text("2.wav\n")
    with pytest.MonkeyPatch.context() as place:
        place.chdir(home)
        config = wavegen.load_config("small", TINY)
        wavegen.train("recordings", config, run="run", device="cpu", notice=lambda text: None)
    return home


@pytest.fixture
def call(home, monkeypatch):
    """The command line, in the user's folder."""
    monkeypatch.chdir(home)
    return command_line.wavegen


@pytest.fixture(params=["float32", "bfloat16"])
def exported(request, home, call, tmp_path):
    path = tmp_path / "model.safetensors"
    said = call("export", "run", "-o", path, "--precision", request.param).stderr
    assert said.startswith(f"written: {path}, ")
    assert said.endswith(f"KiB, averaged weights in {request.param}\n")
    return path


def tensors(path):
    with safe_open(path, framework="torch") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def content_hash(path):
    """Of all metadata and tensors; safetensors writes a file's metadata in any order."""
    with safe_open(path, framework="numpy") as file:
        return file.metadata()["sha256"]


def test_holds_the_averaged_weights_and_nothing_of_the_training(home, exported, request):
    source, found = load_checkpoint(find_checkpoint(home / "run")), tensors(exported)
    assert {name.removeprefix("average/") for name in found} == set(source.average)
    narrow = "bfloat16" in request.node.name
    assert exported.stat().st_size < (0.2 if narrow else 0.35) * find_checkpoint(home / "run").stat().st_size
    for name, array in load_checkpoint(exported).average.items():
        assert array.dtype == np.float32
        rounded = narrow and array.ndim > 1
        assert str(found[f"average/{name}"].dtype) == ("torch.bfloat16" if rounded else "torch.float32")
        assert np.array_equal(found[f"average/{name}"].float().numpy(), array)
        exact = source.average[name]
        expected = (round_to_bfloat16(exact).astype(np.uint32) << 16).view(np.float32) if rounded else exact
        assert np.array_equal(array, expected)
    content = exported.read_bytes()
    assert all(name.encode() not in content for name in (str(home), "held_out.txt", "2.wav"))


def test_is_read_as_any_checkpoint(exported, call, tmp_path):
    call("generate", exported, "--seconds", "0.1", "-o", tmp_path / "new.wav")
    assert soundfile.info(tmp_path / "new.wav").frames == 800
    again = json.loads(call("evaluate", exported, "recordings/2.wav", "--json").stdout)
    before = json.loads(call("evaluate", "run", "recordings/2.wav", "--json").stdout)
    assert again["bits_per_sample"] == pytest.approx(before["bits_per_sample"], abs=0.02)
    facts = call("inspect", exported).stdout
    assert "averaged weights alone, for inference" in facts
    assert not re.search(r"trained on +\d+ clip", facts)
    assert json.loads(call("inspect", exported, "--json").stdout)["for_use_only"]


def test_a_float32_export_is_the_model_itself(call, home, tmp_path):
    call("export", "run", "-o", tmp_path / "model.safetensors")
    exported, model = (wavegen.load(path, device="cpu") for path in (tmp_path / "model.safetensors", home / "run"))
    np.testing.assert_array_equal(exported.generate(0.1, seed=3), model.generate(0.1, seed=3))
    call("export", tmp_path / "model.safetensors", "-o", tmp_path / "again.safetensors")
    assert content_hash(tmp_path / "again.safetensors") == content_hash(tmp_path / "model.safetensors")


def test_weight_normalization_is_folded(call, tmp_path):
    source = Path(__file__).parent / "data/format_1/weight_norm.safetensors"
    call("export", source, "-o", tmp_path / "model.safetensors")
    exported, trained = wavegen.load(tmp_path / "model.safetensors", "cpu"), wavegen.load(source, "cpu")
    assert not exported.config.model.weight_norm
    assert not [name for name in exported.checkpoint.average if name.endswith((".direction", ".gain"))]
    np.testing.assert_array_equal(exported.generate(0.02, seed=1), trained.generate(0.02, seed=1))


def test_a_training_starts_from_it(exported, call, tmp_path):
    overrides = [part for key in TINY for part in ("--set", key)]
    start = ["train", "recordings", "--run", tmp_path / "tuned", "--init-from", exported, "--steps", "2", *overrides]
    said = call(*start).stderr
    assert "fresh:" not in said
    n = len(load_checkpoint(exported).average)
    assert f"initialized {n} of {n} tensors from {exported}" in said


def test_nothing_is_resumed_from_it(exported, call, home, tmp_path):
    said = call("train", "--run", exported, "--resume", exit_code=2).stderr
    assert said == (
        f"error: {exported}: expected a run folder to resume, found a file; "
        f"start a new run from it: wavegen train DIR --init-from {exported}\n"
    )
    within = tmp_path / "run/checkpoints/step-00000020.safetensors"
    within.parent.mkdir(parents=True)
    within.write_bytes(exported.read_bytes())
    said = call("train", "--run", tmp_path / "run", "--resume", exit_code=2).stderr
    assert said.startswith(f"error: {within}: exported for inference, no training resumes from it; start a new run")
    assert said.count("\n") == 1


def test_it_knows_no_held_out_clips(exported, call):
    said = call("evaluate", exported, exit_code=2).stderr
    assert said == "error: an exported model has no list of its training and held-out clips; give files\n"
    said = call("evaluate", exported, "recordings/2.wav").stderr
    assert "no trivial baselines: an exported model does not know the training's recordings" in said


def test_a_model_of_series_forecasts_as_before(tmp_path, call, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = ["--steps", "3", "--set", "series.points=20", "--set", "output.horizon=3"]
    call("train", "--config", "book-simple", "--run", "series", *few)
    call("export", "series", "-o", "series.safetensors")
    values = np.sin(np.arange(50) / 3)
    exported, model = (wavegen.load(path, device="cpu") for path in ("series.safetensors", "series"))
    np.testing.assert_array_equal(exported.forecast(values), model.forecast(values))
    said = call("evaluate", "series.safetensors", exit_code=2).stderr
    assert said == "error: an exported model has no list of its training and held-out clips; give files\n"
    call("inspect", "series.safetensors")


def test_a_flipped_bit_is_noticed(exported):
    content = exported.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    for position in np.random.default_rng(4).integers(0, 8 * len(content), 200):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        exported.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"^{exported}: "):
            load_checkpoint(exported)
    for of_type in (b'"U16"', b'"I16"', b'"F16"'):
        if b'"BF16"' in content:
            exported.write_bytes(content[:header].replace(b'"BF16"', of_type + b" ") + content[header:])
            with pytest.raises(CheckpointError, match="damaged"):
                load_checkpoint(exported)


def test_no_file_is_overwritten_without_the_option(call, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"precious")
    said = call("export", "run", "-o", path, exit_code=2).stderr
    assert said == f"error: {path}: already exists; give another name, or --overwrite to replace it\n"
    assert path.read_bytes() == b"precious"
    call("export", "run", "-o", path, "--overwrite")
    assert load_checkpoint(path).is_for_use_only


def test_a_disk_that_is_full_leaves_what_was_there(call, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"precious")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    said = call("export", "run", "-o", path, "--overwrite", exit_code=1).stderr
    assert said.startswith(f"error: {path}: cannot be written: No space left on device; free some space")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"precious"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "-o", "model.bin"], "model.bin: expected a name that ends in .safetensors or .onnx"),
        (
            ["run", "-o", "m.safetensors", "--precision", "int8"],
            "--precision: expected one of float32, bfloat16, found",
        ),
        (["run", "-o", "m\x1b[31m.bin"], r"m\x1b[31m.bin: expected a name that ends in .safetensors or .onnx"),
        (["nowhere", "-o", "m.safetensors"], "nowhere: expected a run folder or a checkpoint, found nothing"),
    ],
)
def test_a_wrong_call_gets_one_line(call, home, arguments, text):
    said = call("export", *arguments, exit_code=2).stderr
    assert said.startswith(f"error: {text}")
    assert said.count("\n") == 1
    assert not list(home.glob("m*.*"))


def test_an_average_of_another_type_is_narrowed_too(home, tmp_path):
    source = load_checkpoint(find_checkpoint(home / "run"))
    source.average = {name: array.astype(np.float64) for name, array in source.average.items()}
    save_checkpoint(for_use(source, "bfloat16"), tmp_path / "m.safetensors")
    assert load_checkpoint(tmp_path / "m.safetensors").average["input.weight"].dtype == np.float32


def test_a_run_whose_newest_checkpoint_is_whole_is_resumed_as_before(home):
    assert RunFolder(home / "run").load_newest()[0].step == 20
    with pytest.raises(UsageError, match="expected a run folder to resume, found a file"):
        RunFolder(find_checkpoint(home / "run")).load_newest()
