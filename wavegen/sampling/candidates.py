"""Several candidates for each clip, ranked by how typical their likelihood is under the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

from wavegen.audio.quantize import Floats
from wavegen.data.conditioning import ClipCondition
from wavegen.errors import ParameterError
from wavegen.sampling.sampler import Request, Sampler
from wavegen.sampling.verdict import Fault, Verdict, in_words

MAX_CANDIDATES = 1024
IN_PLAIN_WORDS = {"level": "too quiet or too loud", "levels": "uneven loudness", "spectrum": "too bright or too dull"}
MAX_CLIPS = 1 << 32  # candidate j of clip i has the number i + j * MAX_CLIPS: its own, whatever the count
AT_ONCE = 16  # candidates generated side by side: more are no faster
MAX_SAMPLES = 1 << 28  # samples of all candidates of a clip, held in memory until one is chosen: 4.7 hours at 16 kHz

# Bits of each clip, given its classes, its condition, and the prime.
Score = Callable[
    [Sequence[npt.NDArray[np.integer]], Sequence[ClipCondition] | None, npt.NDArray[np.integer] | None], list[float]
]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A clip that may be kept.

    Args:
        number: which candidate for its clip it is, from 1.
        classes: (T,) of its samples.
        faults: what is wrong with it.
        bits_per_sample: by the model, at temperature 1.
    """

    number: int
    classes: npt.NDArray[np.integer]
    faults: list[Fault]
    bits_per_sample: float


@dataclass(frozen=True, eq=False)
class BestCandidate:
    """The best of several candidates for a clip.

    Args:
        waveform: (T,) float32 in [-1, 1].
        number: which candidate it is, from 1.
        bits_per_sample: by the model, at temperature 1.
        typical_bits: the bits/sample that it was compared with.
        faults: of it; none unless all candidates have some.
        dropped: the faults of each candidate that has some.
        n_candidates: that it was chosen from.
    """

    waveform: Floats
    number: int
    bits_per_sample: float
    typical_bits: float
    faults: list[Fault]
    dropped: list[list[Fault]]
    n_candidates: int

    def __str__(self) -> str:
        kept = f"{self.bits_per_sample:.2f} bits/sample, typical {self.typical_bits:.2f}"
        kinds = Counter(fault.kind for faults in self.dropped for fault in faults)
        why = ", ".join(f"{IN_PLAIN_WORDS.get(kind, kind)} {number}" for kind, number in sorted(kinds.items()))
        why += "; one can have several" if kinds.total() > len(self.dropped) else ""
        if self.faults:
            return (
                f"all {self.n_candidates} candidates are faulty ({why}); number {self.number}, the least faulty, "
                f"is kept: {in_words(self.faults)}; {kept}"
            )
        dropped = f"; {len(self.dropped)} of {self.n_candidates} dropped ({why})" if self.dropped else ""
        return f"number {self.number} of {self.n_candidates}, {kept}{dropped}"


def rank_candidates(candidates: Sequence[Candidate], typical_bits: float) -> list[Candidate]:
    """Return candidates with the best first: the fewest and mildest faults, then the most typical likelihood.

    The highest likelihood is not the best: likeliest of all is what is easy to predict, silence and dull sounds. What
    the model takes for a real recording has the likelihood that held-out recordings have, neither less nor more (the
    typical set; Nalisnick et al., 2019, "Detecting Out-of-Distribution Inputs to Deep Generative Models Using
    Typicality").

    Args:
        candidates: for one clip.
        typical_bits: bits/sample of held-out recordings.
    """

    def rank(candidate: Candidate) -> tuple[float, float]:
        severity = sum(fault.severity for fault in candidate.faults)
        return severity, abs(candidate.bits_per_sample - typical_bits)

    return sorted(candidates, key=rank)


