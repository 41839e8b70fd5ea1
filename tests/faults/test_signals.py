"""kill -9, SIGTERM and Ctrl-C at random moments of every command and in each phase of a training.

Files are whole or absent, there is no traceback, exit codes are those of the signals, and what is resumed ends as if
undisturbed.
"""

import functools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import has_ended
from wavegen.training.checkpoint import load_checkpoint
from wavegen.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

# What a signal catches between a file's opening and its name is closed by Python, with a warning that users do not see.
INTERPRETER = [sys.executable, "-W", "error", "-W", "ignore::ResourceWarning"]
SIGNALS = {signal.SIGKILL: 137, signal.SIGTERM: 143, signal.SIGINT: 130}

# Imports and compiles everything once, then runs each command that it is sent in a fork of itself: hundreds of kills
# would else be hours of imports. Forking is safe: torch has no threads yet. A command says when it listens to signals.
# Its disk is slow: a save would else be over before a signal comes.
NURSERY = """
import gc, importlib, json, os, pathlib, pkgutil, sys, time
import numpy, torch._dynamo, torch.utils.tensorboard
import wavegen.cli
from wavegen.__main__ import main
from wavegen.report.pictures import draw_audio
from wavegen.sampling.engines.numba_fused import compile_kernel

torch.set_num_threads(1)
for module in pkgutil.walk_packages(wavegen.__path__, "wavegen."):
    importlib.import_module(module.name)
compile_kernel("float32", lambda said: print(said, file=sys.stderr))
draw_audio(pathlib.Path("nothing.png"), numpy.zeros(400, numpy.float32), 4000, "nothing")
gc.freeze()  # what a fork collects shall not be all of this
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
app, fsync = wavegen.cli.app, os.fsync

def slow_fsync(file):
    time.sleep(0.1)
    fsync(file)

def listening(**options):
    print(os.getpid(), flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    app(**options)

os.dup2(os.open(os.devnull, os.O_RDWR), 0)
os.dup2(os.open("words", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
sys.argv = ["wavegen", *order]
wavegen.cli.app, os.fsync = listening, slow_fsync
main()
"""


class Place:
    """A folder in which commands run, and the nursery that runs them."""

    def __init__(self, path):
        self.path, self.words = path, path / "words"
        self.environment = {**os.environ, "WAVEGEN_CACHE": str(path / "cache")}
        call = [*INTERPRETER, "-c", NURSERY]
        self.nursery = subprocess.Popen(
            call, cwd=path, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments):
        """Run a command; returns its process, which listens to signals by now."""
        print(json.dumps(arguments), file=self.nursery.stdin, flush=True)
        return int(self.nursery.stdout.readline())

    def exit_code(self):
        """Wait for the end of the command."""
        return int(self.nursery.stdout.readline())

    def run(self, arguments):
        self.start(arguments)
        assert self.exit_code() == 0, self.words.read_text()

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
    place = Place(path)
    with place.nursery:
        yield place
        place.nursery.stdin.close()


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
    "a page": ["inspect", "run", "--html", "new.html", "--sample-seconds", "1"],
    "a picture": ["inspect", "recordings", "--listen", "--plot", "new.png"],
}
LONG_SECONDS = 0.7  # enough for commands that have no end, or a far one


@pytest.fixture(scope="module")
def seconds(place, home):
    """How long a command takes here and now if it is not disturbed, from where it listens to signals."""

    @functools.cache
    def measured(what):
        if what.startswith(("generating", "measuring")):
            return LONG_SECONDS
        prepare(place, home)
        place.start(COMMANDS[what])
        started = time.monotonic()
        assert place.exit_code() == 0, place.words.read_text()
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


