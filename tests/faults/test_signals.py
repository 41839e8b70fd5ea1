"""kill -9, SIGTERM and Ctrl-C at random moments of every command and in each phase of a training.

Files are whole or absent, there is no traceback, exit codes are those of the signals, and what is resumed ends as if
undisturbed.
"""

import functools
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import Process, run_alone
from trainings import assert_same_state, newest
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder

# A file that a signal interrupts between its opening and its name is closed by Python, with a warning that users do
# not see.
INTERPRETER = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning"]
SIGNALS = {signal.SIGKILL: 137, signal.SIGTERM: 143, signal.SIGINT: 130}


class Place:
    """A folder in which commands run one after another, with a cache of its own."""

    def __init__(self, path):
        self.path = path
        self.cache = {"WAVEGEN_CACHE": str(path / "cache")}

    def start(self, arguments, **how):
        """Start a command; it handles signals by now."""
        return Process(*arguments, cwd=self.path, **how, **self.cache)

    def run(self, arguments):
        run_alone(*arguments, cwd=self.path, **self.cache)

    def tidy(self):
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif not path.is_symlink():
                path.unlink()


@pytest.fixture(scope="module")
def place(home, tmp_path_factory):
    path = tmp_path_factory.mktemp("place")
    for name in ("recordings", "run", "tiny.yaml"):
        (path / name).symlink_to(home / name)
    return Place(path)


def check_words(said, number, exit_code):
    assert exit_code in (0, -number if number == signal.SIGKILL else SIGNALS[number]), said
    assert not re.search("Traceback|Exception ignored|terminate called|Error", said), said
    assert number == signal.SIGKILL or exit_code == 0 or "stopped" in said


# --- at any moment -----------------------------------------------------------------------------------------------

COMMANDS = {
    "caching and training": ["train", "recordings", "--config", "tiny.yaml", "--run", "new"],
    "resuming": ["train", "--run", "more", "--resume", "--steps", "12"],
    "generating": ["generate", "run", "--seconds", "inf", "-o", "new.wav"],
    "generating flac": ["generate", "run", "--seconds", "2000", "--count", "2", "-o", "new.flac"],
    "scoring": ["evaluate", "run", "recordings", "--csv", "new.csv"],
    "exporting": ["export", "run", "-o", "new.safetensors"],
    "exporting a step": ["export", "run", "-o", "new.onnx"],
    "measuring": ["bench", "--config", "tiny.yaml"],
    "a page": ["report", "run", "-o", "new.html", "--sample-seconds", "1"],
    "a picture": ["inspect", "recordings", "--listen", "--plot", "new.png"],
}
LONG_SECONDS = 0.7  # enough for commands that have no end, or a far one


@pytest.fixture(scope="module")
def seconds(place, home):
    """Measure the time of an undisturbed command, from the point where it handles signals."""

    @functools.cache
    def measured(what):
        if what.startswith(("generating", "measuring")):
            return LONG_SECONDS
        prepare(place, home)
        with place.start(COMMANDS[what], slow_disk=True) as process:
            started = time.monotonic()
            assert process.wait() == 0, process.words()
            return time.monotonic() - started

    return measured


def prepare(place, home):
    """A run to resume, and nothing else: no clip is cached yet."""
    place.tidy()
    shutil.copytree(home / "run", place.path / "more")


def check_files(place, number):
    """Whatever has the name of a result is one."""
    for path in place.rglob("*"):
        if path.suffix == ".safetensors":
            load_checkpoint(path)
        elif path.suffix == ".wav" and path.stat().st_size:  # a kill -9 may come between its making and its header
            assert soundfile.info(path).samplerate == 4000
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.suffix == ".png":
            assert path.read_bytes().endswith(b"IEND\xae\x42\x60\x82")
        elif path.suffix == ".tmp":
            assert number == signal.SIGKILL, path


