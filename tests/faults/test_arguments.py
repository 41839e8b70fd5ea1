"""Every option of every command with values that it cannot take: exit code 2, the reason, and nothing made."""

import os
import select
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from command_line import COMMAND, Process, run_alone, wait_until
from wavegen.cli import app

LONG_TEXT = "x" * 5000
NUMBERS = ["", "eight", "1e", "0x10", "-", "1,5", "\N{SNOWMAN}", LONG_TEXT]
WHOLE = [*NUMBERS, "1.5", "nan", "inf", "-1", str(10**30), "9" * 5000]
PLACES = ["", "nowhere", "no/where", LONG_TEXT, "line\nbreak", "\x1b[31m"]
TARGETS = ["", "nowhere/a", LONG_TEXT, "a", "a.txt", "folder", "."]
DEVICES = ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:x", "cuda:1000", "cuda:" + "9" * 30, LONG_TEXT]

# For each command, what each option and argument refuses. A flag's value is what it contradicts.
REFUSED = {
    "train": {
        "sources": [*PLACES, "run", "tiny.yaml"],
        "config": [*PLACES, "folder", "smal", "recordings"],
        "overrides": [
            *("", "=", "model", "model.", ".cycles=1", "model.cycles", "a.b=1", "model.cycles.x=1", LONG_TEXT),
            *("model.cycles=", "model.cycles=-1", "model.cycles=[", "model.cycles=!!python/name:os.system", "model=1"),
            *("training.steps=1e400", "training.steps=" + "9" * 5000, "data.validation=1.5", "model.cycles=\0"),
            *(f"training.learning_rate={number}" for number in ("0", "-1", ".nan", ".inf", "1e400", "true")),
            *("model.dilation_cycle=" + "[" * 5000, "model.dilation_cycle=[0]", "model.kernel_size=1e9"),
        ],
        "run": ["a-file", "a-file/run", "recordings", "x" * 300, LONG_TEXT],
        "steps": [*WHOLE, "0", str(10**9 + 1)],
        "minutes": [*NUMBERS, "0", "-1", "nan", "inf", "1e300"],
        "seed": [*WHOLE, str(2**63)],
        "device": DEVICES,
        "resume": [["--run", "nowhere"], ["--run", "folder"], ["--init-from", "run"], []],
        "accept_changes": [["--run", "nowhere", "--resume"]],
        "plan": [["--resume"]],
        "init_from": ["", "nowhere", "folder", LONG_TEXT],
        "devices": [*WHOLE, "0", "1025"],
    },
    "generate": {
        "source": [*PLACES, "folder"],
        "output": [*TARGETS, "existing.wav", "run", "a.mp3", "a.wav/b.wav"],
        "seconds": [*NUMBERS, "0", "-1", "nan", "-inf", "1e300", "1e-9"],
        "count": [*WHOLE, "0", "501"],
        "temperature": [*NUMBERS, "-1", "nan", "inf", "-inf"],
        "top_k": [*WHOLE, "0"],
        "top_p": [*NUMBERS, "0", "-1", "1.5", "nan", "inf"],
        "seed": [*WHOLE, str(2**64)],
        "best_of": [*WHOLE, "0", "1025"],
        "prime": PLACES,
        "steps": [*WHOLE, "0", "-1", "5"],
        "with_prime": [[]],
        "label": ["a", "", "a=1", LONG_TEXT],
        "one_shot": [["--best-of", "2"], ["--seconds", "inf"], ["--prime", "recordings/0.wav"]],
        "mel_from": [*PLACES, "recordings/0.wav"],
        "mel": [*PLACES, "frames.npy", "a-file"],
        "features": [*PLACES, "frames.npy", "a-file"],
        "engine": ["", "warp", "NUMBA", LONG_TEXT],
        "precision": ["", "int4", "float64", LONG_TEXT],
        "threads": [*WHOLE, "0", "1025"],
        "device": DEVICES,
        "overwrite": [["-o", "folder"], ["-o", "nowhere/a.wav"]],
    },
    "evaluate": {
        "source": [*PLACES, "folder"],
        "audio": ["nowhere.wav", "", LONG_TEXT],
        "label": ["a", ""],
        "summary": [["--nothing"]],
        "test": [[]],
        "samples": [["--summary"], ["--csv", "-"], ["--test"], ["--clips", "0"], ["--device", "gpu"]],
        "clips": [*WHOLE, "0", "501"],
        "seconds": [*NUMBERS, "0", "-1", "nan", "inf", "-inf", "1e300", "1e-9"],
        "recordings": ["nowhere", "", LONG_TEXT],
        "one_shot": [["--summary"], []],
        "seed": [*WHOLE, str(2**64)],
        "device": DEVICES,
        "as_json": [["--device", "gpu"], ["--csv", "-"]],
        "csv": [*TARGETS, "existing.csv", "run", "a.json"],
        "plot": [*TARGETS, "existing.png", "run", "a.json"],
        "overwrite": [["--csv", "folder"], ["--csv", "nowhere/a.csv"]],
    },
    "forecast": {
        "source": [*PLACES, "folder"],
        "series": ["nowhere.csv", "", LONG_TEXT, "recordings/0.wav"],
        "output": [*TARGETS, "a.json", "run"],
        "hold_back": [*WHOLE, "-1", "1000000"],
        "plot": [*TARGETS, "existing.png", "a.json", "run"],
        "steps": [*WHOLE, "0"],
        "device": DEVICES,
        "overwrite": [["-o", "folder"]],
    },
    "inspect": {
        "paths": [*PLACES, "smal"],
        "listen": [["run"], ["small"], ["nowhere"]],
        "as_json": [["nowhere"]],
        "plot": [*TARGETS, "existing.png", "a.jpg", "run"],
        "overwrite": [["run.png", "--plot", "folder"]],
    },
    "report": {
        "run": [*PLACES, "folder", "smal", "recordings/0.wav"],
        "output": [*TARGETS, "a.png", "run"],
        "temperatures": [*(text for text in NUMBERS if text != "1,5"), "-1", "nan", "inf", "1,", ",", "1,,2"],
        "sample_seconds": [*NUMBERS, "-1", "nan", "inf", "1e300"],
        "overwrite": [["-o", "folder"]],
    },
    "cache": {
        "folder": ["", "nowhere", "small", "recordings/0.wav", LONG_TEXT],
        "free": [[], ["nowhere"], ["recordings/0.wav"], ["small"]],
    },
    "bench": {
        "source": PLACES,
        "config": [*PLACES, "folder", "smal"],
        "overrides": ["", "model.cycles=-1", LONG_TEXT],
        "device": DEVICES,
        "as_json": [["--config", "smal"]],
    },
    "export": {
        "source": [*PLACES, "folder"],
        "output": [*TARGETS, "run", "a.wav", "a.pt", "folder/a"],
        "precision": ["", "int8", "float64", LONG_TEXT],
        "overwrite": [["-o", "folder"], ["-o", "nowhere/a.safetensors"]],
    },
    "config": {
        "preset": [*PLACES, "smal", "../configs/small", "/etc/passwd"],
        "schema": [["small"]],
    },
}
USUAL = {  # what else it takes to get as far as the option
    "train": {"sources": "recordings", "--config": "tiny.yaml", "--run": "new"},
    "generate": {"source": "run", "--output": "new.wav", "--seconds": "0.1"},
    "evaluate": {"source": "run"},
    "forecast": {"source": "run", "series": "series.csv"},
    "inspect": {"paths": "run"},
    "report": {"run": "run", "--output": "new.html"},
    "cache": {},
    "bench": {},
    "export": {"source": "run", "--output": "new.safetensors"},
    "config": {},
}
NEEDS = {
    ("evaluate", "label"): ["recordings/0.wav"],
    **{("evaluate", name): ["--samples"] for name in ("clips", "seconds", "seed", "plot", "recordings")},
}
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(scope="module")
def place(home, tmp_path_factory):
    """A user's folder; made once, and looked at after each call."""
    place = tmp_path_factory.mktemp("place")
    for name in ("recordings", "run", "tiny.yaml"):
        (place / name).symlink_to(home / name)
    (place / "folder").mkdir()
    for name in ("a-file", "existing.wav", "existing.png", "existing.csv"):
        (place / name).write_bytes(b"precious")
    np.save(place / "frames.npy", np.zeros((3, 4), np.float32))
    return place


