import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from command_line import PROGRAMS
from wavegen import __version__
from wavegen.config import Config, parse_config
from wavegen.errors import CheckpointError
from wavegen.runs import checkpoint as module
from wavegen.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def arrays(seed, step=0):
    rng = np.random.default_rng(seed)
    return {
        "input.weight": rng.standard_normal((16, 4)).astype(np.float32) + step,
        "blocks.0.conv.weight": rng.standard_normal((2, 6, 4)).astype(np.float32),
        "output.bias": rng.standard_normal(5),
    }


def checkpoint(step=7, config=None):
    return Checkpoint(
        config=config or Config(),
        step=step,
        weights=arrays(1, step),
        average=arrays(2),
        moments=(arrays(3), arrays(4)),
        manifest=[
            {"name": "caf\u00e9/\U0001f3b5.wav", "n_samples": 12, "hash": "3f09", "split": "train", "label": "b"},
            {"name": "x.wav", "n_samples": 3, "hash": "77", "split": "validation", "label": "a"},
            {"name": "y.wav", "n_samples": 3, "hash": "78", "split": "train", "label": None},
        ],
        metrics={"bits": 3.25, "best": None, "skipped": 0, "rate": 1e-9},
        versions={"torch": "2.9"},
    )


def same_arrays(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert np.array_equal(a[name], b[name])


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert caught.value.exit_code == 1
    return text.removeprefix(f"{path}: ")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.safetensors"
    save_checkpoint(checkpoint(), path)
    return path


def rewrite(path, document=None, **metadata):
    """Change what a checkpoint's metadata say, with the hash that a careful forger would put there."""
    tensors = load_file(path)
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
    text = header["wavegen"] if document is None else document(header["wavegen"])
    save_file(tensors, path, {"wavegen": text, "sha256": module._content_hash(text, tensors), **metadata})


def edit(**values):
    return lambda text: json.dumps({**json.loads(text), **values})


# --- round trips -------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(saved):
    written, read = checkpoint(), load_checkpoint(saved)
    for name in ("config", "step", "manifest", "metrics"):
        assert getattr(read, name) == getattr(written, name)
    assert read.versions == {"wavegen": __version__, "torch": "2.9"}
    for ours, theirs in zip(
        (read.weights, read.average, *read.moments), (written.weights, written.average, *written.moments), strict=True
    ):
        same_arrays(ours, theirs)


@pytest.mark.parametrize(
    "text",
    [
        "training: {gradient_clip: .inf, learning_rate: 1e-7}",
        "training: {minutes: 3, precision: bfloat16, threads: 2, seed: 9223372036854775807}",
        "model: {dilation_cycle: [1, 3, 5]}",
        *(f'data: {{folder: "{name}"}}' for name in ("caf\\u00e9", "\\U0001F3B5", "on", "1e-3", "\\x07", "\\uDCE9")),
    ],
)
def test_every_valid_configuration_comes_back(text, tmp_path):
    config = parse_config(text, "test")
    save_checkpoint(checkpoint(config=config), tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").config == config


def test_a_file_name_that_is_no_unicode_is_kept(tmp_path):
    """Recordings from an old disk: Python reads the byte 0xE9 of a Latin-1 file name as a lone surrogate."""
    written = checkpoint()
    written.manifest[0]["name"] = os.fsdecode(b"caf\xe9.wav")
    save_checkpoint(written, tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").manifest == written.manifest


def test_arrays_of_any_layout_are_saved_as_they_are(tmp_path):
    written = checkpoint()
    written.weights = {
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "strided": np.arange(10, dtype=np.float32)[::2],
        "empty": np.empty((0, 3), dtype=np.float32),
    }
    save_checkpoint(written, tmp_path / "c.safetensors")
    same_arrays(load_checkpoint(tmp_path / "c.safetensors").weights, written.weights)


def test_a_checkpoint_for_use_alone_needs_no_moments(tmp_path):
    save_checkpoint(Checkpoint(Config(), 3, arrays(1), arrays(2)), tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").moments == ({}, {})


def test_a_checkpoint_loaded_and_saved_again_names_the_wavegen_that_saved_it(saved, monkeypatch):
    monkeypatch.setattr(module, "__version__", "99.0")
    save_checkpoint(load_checkpoint(saved), saved)
    assert load_checkpoint(saved).versions["wavegen"] == "99.0"


def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.safetensors"
    save_checkpoint(checkpoint(), path)
    assert load_checkpoint(path).step == 7


def test_loading_needs_no_torch(saved):
    program = (
        "import sys; from pathlib import Path; from wavegen.runs.checkpoint import load_checkpoint; "
        "load_checkpoint(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, saved], check=True)


# --- damage ------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_is_noticed_wherever_it_is(saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(5)
    header = 8 + int.from_bytes(content[:8], "little")
    positions = [*range(8 * 8), *rng.integers(64, 8 * header, 300), *rng.integers(8 * header, 8 * len(content), 300)]
    for position in map(int, positions):
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        saved.write_bytes(damaged)
        refused(saved)
    saved.write_bytes(content)
    assert load_checkpoint(saved).step == 7


def test_a_file_cut_short_is_refused(saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(6)
    for length in [0, 1, 7, 8, 9, 100, len(content) - 1, *rng.integers(0, len(content), 100)]:
        saved.write_bytes(content[:length])
        assert refused(saved).startswith("expected a safetensors file, found other bytes")
    saved.write_bytes(content + b"\0")
    refused(saved)


def test_changed_metadata_are_noticed_by_the_hash(saved):
    content = saved.read_bytes()
    assert content.count(b'\\"step\\": 7') == 1
    saved.write_bytes(content.replace(b'\\"step\\": 7', b'\\"step\\": 8'))
    assert refused(saved) == "damaged: its content does not match its hash; use another checkpoint"


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 200_000_000])
def test_a_huge_header_length_is_refused(saved, length):
    content = saved.read_bytes()
    saved.write_bytes(length.to_bytes(8, "little") + content[8:])
    assert refused(saved).startswith("expected a safetensors file")


# --- what is not a checkpoint ------------------------------------------------------------------------------------


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("wrap", ["pickle", "torch", "old torch"])
def test_a_renamed_pickle_is_refused_and_not_run(tmp_path, wrap):
    owned, path = tmp_path / "owned", tmp_path / "model.safetensors"
    if wrap == "pickle":
        path.write_bytes(pickle.dumps(Malicious(owned)))
        pickle.loads(path.read_bytes())
    else:
        import torch

        torch.save(Malicious(owned), path, _use_new_zipfile_serialization=wrap == "torch")
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    assert owned.exists(), "the trap works"
    owned.unlink()
    assert refused(path).startswith("expected a safetensors file")
    assert not owned.exists()


@pytest.mark.parametrize(
    "content", [b"RIFF....WAVEfmt ", b"{}", b"model:\n  cycles: 3\n" * 9, b"\0" * 64, b"\xff" * 64]
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    assert refused(path).startswith("expected a safetensors file, found other bytes")


def test_a_path_without_a_file_is_refused(tmp_path):
    assert refused(tmp_path / "none.safetensors") == "expected a checkpoint, found nothing"
    assert refused(tmp_path) == "expected a checkpoint, found a folder"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_foreign_safetensors_are_refused(tmp_path, metadata, dtype):
    import torch
    from safetensors.torch import save_file as save_torch_file

    path = tmp_path / "foreign.safetensors"
    save_torch_file({"layer.weight": torch.ones(3, 4).to(getattr(torch, dtype))}, path, metadata)
    assert refused(path) == "a safetensors file, but not a checkpoint of wavegen"


def test_another_format_version_is_refused(saved):
    rewrite(saved, edit(format_version=2, versions={"wavegen": "9.1"}))
    assert refused(saved) == "expected checkpoint format 1, found 2 (written by wavegen 9.1); use a matching wavegen"


def test_a_configuration_that_is_not_valid_is_named(saved):
    rewrite(saved, edit(config="model: {cycles: 0}"))
    assert "its configuration is not valid: " in (text := refused(saved))
    assert "model.cycles: expected a whole number from 1 to 20, found 0" in text


@pytest.mark.parametrize(
    "document",
    [
        lambda text: text[:-5],
        lambda text: "[]",
        lambda text: "[" * 100_000,
        lambda text: '{"format_version": 1}',
        edit(config=None),
        edit(step="many"),
        edit(manifest=5),
    ],
    ids=["cut", "list", "nested", "empty", "config", "step", "manifest"],
)
def test_a_document_of_the_wrong_shape_is_refused_though_its_hash_is_right(saved, document):
    rewrite(saved, document)
    refused(saved)


# --- saving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace", "fdopen"])
def test_a_save_that_fails_leaves_the_old_file_alone(saved, monkeypatch, call):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path if call == "replace" else os, call, full)
    with pytest.raises(CheckpointError, match="cannot be written: No space left on device; free some space"):
        save_checkpoint(checkpoint(step=8), saved)
    monkeypatch.undo()
    assert load_checkpoint(saved).step == 7
    assert list(saved.parent.iterdir()) == [saved]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written: "):
        save_checkpoint(checkpoint(), tmp_path / "file" / "c.safetensors")


def test_ctrl_c_in_a_save_leaves_the_old_file_alone(saved, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(checkpoint(step=8), saved)
    monkeypatch.undo()
    assert load_checkpoint(saved).step == 7
    assert list(saved.parent.iterdir()) == [saved]


def saves(path, first, deadly="never 0"):
    return subprocess.Popen(
        [sys.executable, PROGRAMS / "save_checkpoints.py", path, str(first), deadly], stdout=subprocess.PIPE, text=True
    )


def whole(path):
    """The step of a checkpoint that is all of one piece."""
    read = load_checkpoint(path)
    assert (read.weights["w"] == read.step).all()
    assert (read.average["w"] == read.step).all()
    return read.step


@pytest.mark.parametrize(
    ("deadly", "expected"),
    [("fsync 1", 7), ("replace 1", 7), ("fsync 2", 100)],
    ids=["before the content is safe", "before the rename", "after the rename"],
)
def test_a_save_killed_at_its_worst_moments_leaves_the_old_file_or_the_new(tmp_path, deadly, expected):
    path = tmp_path / "c.safetensors"
    weights = {"w": np.full(5, 7, dtype=np.float32)}
    save_checkpoint(Checkpoint(Config(), 7, weights, weights), path)
    with saves(path, 100, deadly) as process:
        assert process.wait(timeout=300) == -signal.SIGKILL
    assert whole(path) == expected


def test_saves_killed_at_any_moment_leave_the_old_file_or_the_new(tmp_path):
    """Five processes that do nothing but save are killed at random times (seed 8)."""
    path = tmp_path / "c.safetensors"
    rng = np.random.default_rng(8)
    first = 1
    for _ in range(5):
        with saves(path, first) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
            told = [first, *map(int, process.stdout.read().split())]
        assert whole(path) in (told[-1], told[-1] + 1)
        first = told[-1] + 10