def check_runs(place):
    """Each run has the steps up to its newest checkpoint, once each."""
    for run in (RunFolder(place.path / "new"), RunFolder(place.path / "more")):
        if not run.step_checkpoints():  # there is nothing to resume yet
            continue
        checkpoint = newest(run.path)
        steps = [entry["step"] for entry in run.metrics() if "train_loss" in entry]
        assert steps[: checkpoint.step] == list(range(1, checkpoint.step + 1))
        assert all(np.isfinite(array).all() for array in checkpoint.average.values())


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("what", COMMANDS)
def test_a_signal_at_any_moment(what, number, place, home, seconds, how_many):
    chance = random.Random(f"{what} {number} {os.environ.get('WAVEGEN_SEED', 1)}")
    lasts, n_stopped, n_times = seconds(what), 0, how_many(1, 90)
    for i in range(20 * n_times):
        if i >= n_times and n_stopped > n_times // 4:  # else most signals came when all was done: some more
            break
        prepare(place, home)
        with place.start(COMMANDS[what], slow_disk=True) as process:
            time.sleep(lasts * chance.random())
            process.send_signal(number)
            exit_code = process.wait()
            check_words(process.words()[1], number, exit_code)
        n_stopped += exit_code != 0
        check_files(place.path, number)
        check_runs(place)
    assert n_stopped > n_times // 4


# --- while an interpreter starts ---------------------------------------------------------------------------------


def handles_signals(process):
    """Return whether a process handles SIGTERM, the last signal for which it installs a handler."""
    caught = Path(f"/proc/{process}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what == "scoring" else pytest.mark.slow) for what in COMMANDS]
)
def test_a_signal_to_a_new_interpreter(what, number, place, home, how_many, tmp_path):
    """It comes most likely while modules are imported."""
    chance = random.Random(f"new {what} {number} {os.environ.get('WAVEGEN_SEED', 1)}")
    for _ in range(how_many(1, 10)):
        prepare(place, home)
        command = [*INTERPRETER, "-m", "wavegen", *COMMANDS[what]]
        with (
            (tmp_path / "words").open("w") as words,
            subprocess.Popen(
                command, cwd=place.path, env={**os.environ, **place.cache}, stdout=subprocess.DEVNULL, stderr=words
            ) as process,
        ):
            while not handles_signals(process.pid) and process.poll() is None:  # before, Python decides
                time.sleep(0.001)
            time.sleep(2 * chance.random())
            process.send_signal(number)
            try:
                exit_code = process.wait(300)
            finally:
                process.kill()
        check_words((tmp_path / "words").read_text(), number, exit_code)
        check_files(place.path, number)
        check_runs(place)


PROGRAM = Path(__file__).parents[1] / "programs" / "interrupted_cleanup.py"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["in_a_finalizer", "behind_another_error"])
def test_a_signal_stops_the_command_where_its_exception_is_ignored_or_replaced(where, number):
    """Python ignores exceptions in finalizers; and an interrupted operation may fail with an exception of its own."""
    call = [*INTERPRETER, PROGRAM, where, str(int(number))]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (SIGNALS[number], "stopped\n")


# --- in each phase -----------------------------------------------------------------------------------------------

PHASES_YAML = """
audio: {sample_rate_hz: 4000}
data: {validation: 0.1}
model: {cycles: 1, dilation_cycle: 4, residual_channels: 8, gate_channels: 8, skip_channels: 200, head_channels: 200}
training:
  steps: 3
  batch_size: 2
  window_targets: 100
  threads: 1
  precision: float32
  validate_every: 2
  checkpoint_every: 2
  audition_every: 2
  audition_seconds: 2
"""
SLOW_SECONDS = 0.05  # of each fsync: long enough to see that a training saves
TRAIN = ["train", "many", "--config", "phases.yaml", "--run", "new"]
N_RECORDINGS = 40


def steps_with(run, figure):
    return {entry["step"] for entry in run.metrics() if figure in entry}


