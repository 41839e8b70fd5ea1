"""kill -9, SIGTERM and Ctrl-C at random moments of every command: files whole or absent, no traceback, exit codes."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from command_line import COMMAND
from wavegen.training.checkpoint import load_checkpoint
from wavegen.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

# Each with the seconds that it takes, roughly, on an idle machine.
COMMANDS = {
    "caching and training": (["train", "recordings", "--config", "tiny.yaml", "--run", "new"], 4.0),
    "resuming": (["train", "--run", "more", "--resume", "--steps", "2000"], 6.0),
    "generating": (["generate", "run", "--seconds", "inf", "-o", "new.wav"], 4.0),
    "generating flac": (["generate", "run", "--seconds", "2000", "--count", "2", "-o", "new.flac"], 4.0),
    "scoring": (["evaluate", "run", "recordings"], 3.0),
    "a page": (["inspect", "run", "--html", "new.html", "--sample-seconds", "1"], 4.0),
    "a picture": (["inspect", "recordings", "--listen", "--plot", "new.png"], 3.0),
}
SIGNALS = {signal.SIGKILL: 137, signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(scope="module")
def place(home, tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    for name in ("recordings", "run", "tiny.yaml"):
        (place / name).symlink_to(home / name)
    return place


def tidy(place: Path) -> None:
    for path in place.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif not path.is_symlink():
            path.unlink()


def check_files(place: Path, number: signal.Signals) -> None:
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


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("what", COMMANDS)
def test_a_signal_at_any_moment(what, number, place, home, how_many):
    arguments, duration = COMMANDS[what]
    chance = random.Random(f"{what} {number} {os.environ.get('WAVEGEN_SEED', 1)}")
    n_stopped = 0
    n_times = how_many(2, 100)
    for i in range(n_times):
        tidy(place)
        if "more" in arguments:
            shutil.copytree(home / "run", place / "more")
        cache = place / "cache"  # nothing is decoded yet
        command = [*COMMAND, *arguments]
        environment = {**os.environ, "WAVEGEN_CACHE": str(cache)}
        with subprocess.Popen(
            command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            # the interpreter itself takes 30 ms to start, in which it is not ours to say what a signal does
            time.sleep(0.15 + duration * (chance.random() if i else 0.1))
            process.send_signal(number)
            try:
                said = process.communicate(timeout=60)[1]
            finally:
                process.kill()
        n_stopped += process.returncode != 0
        assert process.returncode in (0, -number if number == signal.SIGKILL else SIGNALS[number]), said
        assert not re.search("Traceback|Exception ignored|terminate called|Error", said), said
        assert number == signal.SIGKILL or process.returncode == 0 or "stopped" in said
        check_files(place, number)
        if (place / "new" / "checkpoints").exists() or (place / "more").exists():
            run = RunFolder(place / ("more" if "more" in arguments else "new"))
            if run.step_checkpoints():  # else there is nothing to resume yet
                checkpoint = run.load_newest()[0]
                steps = [entry["step"] for entry in run.metrics() if "train_bits" in entry]
                assert steps[: checkpoint.step] == list(range(1, checkpoint.step + 1))
                assert all(np.isfinite(array).all() for array in checkpoint.average.values())
    assert n_stopped > n_times // 4
