"""The windows of a training: item i of the stream is a pure function of (seed, i).

An epoch lays the clips end to end in a shuffled order. Some stand behind a receptive field of silence: a model learns
from them how a clip begins. The others follow the clip before, so that a model learns what comes after an end; without
them it stays in the silence that every clip fades into. The tape is cut into windows of equal length, which are
shuffled too:

    tape:     ....aaaaaaaaaaaaaaaaaaaaabbbbbbbbbb....ccccccccccccccc            . = silence, never a target
    windows:  |-------|-------|-------|-------|-------|-------|-------|

A window's inputs are its targets' past on the tape, one receptive field of it. If all windows have the same weight,
every target of every clip is visited once in an epoch; the clips behind silence and the cuts are others in each epoch;
no window is padded but for the silence between clips. A clip follows one of its own label.

Where quiet windows have a weight below 1, an epoch has as many windows as before, but fewer of the quiet ones, others
each time, and some of the loud ones more than once. Every loud target is visited in each epoch, and of the quiet ones
most within a few.

Generation begins after silence each time, while an epoch has few such beginnings, and a model that has seen too few
takes the silence for a pause. So the first moments of clips stand on the tape once more, each behind silence. Of few
long clips it is the first moments after their pauses, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.data.conditioning import ClipCondition, ConditionTable, Segment, join_segments, stack_tables
from wavegen.data.corpus import Clip
from wavegen.errors import DataError

MOST_BEGINNINGS = 4  # of a clip in an epoch: more of few clips would be learnt by heart
LOUD_QUANTILE = 0.95  # of the windows' mean powers
QUIET = 0.01  # of that power: windows 20 dB and more below are quiet
POWER_BLOCK = 256  # samples whose power is summed up: a window's loudness need not be finer
POWER_STRIDE = 4  # every fourth of them, which is enough, and four times as fast
POWER_PART = 4096 * POWER_BLOCK  # samples that are read at once: a long clip would fill the memory
FULL_POWER = 1 << 20  # an amplitude of 1 squared: sums of whole numbers are the same on every machine


@dataclass(frozen=True)
class Batch:
    """The windows of a training step.

    Args:
        inputs: (B, receptive_field - 1 + window_targets) int64 classes.
        targets: (B, window_targets) int64 classes; target i is predicted from inputs i .. i + receptive_field - 1.
        is_real: (B, window_targets) bool; False at the silence between clips, which is no target.
        condition: of each window: what step i, which predicts the sample after input i, is conditioned on.
        first: the number of its first window in the stream.

    Windows of series of numbers have float32 values as inputs, and (B, window_targets, horizon) of them as targets.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    is_real: npt.NDArray[np.bool_]
    condition: ConditionTable | None = None
    first: int = 0


class Piece(NamedTuple):
    """A piece of a clip, and of the silence before it, in a window.

    Attributes:
        at: where it begins in the window, which is a receptive field of past and then targets.
        clip: the clip's number.
        begin: the first of its targets, counted from the clip's first; negative in the silence before it.
        length: of the piece.
    """

    at: int
    clip: int
    begin: int
    length: int


@dataclass(frozen=True)
class _Epoch:
    """One epoch's shuffles.

    Args:
        order: the clips in their order on the tape, some of them again, of which only a beginning stands there.
        origins: where in its clip each begins: 0, or for a beginning after a pause the pause's end.
        lengths: the targets of each.
        gaps: the silence before each, in samples.
        starts: where each (its silence first) begins on the tape.
        windows: the places of the windows in the order in which they are visited.
        offset: where the first window begins on the tape, which is a ring.
    """

    order: npt.NDArray[np.int64]
    origins: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    offset: int


