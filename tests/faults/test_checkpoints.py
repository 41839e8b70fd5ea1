"""Hostile checkpoints: refused with the reason, in bounded time and memory, and no code of theirs is run."""

import json
import os
import pickle
import random
import resource
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save
from typer.testing import CliRunner

import wavegen as library
from command_line import wavegen
from wavegen.cli import app
from wavegen.errors import WavegenError
from wavegen.runs.checkpoint import FORMAT_VERSION, _content_hash, load_checkpoint


@pytest.fixture(scope="module")
def good(home):
    return home / "run" / "checkpoints" / "best.safetensors"


def metadata_of(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"]


def forge(good, path, change):
    """A checkpoint that says something else and has the right hash: anybody can compute it."""
    tensors, document = load_file(good), json.loads(metadata_of(good)["wavegen"])
    change(tensors, document)
    text = document if isinstance(document, str) else json.dumps(document)
    path.write_bytes(save(tensors, {"wavegen": text, "sha256": _content_hash(text, tensors)}))


def refusal(path):
    """Return the error message, which comes at once and takes little memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(WavegenError) as caught:
        next(library.load(path, "cpu").stream(seconds=0.01))
    assert time.process_time() - started < 20  # the first imports much
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
    said = str(caught.value)
    assert said.isprintable()
    assert len(said) < 1000
    return said


def test_a_forged_checkpoint_without_changes_is_a_checkpoint(good, tmp_path):
    forge(good, tmp_path / "same.safetensors", lambda tensors, document: None)
    assert next(library.load(tmp_path / "same.safetensors", "cpu").stream(seconds=0.01)).shape[0] == 1


def test_cut_off_anywhere(good, tmp_path, how_many):
    content, chance = good.read_bytes(), random.Random(3)
    lengths = {
        0,
        1,
        7,
        8,
        9,
        100,
        len(content) - 1,
        *(chance.randrange(len(content)) for _ in range(how_many(100, 5000))),
    }
    path = tmp_path / "cut.safetensors"
    for length in lengths:
        path.write_bytes(content[:length])
        said = refusal(path)
        assert said.startswith(f"{path}: expected a safetensors file, found other bytes: ")


def test_a_bit_flipped_anywhere(good, tmp_path, how_many):
    """Refused; or, where it is a space of the header, without effect."""
    content, chance = good.read_bytes(), random.Random(4)
    (header,) = struct.unpack("<Q", content[:8])
    places = [chance.randrange(8 + header) for _ in range(how_many(150, 5000))]
    places += [*range(8), *(chance.randrange(len(content)) for _ in range(how_many(150, 5000)))]
    original, path, n_refused = load_checkpoint(good), tmp_path / "flipped.safetensors", 0
    for place in places:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            found = load_checkpoint(path)
        except WavegenError as error:
            n_refused += str(error).startswith(f"{path}: ")
            continue
        assert (found.config, found.step, found.manifest) == (original.config, original.step, original.manifest)
        for name, array in original.average.items():
            np.testing.assert_array_equal(array, found.average[name])
        n_refused += 1
    assert n_refused == len(places)


def drop_one(tensors, document):
    del tensors["average/" + min(name.partition("/")[2] for name in tensors if name.startswith("average/"))]


def add_one(tensors, document):
    tensors["average/more"] = np.zeros(3, np.float32)


def for_each(change):
    def changed(tensors, document):
        for name in [name for name in tensors if name.startswith("average/")]:
            tensors[name] = change(tensors[name])

    return changed


def one_value(value):
    def changed(tensors, document):
        name = max((name for name in tensors if name.startswith("average/")), key=lambda name: tensors[name].size)
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = value

    return changed


def document_with(**values):
    return lambda tensors, document: document.update(values)


def config_with(old, new):
    def changed(tensors, document):
        assert old in document["config"]
        document["config"] = document["config"].replace(old, new)

    return changed


FORGED = {
    "another version": (document_with(format_version=FORMAT_VERSION + 1), "expected checkpoint format 1, found 2 ("),
    "a version of text": (document_with(format_version="\x1b[31m" * 9), "expected checkpoint format 1, found"),
    "a huge version": (document_with(format_version=10**300), "expected checkpoint format 1, found 1000"),
    "versions of text": (document_with(versions="many"), "its metadata are not what a checkpoint has"),
    "a step of text": (document_with(step="six"), "its metadata are not what a checkpoint has"),
    "a negative step": (document_with(step=-1), "its metadata are not what a checkpoint has"),
    "a manifest of text": (document_with(manifest="all"), "its metadata are not what a checkpoint has"),
    "metrics of lists": (document_with(metrics=[1]), "its metadata are not what a checkpoint has"),
    "no configuration": (document_with(config=None), "its metadata are not what a checkpoint has"),
    "an empty configuration of text": (document_with(config="hello"), "its configuration is not valid"),
    "a configuration that calls": (document_with(config="!!python/object/apply:os.system [x]"), "found the tag"),
    "a configuration that multiplies": (document_with(config="a: &a [x]\nb: *a"), "aliases have no use"),
    "a configuration of 10 MB": (document_with(config="# \n" * 3_000_000), "its metadata are not what"),
    "a tensor missing": (drop_one, "does not fit its configuration: the checkpoint lacks"),
    "a tensor too many": (add_one, "does not fit its configuration: the checkpoint has, and the model lacks"),
    "transposed": (for_each(lambda array: np.ascontiguousarray(array.T[..., None])), "expected"),
    "flat": (for_each(lambda array: array.reshape(-1)), "expected"),
    "whole numbers": (for_each(lambda array: array.astype(np.int32)), "expected floating-point numbers"),
    "without weights": (for_each(lambda array: array[:0]), "expected"),
    "not a number": (one_value(np.nan), "not finite"),
    "infinite": (one_value(-np.inf), "not finite"),
    "another network": (config_with("cycles: 1", "cycles: 2"), "does not fit"),
    "a network of a terabyte": (config_with("residual_channels: 8", "residual_channels: 4096"), "expected"),
    "huge dilations": (config_with("dilation_cycle: 4", "dilation_cycle: 20"), "does not fit"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_checkpoint_is_refused(case, good, tmp_path):
    change, expected = FORGED[case]
    path = tmp_path / "forged.safetensors"
    forge(good, path, change)
    assert expected in refusal(path)


def header(**entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def tensor(shape, start, stop, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


HEADERS = {
    "a header of exabytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "no header": struct.pack("<Q", 0),
    "a header of lists": struct.pack("<Q", 2) + b"[]",
    "a deep header": struct.pack("<Q", 50_000) + b'{"a":' * 10_000,
    "a header of 90 MB": struct.pack("<Q", 90_000_000) + b" " * 90_000_000,
    "a tensor of a petabyte": header(a=tensor([2**20, 2**30], 0, 2**52)),
    "more numbers than there can be": header(a=tensor([2**40, 2**40], 0, 0)),
    "a negative shape": header(a=tensor([-1], 0, 4)) + bytes(4),
    "tensors that overlap": header(a=tensor([2], 0, 8), b=tensor([2], 4, 12)) + bytes(12),
    "an unknown type": header(a=tensor([1], 0, 4, "OBJECT")) + bytes(4),
    "no metadata": header(a=tensor([1], 0, 4)) + bytes(4),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies_is_refused(case, tmp_path):
    path = tmp_path / "header.safetensors"
    path.write_bytes(HEADERS[case])
    assert refusal(path).startswith(f"{path}: ")


class Malicious:
    """An object that runs code when it is unpickled, which the tests check."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def pickles():
    Path("weights.pt").unlink(missing_ok=True)
    torch.save({"model": Malicious()}, "weights.pt")
    np.save("weights.npy", np.array([Malicious()], dtype=object), allow_pickle=True)
    np.savez("weights.npz", a=np.array([Malicious()], dtype=object))
    return {
        "pickle": pickle.dumps(Malicious()),
        "torch.save": Path("weights.pt").read_bytes(),
        "numpy.save": Path("weights.npy").read_bytes(),
        "numpy.savez": Path("weights.npz").read_bytes(),
    }


def test_the_malicious_pickle_is_malicious(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Malicious()))
    assert Path("ran").exists()


