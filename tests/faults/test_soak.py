"""Long runs: memory, open files and threads stay as they are, and so does the time of a step.

The long form trains for half an hour and generates for half an hour; WAVEGEN_SOAK_MINUTES says otherwise.
"""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import wavegen as library
from wavegen.config import load_config
from wavegen.training.interruption import Interrupted
from wavegen.training.observer import Observer

pytestmark = pytest.mark.slow

LONG = os.environ.get("WAVEGEN_FAULTS") == "long"
SECONDS = 60 * float(os.environ.get("WAVEGEN_SOAK_MINUTES", "30" if LONG else "0.15"))
GROWTH_KB = 24_000
SLOWER = 1.5  # times; machines are shared


class Vitals:
    """Looked at again and again; the first fifth is a warm-up."""

    def __init__(self) -> None:
        self.started = self.looked = time.monotonic()
        self.seen: list[tuple[float, int, int, int]] = []

    def look(self) -> None:
        now = time.monotonic()
        if now - self.looked < SECONDS / 100:
            return
        self.looked = now
        status = Path("/proc/self/status").read_text()
        anonymous, threads = (int(status.partition(f"{name}:")[2].split()[0]) for name in ("RssAnon", "Threads"))
        self.seen.append((now - self.started, anonymous, threads, len(os.listdir("/proc/self/fd"))))  # noqa: PTH208

    def over(self) -> bool:
        return time.monotonic() - self.started > SECONDS

    def check(self) -> None:
        kept = self.seen[len(self.seen) // 5 :]
        third = len(kept) // 3
        early, late = kept[:third], kept[-third:]
        assert third >= 5
        for what, allowed in ((1, GROWTH_KB), (2, 0), (3, 0)):
            growth = max(row[what] for row in late) - max(row[what] for row in early)
            assert growth <= allowed, (what, growth, self.seen)


def flat(rates: list[float]) -> None:
    """The median of the last third is that of the first, or nearly."""
    kept = rates[len(rates) // 5 :]
    third = len(kept) // 3
    assert third >= 5
    assert np.median(kept[:third]) < SLOWER * np.median(kept[-third:])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.timeout(3 * SECONDS + 300)
def test_training_for_long(home, tmp_path):
    """Steps, validations, checkpoints and auditions all the time."""
    vitals = Vitals()

    class Look(Observer):
        def stepped(self, entry):
            vitals.look()
            if vitals.over():
                signal.raise_signal(signal.SIGTERM)

    often = ["checkpoint_every=200", "validate_every=200", "audition_every=400", "steps=100000000", "schedule=constant"]
    config = load_config(home / "tiny.yaml", [f"training.{one}" for one in often])
    with pytest.raises(Interrupted):
        library.train(
            home / "recordings",
            config,
            run=tmp_path / "run",
            device="cpu",
            observers=[Look()],
            notice=lambda text: None,
        )
    vitals.check()
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [entry["targets_per_second"] for entry in entries if "train_bits" in entry]
    flat([float(np.median(part)) for part in np.array_split(rates, 60)])
    print(f"{len(rates):,} steps")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.timeout(3 * SECONDS + 300)
def test_generating_for_long(home):
    """One clip without end, and many short ones."""
    model = library.load(home / "run", "cpu")
    for precision in ("float32", "auto"):
        model.generate(seconds=0.05, precision=precision)  # compiles, and starts what threads there are
    vitals = Vitals()
    rates, n_samples, n_clips = [], 0, 0
    started = time.monotonic()
    blocks = model.stream(seconds=None, precision="float32")
    for block in blocks:
        n_samples += block.shape[1]
        rates.append(block.shape[1] / (time.monotonic() - started))
        vitals.look()
        if vitals.over():
            break
        started = time.monotonic()
    blocks.close()
    vitals.check()
    vitals = Vitals()
    while not vitals.over():
        model.generate(seconds=0.05, seed=n_clips)
        n_clips += 1
        vitals.look()
    vitals.check()
    flat([float(np.median(part)) for part in np.array_split(rates, 60)])
    print(f"{n_samples / model.sample_rate_hz / 3600:.2f} hours of audio, {n_clips:,} clips")