# What the files say while a training that validates, makes an audition and saves after its step 2 is in a phase.
PHASES = {
    "caching": lambda place, run: 0 < len(list((place / "cache" / "clips").rglob("*.classes"))) < N_RECORDINGS,
    "validating": lambda place, run: 2 in steps_with(run, "train_loss") - steps_with(run, "validation_loss"),
    "an audition": lambda place, run: 2 in steps_with(run, "validation_loss") and not run.audition_file(2).exists(),
    "saving the best": lambda place, run: bool(list(run.checkpoints.glob(".best*.tmp"))),
    "saving": lambda place, run: bool(list(run.checkpoints.glob(".step-00000002*.tmp"))),
}


@pytest.fixture(scope="module")
def phases(place, tmp_path_factory):
    """Recordings, a configuration, and the run that was not disturbed."""
    folder = tmp_path_factory.mktemp("phases")
    (folder / "many").mkdir()
    rng = np.random.default_rng(3)
    for i in range(N_RECORDINGS):
        soundfile.write(folder / "many" / f"clip{i}.wav", 0.1 * rng.standard_normal(4000), 4000)
    (folder / "phases.yaml").write_text(PHASES_YAML)
    for name in ("many", "phases.yaml"):
        (place.path / name).symlink_to(folder / name)
    place.tidy()
    place.run(TRAIN)
    return RunFolder(shutil.copytree(place.path / "new", folder / "undisturbed"))


def interrupt(place, phase, number, delay):
    """Send a signal to a new training in a phase; return whether it was in that phase all the while."""
    run = RunFolder(place.path / "new")
    with place.start(TRAIN, conditions={"slow_disk": [SLOW_SECONDS]}) as process:
        while not PHASES[phase](place.path, run) and process.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        process.send_signal(number)
        hit = PHASES[phase](place.path, run)
        exit_code = process.wait()
        check_words(process.words()[1], number, exit_code)
    return hit


def check_equal(one, other):
    """The same checkpoint, the same figures and the same auditions."""
    mine = newest(one.path)
    assert mine.step == 3
    assert_same_state(mine, newest(other.path))
    timing = {"seconds", "targets_per_second"}
    figures = [
        [{key: value for key, value in entry.items() if key not in timing} for entry in run.metrics()]
        for run in (one, other)
    ]
    assert figures[0] == figures[1]
    names = [sorted(path.name for path in run.auditions.iterdir()) for run in (one, other)]
    assert names[0] == names[1]


def signals_in_phases():
    """All of them; in the fast tests each phase is met by one, another one than the phase before."""
    fast = itertools.cycle([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    for phase in PHASES:
        chosen = next(fast)
        for number in SIGNALS:
            marks = () if number == chosen else pytest.mark.slow
            yield pytest.param(phase, number, marks=marks, id=f"{phase}-{number.name}")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("phase", "number"), list(signals_in_phases()))
def test_a_signal_in_a_phase(phase, number, place, phases, how_many):
    chance = random.Random(f"{phase} {number} {os.environ.get('WAVEGEN_SEED', 1)}")
    wanted = how_many(1, 34)  # 100 of all signals
    hits = 0
    longest = 0.0 if phase.startswith(("saving", "caching")) else 0.05
    for tried in range(20 * wanted):  # a phase can be over before the signal comes: then it comes sooner
        place.tidy()
        delay = longest * chance.random() / (1 + tried - hits)
        hits += interrupt(place, phase, number, delay)
        check_files(place.path, number)
        resumable = RunFolder(place.path / "new").step_checkpoints()
        if not resumable:
            shutil.rmtree(place.path / "new", ignore_errors=True)
        place.run([*TRAIN, "--resume"] if resumable else TRAIN)
        check_equal(phases, RunFolder(place.path / "new"))
        assert not list((place.path / "new").rglob("*.tmp"))
        if hits == wanted:
            break
    assert hits == wanted