def listens(process):
    """Whether a process has said what SIGTERM shall do, the last of its signals."""
    caught = Path(f"/proc/{process}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def interrupt_interpreter(place, arguments, number, seconds):
    """Send a signal to a command in an interpreter of its own, most likely while it imports."""
    command = [*INTERPRETER, "-m", "wavegen", *arguments]
    with (
        place.words.open("w") as words,
        subprocess.Popen(
            command, cwd=place.path, env=place.environment, stdout=subprocess.DEVNULL, stderr=words
        ) as process,
    ):
        while not listens(process.pid) and process.poll() is None:  # before, it is not ours to say what a signal does
            time.sleep(0.001)
        time.sleep(seconds)
        process.send_signal(number)
        try:
            return process.wait(300)
        finally:
            process.kill()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("what", COMMANDS)
def test_a_signal_at_any_moment(what, number, place, home, seconds, how_many):
    """Every tenth is to a command in an interpreter of its own."""
    chance = random.Random(f"{what} {number} {os.environ.get('WAVEGEN_SEED', 1)}")
    lasts, n_stopped, n_times = seconds(what), 0, how_many(2, 100)
    for i in range(20 * n_times):
        if i >= n_times and n_stopped > n_times // 4:  # else most signals came when all was done: some more
            break
        prepare(place, home)
        if i % 10 == 0:
            exit_code = interrupt_interpreter(place, COMMANDS[what], number, 2 * chance.random())
        else:
            process = place.start(COMMANDS[what])
            time.sleep(lasts * chance.random())
            with suppress(ProcessLookupError):  # it may be done
                os.kill(process, number)
            exit_code = place.exit_code()
        n_stopped += exit_code != 0
        check_words(place.words.read_text(), number, exit_code)
        check_files(place.path, number)
        for run in (RunFolder(place.path / "new"), RunFolder(place.path / "more")):
            if not run.step_checkpoints():  # there is nothing to resume yet
                continue
            checkpoint = run.load_newest()[0]
            steps = [entry["step"] for entry in run.metrics() if "train_bits" in entry]
            assert steps[: checkpoint.step] == list(range(1, checkpoint.step + 1))
            assert all(np.isfinite(array).all() for array in checkpoint.average.values())
    assert n_stopped > n_times // 4


INTERRUPTED = """
import os, signal, sys, threading, time
import wavegen.cli
from wavegen.__main__ import main

def come():
    os.kill(os.getpid(), int(sys.argv[2]))
    time.sleep(0.1)

class Tidied:
    def __del__(self):
        come()

def tidy():
    Tidied()

def leave_a_lock():
    condition = threading.Condition()
    with condition:
        condition.release()  # as a signal leaves it that comes while it is acquired again
        come()

def app(**options):
    globals()[sys.argv[1]]()
    time.sleep(60)

wavegen.cli.app = app
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["tidy", "leave_a_lock"])
def test_a_signal_is_not_lost_where_its_exception_is(where, number):
    """Python ignores it while an object is tidied away, and another takes its place where what is interrupted fails."""
    call = [*INTERPRETER, "-c", INTERRUPTED, where, str(int(number))]
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
TRAIN = ["train", "many", "--config", "phases.yaml", "--run", "new"]
N_RECORDINGS = 40


def steps_with(run, figure):
    return {entry["step"] for entry in run.metrics() if figure in entry}


# What the files say while a training that validates, makes an audition and saves after its step 2 is in a phase.
PHASES = {
    "caching": lambda place, run: 0 < len(list((place / "cache" / "clips").rglob("*.classes"))) < N_RECORDINGS,
    "validating": lambda place, run: 2 in steps_with(run, "train_bits") - steps_with(run, "validation_bits"),
    "an audition": lambda place, run: 2 in steps_with(run, "validation_bits") and not run.audition_file(2).exists(),
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
    """Send a signal to a new training in a phase; returns whether it was in it all the while."""
    run = RunFolder(place.path / "new")
    process = place.start(TRAIN)
    while not PHASES[phase](place.path, run) and not has_ended(process):
        pass
    time.sleep(delay)
    with suppress(ProcessLookupError):
        os.kill(process, number)
    hit = PHASES[phase](place.path, run)
    exit_code = place.exit_code()
    check_words(place.words.read_text(), number, exit_code)
    return hit


def check_equal(one, other):
    """The same checkpoint, the same figures and the same auditions."""
    mine, others = one.load_newest()[0], other.load_newest()[0]
    assert mine.step == others.step == 3
    for arrays, same in zip(
        (mine.weights, mine.average, *mine.moments), (others.weights, others.average, *others.moments), strict=True
    ):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, same[name], err_msg=name)
    timing = {"seconds", "targets_per_second"}
    figures = [
        [{key: value for key, value in entry.items() if key not in timing} for entry in run.metrics()]
        for run in (one, other)
    ]
    assert figures[0] == figures[1]
    names = [sorted(path.name for path in run.auditions.iterdir()) for run in (one, other)]
    assert names[0] == names[1]


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("phase", PHASES)
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
