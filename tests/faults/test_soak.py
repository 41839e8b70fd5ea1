"""Long runs: private memory, threads and open files stay as they are, and so does the time that the work takes.

The long form is the work of eight hours, on a tiny model in less: as many steps as the preset `small` makes on two
cores, with validations, checkpoints, auditions, pictures and TensorBoard; eight hours of audio as one clip; and
thousands of short ones. WAVEGEN_SOAK_HOURS says otherwise. The figures are those of Linux's /proc.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import wavegen as library
from command_line import Process
from wavegen.runs.run_folder import RunFolder

LONG = os.environ.get("WAVEGEN_FAULTS") == "long"
HOURS = float(os.environ.get("WAVEGEN_SOAK_HOURS", "8" if LONG else "0.05"))
STEPS = round(12 * 3600 * HOURS)
CLIPS = round(2000 * HOURS)
MOST_SECONDS = 1200 + 1800 * HOURS
LOOK_EVERY_SECONDS = max(0.002, HOURS / 16)
GROWTH_KB = 8_000
JUST_ENDED = 2  # threads: the system still counts them for a moment, on a busy machine most of the time
SLOWER = 1.5  # times; in a short form it is measured too coarsely

Row = tuple[float, float, int, int, int]  # seconds of processor, work done, private memory in kB, threads, open files


def look(process, done):
    status = Path(f"/proc/{process}/status").read_text()
    anonymous, threads = (int(status.partition(f"{name}:")[2].split()[0]) for name in ("RssAnon", "Threads"))
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    n_files = len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK"), done, anonymous, threads, n_files


def watch(arguments, done, place, words):
    """Run a command, and look at it from its first work to its last."""
    with words.open("w") as stderr, Process(*arguments, cwd=place, stderr=stderr) as process:
        so_far = 0.0
        while process.poll() is None:
            if (now := done()) > so_far:
                so_far = now
                try:
                    yield look(process.pid, now)
                except (OSError, IndexError):
                    break  # it has ended in between
            time.sleep(LOOK_EVERY_SECONDS)
    said = words.read_text()
    assert process.returncode == 0, said
    assert "Traceback" not in said, said


def check(what, rows):
    """Compare the last third with the first, both without the first fifth of all, the warm-up."""
    kept = np.array(rows[len(rows) // 5 :])
    third = len(kept) // 3
    assert third >= 10
    early, late = kept[:third], kept[-third:]
    before, after = (part[:, 2:].min(axis=0) for part in (early, late))  # what leaks raises the least, too
    slowness = [(part[-1, 0] - part[0, 0]) / (part[-1, 1] - part[0, 1]) for part in (early, late)]
    slower = slowness[1] / max(slowness[0], 1e-9)
    figures = [f"private memory {m:,.0f} kB, {t:.0f} threads, {f:.0f} open files" for m, t, f in (before, after)]
    print(f"{what}, {rows[-1][0]:,.0f} s of processor: {figures[0]}; then {figures[1]}; {slower:.2f}-fold")
    assert after[0] - before[0] <= GROWTH_KB
    assert after[1] <= before[1] + JUST_ENDED
    assert after[2] <= before[2]
    assert not LONG or slower < SLOWER


def size_of(path):
    return lambda: path.stat().st_size if path.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(MOST_SECONDS)
@pytest.mark.parametrize(("steps", "often"), [(300, 30), (STEPS, 200)])
def test_training_for_long(steps, often, home, tmp_path):
    run = RunFolder(tmp_path / "run")
    arguments = ["train", "recordings", "--config", "tiny.yaml", "--run", run.path, "--steps", steps]
    seldom = max(often, steps // 400)
    for setting in (f"checkpoint_every={often}", f"validate_every={often}", f"audition_every={seldom}"):
        arguments += ["--set", f"training.{setting}"]
    rows = list(watch(arguments, size_of(run.metrics_file), home, tmp_path / "words"))
    check(f"{steps:,} steps", rows)
    assert run.load_newest()[0].step == steps


@pytest.mark.slow
@pytest.mark.timeout(MOST_SECONDS)
def test_one_clip_for_long(home, tmp_path):
    new = tmp_path / "new.wav"
    arguments = ["generate", "run", "--seconds", 3600 * HOURS, "-o", new, "--precision", "float32"]
    rows = list(watch(arguments, size_of(new), home, tmp_path / "words"))
    check(f"{HOURS:g} hours of audio", rows)
    assert soundfile.info(new).duration == pytest.approx(3600 * HOURS)


@pytest.mark.timeout(MOST_SECONDS)
def test_many_clips(home):
    model = library.load(home / "run", "cpu")
    rows = []
    for i in range(CLIPS):
        model.generate(seconds=0.05, seed=i)
        rows.append(look("self", i))
    check(f"{CLIPS:,} clips", rows)
