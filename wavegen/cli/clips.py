"""Writing of generated clips under a progress bar, with what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wavegen.audio.quantize import Floats
from wavegen.audio.write import write_clip, write_clips
from wavegen.cli.console import ProgressBar, print_notice
from wavegen.sampling.candidates import BestCandidate
from wavegen.sampling.verdict import Fault, Verdict, in_words
from wavegen.text import pluralize

TRAIN_LONGER = "train longer"
MOST_LINES = 10  # on faulty clips; the rest is counted


@dataclass
class ClipWriter:
    """Writes generated clips and reports progress and faults.

    Args:
        paths: one for each clip; - is standard output.
        rate_hz: of the clips.
        before: (T,) written ahead of each clip.
        overwrite: replace existing files.
        n_samples: length of each clip; None for an endless stream.
        n_made: samples of all clips and candidates together; None for an endless stream.
        verdict: judges the clips of a stream.
        is_undertrained: the model is known to need more training.
        tamer, wilder: the options given that make sound so, as ``--top-p 0.9``; to blame for silence, or for noise.
        trains_longer: the command that trains the model longer, if it is a run's.
        is_best: the clips are the best of several candidates already, or one-shots, which have none.
    """

    paths: list[str]
    rate_hz: int
    before: Floats
    overwrite: bool
    n_samples: int | None
    n_made: int | None
    verdict: Verdict
    is_undertrained: bool
    tamer: Sequence[str] = ()
    wilder: Sequence[str] = ()
    trains_longer: str | None = None
    is_best: bool = False
    bar: ProgressBar = field(init=False)  # while it writes

    def made(self, n_samples: int) -> None:
        """Show the number of samples generated so far, all clips together."""
        self.bar.move_to(n_samples, f"{self.bar.rate(n_samples) / self.rate_hz:.2f} x real time")

    def write_stream(self, blocks: Iterable[Floats]) -> None:
        """Write clips as they are made, (count, n) at a time."""
        count, verdict = len(self.paths), self.verdict

        def watched() -> Iterator[Floats]:
            for block in blocks:
                for clip, fault in verdict.update(block):
                    if self.n_samples is None:  # an endless stream: no verdict follows at the end
                        advice = self.remedy([fault])
                        print_notice(f"{_name(self.paths[clip])}: {fault} so far; {advice}")
                yield block

        def stopped() -> str:
            seconds = self.bar.count // count / self.rate_hz
            return f"{seconds:.2f} s written to {self._names()}" if self.bar.count else ""

        with self._writing(stopped):
            self._write(watched(), self.paths, lambda made: self.made(made * count))
        self._print_verdicts([verdict.faults(i) for i in range(count)])

    def _print_verdicts(self, each: Sequence[list[Fault]]) -> None:
        """Print a line for each of the first faulty clips."""
        faulty = [(path, faults) for path, faults in zip(self.paths, each, strict=True) if faults]
        for path, faults in faulty[:MOST_LINES]:
            print_notice(f"{_name(path)}: {in_words(faults)}; {self.remedy(faults)}")
        if len(faulty) > MOST_LINES:
            print_notice(f"... {len(faulty) - MOST_LINES} more of the {len(each)} clips are faulty")
        self._print_command(faults for _, faults in faulty)

    def write_one_shots(self, clips: Sequence[Floats], judge: Callable[[Floats], list[Fault]]) -> None:
        """Write clips of different lengths, and print their verdicts."""
        for path, clip in zip(self.paths, clips, strict=True):
            write_clip(clip, path, self.rate_hz, self.overwrite)
        lengths = sorted(len(clip) / self.rate_hz for clip in clips)
        span = f"{lengths[0]:.2f} s" if len(clips) == 1 else f"{lengths[0]:.2f} to {lengths[-1]:.2f} s long"
        unended = sum(length >= (self.n_samples or 0) / self.rate_hz for length in lengths)
        still = f"; {unended} had not faded: raise --seconds, or train longer" if unended else ""
        print_notice(f"{self._names()}: {pluralize(len(clips), 'one-shot')}, {span}{still}")
        self._print_verdicts([judge(clip) for clip in clips])

    def write_best(self, candidates: Iterable[BestCandidate]) -> None:
        """Write each clip when the best of its candidates is found."""
        done, faulty = 0, []
        with self._writing(lambda: f"{done} of {len(self.paths)} clips are written"):
            for path, best in zip(self.paths, candidates, strict=True):
                self._write([best.waveform[None]], [path], lambda _: None)
                advice = f"; {self.remedy(best.faults)}" if best.faults else ""
                print_notice(f"{_name(path)}: {best}{advice}")
                done += 1
                if best.faults:
                    faulty.append(best.faults)
        self._print_command(faulty)

    @contextmanager
    def _writing(self, stopped: Callable[[], str]) -> Iterator[None]:
        """Show a bar while clips are written, then what was; ``stopped`` returns what there is after a Ctrl-C."""
        with ProgressBar("generating", self.n_made, unit="sample") as self.bar:
            try:
                yield
            except (KeyboardInterrupt, SystemExit):
                if kept := stopped():
                    print_notice(f"stopped; {kept}")
                raise
        rate, speed, seconds = self.rate_hz, self.bar.rate(), (self.n_samples or 0) / self.rate_hz
        length = f"{len(self.paths)} x {seconds:.2f} s"
        print_notice(f"{self._names()}: {length}, {speed:,.0f} samples/s ({speed / rate:.2f} x real time)")

    def _write(self, blocks: Iterable[Floats], paths: list[str], written: Callable[[int], None]) -> None:
        how: dict[str, Any] = {"n_samples": self.n_samples, "before": self.before, "overwrite": self.overwrite}
        write_clips(blocks, paths, self.rate_hz, written=written, **how)

    def remedy(self, faults: Iterable[Fault]) -> str:
        """Return the remedy for the faults of a clip, one or more."""
        kinds = {fault.kind for fault in faults}
        is_noisy = bool(kinds & {"clipping", "noise"})
        is_wild = is_noisy or not kinds & {"silence", "dead silence", "level"}
        blamed = [*(() if is_noisy else self.tamer), *(self.wilder if is_wild else ())]
        left_out = [f"leave out {' and '.join(blamed)}"] if blamed else []
        if self.is_undertrained:  # no other setting replaces a longer training
            return "; ".join([*left_out, TRAIN_LONGER])
        if left_out:
            return left_out[0]
        cooler = ["lower --temperature"] if kinds <= {"clipping", "noise"} else []
        return ", or ".join([*cooler, *(["try --best-of 8"] * (not self.is_best)), TRAIN_LONGER])

    def _print_command(self, each: Iterable[Sequence[Fault]]) -> None:
        """Print the command that trains longer where a remedy names that."""
        if self.trains_longer and any(self.remedy(faults).endswith(TRAIN_LONGER) for faults in each):
            print_notice(f"Train longer with:\n  {self.trains_longer}")

    def _names(self) -> str:
        return _name(self.paths[0]) if len(self.paths) == 1 else f"{self.paths[0]} to {self.paths[-1]}"


def _name(path: str) -> str:
    return "standard output" if path == "-" else path
