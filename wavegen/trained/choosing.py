"""Several candidates for each clip, of which a trained model of sound keeps the best."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats
from wavegen.errors import UsageError
from wavegen.sampling.sampler import Request, Sampler
from wavegen.sampling.verdict import Fault, in_words, remedy
from wavegen.trained.generating import Generating, SamplingOptions

MOST_CANDIDATES = 1024
MOST_CLIPS = 1 << 32  # candidate j of clip i has the number i + j * MOST_CLIPS: its own, whatever the count
AT_ONCE = 16  # candidates made side by side: more are no faster
MOST_SAMPLES = 1 << 28  # of all candidates of a clip, which are in memory until one is chosen: 4.7 hours at 16 kHz


@dataclass(frozen=True)
class Choice:
    """The best of several candidates for a clip.

    Args:
        waveform: (T,) float32 in [-1, 1].
        number: which candidate it is, from 1.
        bits_per_sample: by the model.
        typical_bits: what it was compared with.
        faults: of it; none unless all candidates have some.
        dropped: the faults of each candidate that was dropped for them.
        n_candidates: that it was chosen from.
        is_undertrained: of the model.
    """

    waveform: Floats
    number: int
    bits_per_sample: float
    typical_bits: float
    faults: list[Fault]
    dropped: list[list[Fault]]
    n_candidates: int
    is_undertrained: bool = False

    def __str__(self) -> str:
        kept = f"{self.bits_per_sample:.2f} bits/sample, typical {self.typical_bits:.2f}"
        kinds = Counter(fault.kind for faults in self.dropped for fault in faults)
        why = ", ".join(f"{kind} in {number}" for kind, number in sorted(kinds.items()))
        if self.faults:
            return (
                f"all {self.n_candidates} candidates are faulty ({why}); number {self.number}, the least faulty, "
                f"is kept: {in_words(self.faults)}; {kept}; {remedy(self.faults, self.is_undertrained, is_best=True)}"
            )
        dropped = f"; dropped {len(self.dropped)}: {why}" if self.dropped else ""
        return f"number {self.number} of {self.n_candidates}, {kept}{dropped}"


class _Candidate(NamedTuple):
    """A clip that may be kept."""

    number: int
    classes: npt.NDArray[np.integer]
    faults: list[Fault]
    bits_per_sample: float


class Choosing(Generating):
    """The part of a trained model that makes several candidates and keeps the best."""

    def choose(
        self,
        seconds: float | None,
        best_of: int,
        *,
        made: Callable[[int], None] | None = None,
        notice: Callable[[str], None] | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Iterator[Choice]:
        """Make several candidates for each clip, drop those with faults, and rank the others by their likelihood.

        The likelihood is the model's own, of the whole clip at temperature 1, in bits/sample. The highest is not the
        best: likeliest of all is what is easy to predict, silence and dull sounds. What the model takes for a real
        recording has the likelihood that held-out recordings have, neither less nor more (the typical set; Nalisnick
        et al., 2019, "Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality"). So the
        candidate nearest to the held-out bits/sample comes first. Where these are not known, or are of other labels and
        spectrograms than a clip's, the median of its sound candidates stands for them.

        The first candidate is the clip that ``generate`` makes with the same seed.

        Args:
            seconds: length; may be None where mel frames say it.
            best_of: candidates for each clip, 1 to 1,024.
            made: is told how many samples were made in all, scored ones only.
            notice: as ``stream``.
            **options: as ``stream``.

        Yields:
            The choice of each clip.

        Raises:
            UsageError: an argument is out of its range, or all candidates of a clip are too much to hold in memory.
            ModelError: the model's outputs are not finite.
        """
        if not 1 <= best_of <= MOST_CANDIDATES:
            raise UsageError(f"--best-of: expected a whole number from 1 to {MOST_CANDIDATES:,}, found {best_of}")
        if seconds is None and options.get("mel") is None:
            raise UsageError("--best-of: expected clips of some length, found --seconds inf")
        sampler, request = self._prepared(seconds, best_of, notice=notice, **options)
        longest = MOST_SAMPLES // best_of
        assert request.n_samples is not None
        if request.n_samples > longest:
            raise UsageError(
                f"--best-of {best_of}: expected clips of at most {longest / self.sample_rate_hz:,.0f} s, for all "
                f"candidates of one are held in memory; found {request.n_samples / self.sample_rate_hz:,.0f} s"
            )
        return self._choices(sampler, request, best_of, request.n_samples, made)

    def _choices(
        self, sampler: Sampler, request: Request, best_of: int, n_samples: int, made: Callable[[int], None] | None
    ) -> Iterator[Choice]:
        at_once = min(AT_ONCE, MOST_SAMPLES // n_samples)
        work = [(clip, candidate) for clip in range(request.count) for candidate in range(best_of)]
        waiting: list[_Candidate] = []
        for begin in range(0, len(work), at_once):
            waiting += self._candidates(sampler, request, work[begin : begin + at_once])
            if made:
                made(min(begin + at_once, len(work)) * n_samples)
            while len(waiting) >= best_of:
                yield self._best(waiting[:best_of])
                del waiting[:best_of]

    def _candidates(self, sampler: Sampler, request: Request, work: list[tuple[int, int]]) -> list[_Candidate]:
        """Make and score candidates, each given as its clip and its number from 0."""
        from wavegen.evaluation.likelihood import model_bits

        conditions = None if request.conditions is None else [request.conditions[clip] for clip, _ in work]
        numbers = [clip + candidate * MOST_CLIPS for clip, candidate in work]
        asked = replace(request, count=len(work), numbers=numbers, conditions=conditions)
        verdict, parts = self.verdict(len(work)), []
        for classes in sampler.stream_classes(asked):
            verdict.update(self.quantizer.decode(classes))
            parts.append(classes.astype(np.uint8 if self.quantizer.classes <= 256 else np.uint16))
        clips = np.concatenate(parts, axis=1)
        bits = model_bits(self.network, list(clips), self.quantizer.silence, None, conditions, request.prime)
        return [
            _Candidate(candidate + 1, clip, verdict.faults(i), total / len(clip))
            for i, ((_, candidate), clip, total) in enumerate(zip(work, clips, bits, strict=True))
        ]

    def _best(self, candidates: list[_Candidate]) -> Choice:
        sound = [one for one in candidates if not one.faults]
        typical = None if self.conditioner.is_needed else self.held_out_bits
        if typical is None:
            typical = median(one.bits_per_sample for one in sound or candidates)

        def rank(one: _Candidate) -> tuple[float, float]:
            return sum(fault.severity for fault in one.faults), abs(one.bits_per_sample - typical)

        best = min(candidates, key=rank)
        return Choice(
            self.quantizer.decode(best.classes),
            best.number,
            best.bits_per_sample,
            typical,
            best.faults,
            [one.faults for one in candidates if one.faults],
            len(candidates),
            self.doubt() is not None,
        )