class ClipPowers:
    """The summed power of clips up to any of their samples.

    Args:
        clips: the classes of each, (T,); read once, in parts.
        amplitudes: (classes,) the amplitude of each class.
    """

    def __init__(self, clips: Iterable[npt.NDArray[Any]], amplitudes: npt.NDArray[np.float32]) -> None:
        of_class = np.rint(np.square(amplitudes, dtype=np.float64) * FULL_POWER).astype(np.int64)
        of_blocks, first_blocks = [np.zeros(1, dtype=np.int64)], [0]
        for classes in clips:
            for at in range(0, len(classes), POWER_PART):
                part = of_class[classes[at : at + POWER_PART : POWER_STRIDE]] * POWER_STRIDE
                of_blocks.append(np.add.reduceat(part, np.arange(0, len(part), POWER_BLOCK // POWER_STRIDE)))
            # the last block is as long as the others: one that is shorter counts as if it went on as it is
            n_summed = POWER_STRIDE * ((len(classes) - 1) % POWER_BLOCK // POWER_STRIDE + 1)
            of_blocks[-1][-1] = of_blocks[-1][-1] * POWER_BLOCK // n_summed
            first_blocks.append(first_blocks[-1] - (-len(classes) // POWER_BLOCK))
        before_blocks = np.concatenate(of_blocks)
        self._before_blocks, self._first_blocks = np.cumsum(before_blocks, out=before_blocks), np.array(first_blocks)

    def before(self, clips: npt.NDArray[np.int64], samples: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the summed power of all that lies before some samples: in their clip, and in the clips before it.

        Args:
            clips: (N,) their numbers.
            samples: (N,) places in them.
        """
        blocks, rest = np.divmod(samples, POWER_BLOCK)
        blocks += self._first_blocks[clips]
        next_blocks = np.minimum(blocks + 1, self._first_blocks[-1])
        power = self._before_blocks[blocks]
        # within a block all samples count alike
        in_block: npt.NDArray[np.float64] = (self._before_blocks[next_blocks] - power) * (rest / POWER_BLOCK)
        return power + in_block


@dataclass(frozen=True)
class Order:
    """The order of clips on the tape, and how often windows are visited.

    Args:
        following: share of the clips that follow another one, without silence before them.
        labels: of the clips, one each; a clip follows one of its own label. None for a single label.
        beginnings: share of the tape, about, for the first moments of clips behind silence once more.
        beginning: their length in samples.
        after_pauses: finds where in a clip, by its number, sound begins after a pause; asked only where there are too
            few clips for that share.
        quiet_weight: how often a quiet window is visited, relative to others.
        powers: of the clips, by which windows are quiet; None where all are visited alike.
    """

    following: float = 0.0
    labels: Sequence[str | None] | None = None
    beginnings: float = 0.0
    beginning: int = 0
    after_pauses: Callable[[int], Sequence[int]] | None = None
    quiet_weight: float = 1.0
    powers: ClipPowers | None = None


class Tape:
    """The pieces of clips in each window of an endless stream.

    It depends on the clips' lengths, and where quiet windows have a weight on their powers.

    Args:
        lengths: targets of each clip, 1 or more.
        receptive_field: samples of past that one prediction sees.
        window_targets: predictions in a window.
        seed: decides the shuffles.
        order: of the clips and windows.

    Raises:
        DataError: there is no clip.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        receptive_field: int,
        window_targets: int,
        seed: int,
        order: Order = Order(),
    ) -> None:
        if not lengths:
            raise DataError("expected at least one training clip, found none")
        self.receptive_field = receptive_field
        self.window_targets = window_targets
        self.seed = seed
        self._lengths = np.array(lengths)
        self.order = order
        each = order.labels if order.labels is not None and order.following else [None] * len(lengths)
        names, self._labels = np.unique(np.array([str(label) for label in each]), return_inverse=True)
        # the same number in every epoch, so that all epochs have as many windows; each label's first clip is among them
        self.n_after_silence = max(len(names), round((1 - order.following) * len(lengths)))
        self.tape_length = int(self._lengths.sum()) + self.n_after_silence * receptive_field
        fitting = round(order.beginnings * self.tape_length / (receptive_field + order.beginning))
        places = [(clip, 0) for clip in np.flatnonzero(self._lengths >= order.beginning).tolist()]
        if order.after_pauses is not None and fitting > MOST_BEGINNINGS * len(places):
            onsets = [(clip, at) for clip, _ in places for at in order.after_pauses(clip)]
            places += [(clip, at) for clip, at in onsets if 0 < at <= lengths[clip] - order.beginning]
        self._beginnings = np.array(places, dtype=np.int64).reshape(-1, 2)  # each a clip, and where in it
        self.n_beginnings = min(fitting, MOST_BEGINNINGS * len(places))
        self.tape_length += self.n_beginnings * (receptive_field + order.beginning)
        self.windows_per_epoch = -(-self.tape_length // window_targets)
        self._epoch = lru_cache(maxsize=2)(self._shuffle)  # a batch can straddle two epochs

    def n_targets(self, first: int, count: int) -> int:
        """Count the real targets of items first .. first + count - 1, without reading any."""
        field = self.receptive_field
        pieces = (piece for row in range(count) for piece in self.pieces(first + row))
        # the targets of a piece begin behind its silence, and behind the window's past
        return sum(max(0, at + length - max(at + max(-begin, 0), field)) for at, _, begin, length in pieces)

    def pieces(self, item: int) -> Iterator[Piece]:
        """Yield the pieces of clips in item's window, in their order."""
        number, place = divmod(item, self.windows_per_epoch)
        epoch = self._epoch(number)
        window = int(epoch.windows[place])
        targets_from = epoch.offset + window * self.window_targets  # the first target's place on the ring
        start = targets_from - self.receptive_field
        end = min(targets_from + self.window_targets, epoch.offset + self.tape_length)  # the last window is shorter
        at = start
        while at < end:
            on_tape = at % self.tape_length
            slot = int(np.searchsorted(epoch.starts, on_tape, side="right")) - 1
            clip = int(epoch.order[slot])
            here = on_tape - int(epoch.starts[slot])
            gap = int(epoch.gaps[slot])
            origin = int(epoch.origins[slot])
            # the silence before a beginning in the midst of its clip is a piece of its own
            stop = gap if origin and here < gap else gap + int(epoch.lengths[slot])
            length = int(min(end - at, stop - here))
            yield Piece(at - start, clip, here - gap + (origin if here >= gap else 0), length)
            at += length

    def _shuffle(self, number: int) -> _Epoch:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, number])))
        order = rng.permutation(len(self._lengths))
        windows, offset = rng.permutation(self.windows_per_epoch), int(rng.integers(self.tape_length))
        order = order[np.argsort(self._labels[order], kind="stable")]  # shuffled within each label
        is_first = np.diff(self._labels[order], prepend=-1) != 0
        others = rng.permutation(np.flatnonzero(~is_first))[: self.n_after_silence - int(is_first.sum())]
        gaps = np.where(is_first, self.receptive_field, 0)
        gaps[others] = self.receptive_field
        # The beginnings stand behind the clips of all labels, before the first clip, which begins after silence: no
        # clip follows one.
        again = rng.permutation(np.repeat(np.arange(len(self._beginnings)), MOST_BEGINNINGS))[: self.n_beginnings]
        again, origins = self._beginnings[again].T
        origins = np.concatenate([np.zeros_like(order), origins])
        lengths = np.concatenate([self._lengths[order], np.full(len(again), self.order.beginning)])
        gaps = np.concatenate([gaps, np.full(len(again), self.receptive_field)])
        starts = np.concatenate([[0], np.cumsum(gaps + lengths)[:-1]])
        order = np.concatenate([order, again])
        epoch = _Epoch(order, origins, lengths, gaps, starts, windows, offset)
        if self.order.powers is None:
            return epoch
        return replace(epoch, windows=self._draw_by_power(self._mean_powers(epoch, self.order.powers), rng))

    def _draw_by_power(self, powers: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw as many windows as an epoch has, the quiet ones by their weight; return them shuffled.

        Systematic resampling: window i is visited floor(w_i) or ceil(w_i) times, w_i its share of the visits.
        """
        is_quiet = powers < QUIET * np.quantile(powers, LOUD_QUANTILE)
        visits = np.cumsum(np.where(is_quiet, self.order.quiet_weight, 1.0))
        visits *= len(powers) / visits[-1]
        visits[-1] = len(powers)  # whatever was rounded
        times = np.diff(np.floor(visits + rng.random()), prepend=0).astype(np.int64)
        return rng.permutation(np.repeat(np.arange(len(powers)), times))

    def _mean_powers(self, epoch: _Epoch, powers: ClipPowers) -> npt.NDArray[np.float64]:
        """Return the mean power of the targets of each of an epoch's windows, in their order on the tape."""
        edges = epoch.offset + np.arange(self.windows_per_epoch + 1) * self.window_targets
        edges[-1] = epoch.offset + self.tape_length  # the last window is shorter
        begins = powers.before(epoch.order, epoch.origins)
        of_slots = powers.before(epoch.order, epoch.origins + epoch.lengths) - begins
        before_slots = np.concatenate([[0], np.cumsum(of_slots)])
        turns, places = np.divmod(edges, self.tape_length)
        slots = np.searchsorted(epoch.starts, places, side="right") - 1
        inside = np.clip(places - epoch.starts[slots] - epoch.gaps[slots], 0, epoch.lengths[slots])
        in_slot = powers.before(epoch.order[slots], epoch.origins[slots] + inside) - begins[slots]
        of_windows: npt.NDArray[np.float64] = np.diff(turns * before_slots[-1] + before_slots[slots] + in_slot)
        lengths = np.concatenate([[0], np.cumsum(epoch.lengths)])
        n_targets = np.diff(turns * lengths[-1] + lengths[slots] + inside)  # the silence between clips is none
        of_windows /= np.maximum(n_targets, 1)
        return of_windows


class WindowStream(Tape):
    """The endless stream of training windows.

    Args:
        clips: the training clips, none of them empty.
        receptive_field: samples of past that one prediction sees.
        window_targets: predictions in a window.
        silence: the class before a clip's start; negative for a network that has zeros there.
        seed: decides the shuffles.
        condition_of: what a clip is conditioned on; None for nothing.
        order: as ``Tape``.

    Raises:
        DataError: there is no clip.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        receptive_field: int,
        window_targets: int,
        silence: int,
        seed: int,
        condition_of: Callable[[Clip], ClipCondition] | None = None,
        order: Order = Order(),
    ) -> None:
        super().__init__([clip.n_samples for clip in clips], receptive_field, window_targets, seed, order)
        self.clips = clips
        self.silence = silence
        self.condition_of = condition_of
        if condition_of is not None:  # tables have one size in all windows
            n_samples = receptive_field + window_targets
            # A window sees the most pieces where the shortest clips happen to lie side by side, and it may begin and
            # end inside of one.
            shortest = np.sort(self._lengths + (0 if order.following else receptive_field))
            if self.n_beginnings:
                # the silence before a beginning in the midst of its clip is a piece of its own
                whole = receptive_field + order.beginning
                in_pieces = [receptive_field, order.beginning] if self._beginnings[:, 1].any() else [whole]
                shortest = np.sort(np.concatenate([shortest, np.repeat(in_pieces, self.n_beginnings)]))
            turns, rest = divmod(n_samples, int(shortest.sum()))  # of a tape that is shorter than a window
            most_pieces = 2 + turns * len(shortest) + int(np.searchsorted(np.cumsum(shortest), rest, side="right"))
            self._table_rows = condition_of(self.clips[0]).most_rows(n_samples, most_pieces)

    def batch(self, first: int, count: int) -> Batch:
        """Return items first .. first + count - 1 of the stream as one batch."""
        field, length = self.receptive_field, self.receptive_field + self.window_targets
        # (B, receptive field of past + targets): a stretch of tape for each window
        samples = np.full((count, length), self.silence, dtype=np.int64)
        is_real = np.zeros((count, length), dtype=np.bool_)
        seen: list[list[Segment]] = [[] for _ in range(count)]
        for row in range(count):
            for piece in self.pieces(first + row):
                clip, stop = self.clips[piece.clip], piece.begin + piece.length
                begin = min(max(piece.begin, 0), stop)  # behind the silence
                if begin < stop:
                    place = slice(piece.at + begin - piece.begin, piece.at + piece.length)
                    samples[row, place], is_real[row, place] = clip.classes()[begin:stop], True
                if self.condition_of is not None:
                    seen[row].append((self.condition_of(clip), piece.begin, stop))
        condition = None
        if self.condition_of is not None:  # a step predicts the sample after its input
            rows = stack_tables([join_segments(segments, self._table_rows, length) for segments in seen])
            condition = rows._replace(row_of=np.ascontiguousarray(rows.row_of[:, 1:]))
        # tape[:, :-1] -> inputs, tape[:, field:] -> targets: target i lies one sample behind the last of its inputs,
        # i .. i + field - 1. Where the silence is negative, positions that are no targets become class 0.
        return Batch(samples[:, :-1], np.maximum(samples[:, field:], 0), is_real[:, field:], condition, first)