def listing(place):
    return {str(path.relative_to(place)): path.stat().st_mtime_ns for path in place.rglob("*")}


def as_option(parameter):
    return "" if parameter.param_type_name == "argument" else max(parameter.opts, key=len)


def call(command, parameter, value):
    """Build a call of the command with one option or argument replaced."""
    option = as_option(parameter)
    usual = {name: text for name, text in USUAL[command].items() if name != (option or parameter.name)}
    if isinstance(value, list):  # a flag, and what it contradicts
        named = [text for text in value if not text.startswith("-")]
        if value and (len(named) == len(value) or "--run" in value):
            usual = {name: text for name, text in usual.items() if name.startswith("-") and name not in value}
        if parameter.name in ("resume", "accept_changes"):
            usual = {}
        given = [option, *value]
    else:
        given = [option, value] if option else ["--", value]
    rest = [part for name, text in usual.items() for part in ([name, text] if name.startswith("-") else [text])]
    more = NEEDS.get((command, parameter.name), [])
    return [command, *rest, *more, *given]


def test_no_option_is_forgotten():
    for name, command in COMMANDS.items():
        known = {parameter.name for parameter in command.params if parameter.name != "help"}
        assert set(REFUSED[name]) == known, name
    assert set(REFUSED) == set(COMMANDS)