ENDINGS = (".safetensors", ".pt", ".ckpt", ".wav", ".npy", ".yaml", ".png")


def commands_that_read(path, newest, home):
    """Each way in which a user can give a file to a command; ``newest`` is a checkpoint of a run."""
    run, recordings = str(home / "run"), str(home / "recordings")
    return [
        ["generate", path, "-o", "new.wav"],
        ["generate", newest, "-o", "new.wav"],
        ["generate", run, "--seconds", "0.1", "-o", "new.wav", "--mel", path],
        ["generate", run, "--seconds", "0.1", "-o", "new.wav", "--features", path],
        ["generate", run, "--seconds", "0.1", "-o", "new.wav", "--prime", path],
        ["evaluate", path, f"{recordings}/0.wav"],
        ["evaluate", run, path],
        ["inspect", path],
        ["bench", path],
        ["train", recordings, "--run", "other", "--init-from", path],
        ["train", recordings, "--run", "other", "--config", path],
    ]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["pairs", "all"])
def test_pickles_are_refused_by_every_command_and_never_run(every, home, tmp_path, monkeypatch):
    """Every pair of a kind of pickle, an ending of its name, and a command; or all three of them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "run", "run")
    newest = sorted(Path("run/checkpoints").iterdir())[-1]
    for n_kind, (kind, content) in enumerate(pickles().items()):
        newest.write_bytes(content)
        Path("run/metrics.jsonl").write_bytes(content)
        for n_ending, ending in enumerate(ENDINGS):
            path = f"renamed{ending}"
            Path(path).write_bytes(content)
            for n_command, arguments in enumerate(commands_that_read(path, str(newest), home)):
                if every or (n_ending + n_command) % 4 == n_kind:
                    result = CliRunner().invoke(app, arguments)
                    assert result.exit_code in (1, 2), (kind, arguments, result.output, result.exception)
                    assert "error: " in result.stderr, (kind, arguments, result.exception)
    assert not Path("ran").exists()
    assert not Path("new.wav").exists()
    assert not Path("other").exists()


def test_resuming_falls_back_over_a_pickle(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(home / "run", "run")
    sorted(Path("run/checkpoints").glob("step-*"))[-1].write_bytes(pickle.dumps(Malicious()))
    said = wavegen("train", "--run", "run", "--resume").stderr
    assert "expected a safetensors file" in said
    assert "done: " in said
    assert not Path("ran").exists()
