"""Clips into files while a bar moves, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wavegen.cli.saying import notice
from wavegen.report.terminal import ProgressBar
from wavegen.sampling.watch import Watch, in_words, remedy
from wavegen.sampling.writing import write_clips
from wavegen.trained.choosing import Choice

Floats = npt.NDArray[np.float32]

MOST_LINES = 10  # on faulty clips; the rest is counted


@dataclass(frozen=True)
class ClipWriter:
    """Where clips go.

    Args:
        paths: one for each clip; - is standard output.
        rate_hz: of the clips.
        before: (T,) written ahead of each clip.
        overwrite: replace existing files.
    """

    paths: list[str]
    rate_hz: int
    before: Floats
    overwrite: bool

    def write_stream(self, blocks: Iterable[Floats], n_samples: int | None) -> None:
        """Write clips as they are made, (count, n) at a time; None for a length without end."""
        rate, count = self.rate_hz, len(self.paths)
        watch = Watch(rate, count)
        with ProgressBar("generating", n_samples and n_samples * count, unit="sample") as bar:

            def watched() -> Iterator[Floats]:
                for block in blocks:
                    for clip, fault in watch.hear(block):
                        if n_samples is None:  # it has no end to be told at
                            bar.say(f"{_name(self.paths[clip])}: {fault} so far; {remedy([fault])}")
                    yield block

            def written(made: int) -> None:
                bar.move_to(made * count, f"{bar.rate() / rate:.2f} x real time")

            try:
                self._write(watched(), self.paths, n_samples, written)
            except (KeyboardInterrupt, SystemExit):
                if bar.count:
                    notice(f"stopped; {bar.count // count / rate:.2f} s kept in {', '.join(self.paths)}")
                raise
            speed = bar.rate()
        self._say_written(bar.count // count, speed)
        faulty = {path: faults for i, path in enumerate(self.paths) if (faults := watch.faults(i))}
        if n_samples is None:
            return
        for path, faults in list(faulty.items())[:MOST_LINES]:
            notice(f"{_name(path)}: {in_words(faults)}; {remedy(faults)}")
        if len(faulty) > MOST_LINES:
            notice(f"... and so are {len(faulty) - MOST_LINES} more of the {count} clips")

    def write_choices(self, choose: Callable[[Callable[[int], None]], Iterable[Choice]], n_made: int) -> None:
        """Write each clip when the best of its candidates is found.

        Args:
            choose: begins to choose, given what to tell of the samples made.
            n_made: samples of all candidates.
        """
        n_samples, done = 0, 0
        with ProgressBar("choosing", n_made, unit="sample") as bar:

            def made(n: int) -> None:
                bar.move_to(n, f"{bar.rate() / self.rate_hz:.2f} x real time")

            try:
                for path, choice in zip(self.paths, choose(made), strict=True):
                    n_samples = len(choice.waveform)
                    self._write([choice.waveform[None]], [path], n_samples, lambda _: None)
                    done += 1
                    bar.say(f"{_name(path)}: {choice}")
            except (KeyboardInterrupt, SystemExit):
                notice(f"stopped; {done} of {len(self.paths)} clips are written")
                raise
            speed = bar.rate()
        self._say_written(n_samples, speed)

    def _write(
        self, blocks: Iterable[Floats], paths: list[str], n_samples: int | None, written: Callable[[int], None]
    ) -> None:
        write_clips(
            blocks,
            paths,
            self.rate_hz,
            n_samples=n_samples,
            before=self.before,
            overwrite=self.overwrite,
            written=written,
        )

    def _say_written(self, n_samples: int, speed: float) -> None:
        count, rate = len(self.paths), self.rate_hz
        names = _name(self.paths[0]) if count == 1 else f"{self.paths[0]} to {self.paths[-1]}"
        notice(f"{names}: {count} x {n_samples / rate:.2f} s, {speed:,.0f} samples/s ({speed / rate:.2f} x real time)")


def _name(path: str) -> str:
    return "standard output" if path == "-" else path