CASES = [
    pytest.param(name, parameter, id=f"{name}-{parameter.name}")
    for name, command in COMMANDS.items()
    for parameter in command.params
    if parameter.name in REFUSED[name]
]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("command", "parameter"), CASES)
def test_a_value_that_cannot_be_is_refused_with_the_reason(command, parameter, place, monkeypatch):
    monkeypatch.chdir(place)
    before = listing(place)
    wrong = []
    for value in REFUSED[command][parameter.name]:
        arguments = call(command, parameter, value)
        started = time.process_time()
        result = CliRunner().invoke(app, arguments)
        seconds = time.process_time() - started
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.lower().startswith("error: ")]
        if not (result.exit_code == 2 and said and seconds < 20):
            shown = [text if len(text) < 60 else f"{text[:57]}..." for text in arguments]
            wrong.append(f"{shown}: {result.exit_code}, {seconds:.1f} s, {lines[-1:]} {result.exception!r}"[:600])
        elif "\x1b" in result.stderr:
            wrong.append(f"{arguments}: writes control characters to the terminal")
        elif listing(place) != before:
            wrong.append(f"{arguments}: made or changed {set(listing(place).items()) ^ set(before.items())}")
            before = listing(place)
    assert not wrong, "\n".join(wrong)


MISSING = [
    ["train"],
    ["train", "recordings", "--config"],
    ["train", "recordings", "elsewhere"],
    ["train", "recordings", "--steps"],
    ["train", "recordings", "--resume=yes"],
    ["train", "--run", "run"],
    ["train", "recordings", "--run", "run"],
    ["generate"],
    ["generate", "run", "-o"],
    ["generate", "run", "run"],
    ["generate", "run", "--mel", "frames.npy", "--mel-from", "recordings/0.wav"],
    ["generate", "run", "--mel", "frames.npy", "--features", "frames.npy"],
    ["generate", "run", "--count", "2", "-o", "-"],
    ["generate", "run", "--best-of", "2", "--seconds", "inf"],
    ["generate", "run", "--best-of", "1024", "--seconds", "1000"],
    ["generate", "run", "--engine", "torch", "--threads", "2"],
    ["generate", "run", "--engine", "torch", "--precision", "int8"],
    *(["evaluate", "run", *only] for only in (["--clips", "2"], ["--seconds", "1"], ["--seed", "1"], ["--one-shot"])),
    ["evaluate", "run", "recordings/0.wav", "--samples", "--clips", "2"],
    ["evaluate", "run", "nowhere", "--samples"],
    ["evaluate"],
    ["inspect"],
    ["inspect", "run", "recordings"],
    ["inspect", "run", "--html", "new.html"],
    ["report"],
    ["report", "run", "run"],
    ["cache", "--free"],
    ["bench", "run", "--config", "small"],
    ["bench", "run", "--set", "model.cycles=1"],
    ["config", "small", "--schema"],
    ["config", "small", "paper"],
    ["fly"],
    ["--nothing"],
    *([name, "--nothing"] for name in COMMANDS),
]