@dataclass(frozen=True)
class CandidateSearch:
    """Generates several candidates for each clip and keeps the best.

    Args:
        sampler: of the model.
        request: for the clips.
        score: bits of clips under the model.
        verdict: returns a judge of these clips of the request, one after the other.
        typical_bits: as ``rank_candidates``; None for the median of a clip's candidates without faults.
        sample_rate_hz: of the clips.
    """

    sampler: Sampler
    request: Request
    score: Score
    verdict: Callable[[Sequence[int]], Verdict]
    typical_bits: float | None
    sample_rate_hz: int

    def best(self, n_candidates: int, progress: Callable[[int], None] | None = None) -> Iterator[BestCandidate]:
        """Yield the best of ``n_candidates`` candidates for each clip.

        The first candidate is the clip that the sampler generates for the request without candidates.

        Args:
            n_candidates: for each clip, 1 to 1,024.
            progress: called with the samples generated so far, scored ones only.

        Raises:
            ParameterError: the number is out of range, or all candidates of a clip are too much to hold in memory.
            ModelError: the model's outputs are not finite.
        """
        if not 1 <= n_candidates <= MAX_CANDIDATES:
            found = f"expected a whole number from 1 to {MAX_CANDIDATES:,}, found {n_candidates}"
            raise ParameterError("best_of", found)
        n_samples = self.request.n_samples
        if n_samples is None:
            raise ParameterError("best_of", "expected clips of finite length, found clips without end")
        longest, seconds = MAX_SAMPLES // n_candidates / self.sample_rate_hz, n_samples / self.sample_rate_hz
        if seconds > longest:
            problem = f"expected clips of at most {longest:,.0f} s, all candidates of one are held in memory"
            raise ParameterError("best_of", f"{problem}; found {seconds:,.0f} s", n_candidates)
        return self._best(n_candidates, n_samples, progress)

    def _best(
        self, n_candidates: int, n_samples: int, progress: Callable[[int], None] | None
    ) -> Iterator[BestCandidate]:
        at_once = min(AT_ONCE, MAX_SAMPLES // n_samples)
        work = [(clip, candidate) for clip in range(self.request.count) for candidate in range(n_candidates)]
        waiting: list[Candidate] = []
        for begin in range(0, len(work), at_once):
            waiting += self._candidates(work[begin : begin + at_once])
            if progress:
                progress(min(begin + at_once, len(work)) * n_samples)
            while len(waiting) >= n_candidates:
                yield self._choose(waiting[:n_candidates])
                del waiting[:n_candidates]

    def _candidates(self, work: list[tuple[int, int]]) -> list[Candidate]:
        """Generate and score candidates, each given as its clip and its number from 0."""
        quantizer, conditions = self.sampler.quantizer, self.request.conditions
        chosen = None if conditions is None else [conditions[clip] for clip, _ in work]
        numbers = [clip + candidate * MAX_CLIPS for clip, candidate in work]
        request = replace(self.request, count=len(work), numbers=numbers, conditions=chosen)
        verdict, parts = self.verdict([clip for clip, _ in work]), []
        for classes in self.sampler.stream_classes(request):
            verdict.update(quantizer.decode(classes))
            parts.append(classes.astype(np.uint8 if quantizer.classes <= 256 else np.uint16))
        clips = np.concatenate(parts, axis=1)  # (candidates, T)
        bits = self.score(list(clips), chosen, request.prime)
        return [
            Candidate(candidate + 1, clip, verdict.faults(i), total / len(clip))
            for i, ((_, candidate), clip, total) in enumerate(zip(work, clips, bits, strict=True))
        ]

    def _choose(self, candidates: list[Candidate]) -> BestCandidate:
        typical = self.typical_bits
        if typical is None:
            without_faults = [candidate for candidate in candidates if not candidate.faults]
            typical = median(candidate.bits_per_sample for candidate in without_faults or candidates)
        best = rank_candidates(candidates, typical)[0]
        faulty = [candidate.faults for candidate in candidates if candidate.faults]
        waveform = self.sampler.quantizer.decode(best.classes)
        return BestCandidate(waveform, best.number, best.bits_per_sample, typical, best.faults, faulty, len(candidates))