@pytest.mark.parametrize("arguments", MISSING, ids=" ".join)
def test_what_is_missing_too_much_or_contradictory_is_refused(arguments, place, monkeypatch):
    monkeypatch.chdir(place)
    before = listing(place)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.stderr
    assert "error: " in result.stderr.lower()
    assert listing(place) == before


# --- where the output goes ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_is_waited_for_and_a_closed_one_ends_it_quietly(place, blocking):
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    with Process("generate", "run", "--seconds", "inf", "-o", "-", cwd=place, stdout=writer) as process:
        assert os.read(reader, 44)[:4] == b"RIFF"
        wait_until(lambda: not select.select([], [writer], [], 0)[1], 30)  # nobody reads, it fills up
        time.sleep(0.2)
        assert process.poll() is None
        os.close(writer)
        os.close(reader)
        assert process.wait() == 0
        said = process.words()[1]
    assert "Traceback" not in said
    assert "error" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [["config"], ["config", "small"], ["inspect", "run"], ["--help"], ["evaluate", "run"]]
)
def test_words_onto_a_full_disk_are_an_error(place, arguments):
    with Path("/dev/full").open("w") as full:
        done = run_alone(*arguments, cwd=place, stdout=full, exit_code=1)
    assert done.stderr.splitlines()[-1] == "error: No space left on device"


def start_interpreter(arguments, *, cwd, stdout, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


BUFFERED = pytest.mark.parametrize("unbuffered", ["1", ""])


@BUFFERED
def test_an_interpreter_that_ends_reports_a_full_disk_once(unbuffered, place):
    """Python flushes its streams once more when it ends."""
    with Path("/dev/full").open("w") as full:
        done = start_interpreter(["config"], cwd=place, stdout=full, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


@pytest.mark.parametrize("arguments", [["config", "small"], ["inspect", "run"], ["inspect", "run", "--json"]])
def test_words_into_a_closed_pipe_end_quietly(place, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = run_alone(*arguments, cwd=place, stdout=writer)
    os.close(writer)
    assert done.stderr == ""


@BUFFERED
def test_the_interpreter_exits_quietly_after_a_closed_pipe(unbuffered, place):
    reader, writer = os.pipe()
    os.close(reader)
    done = start_interpreter(["config"], cwd=place, stdout=writer, unbuffered=unbuffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_existing_files_stay_as_they_are(place, monkeypatch):
    monkeypatch.chdir(place)
    before = (place / "existing.wav").read_bytes()
    for arguments in (["-o", "existing.wav"], ["-o", "existing.wav", "--engine", "warp", "--overwrite"]):
        assert CliRunner().invoke(app, ["generate", "run", "--seconds", "0.1", *arguments]).exit_code == 2
        assert (place / "existing.wav").read_bytes() == before
