"""The windows of a training: item i of the stream is a pure function of (seed, i).

An epoch lays the clips end to end in a shuffled order. Some stand behind a receptive field of silence: a model learns
from them how a clip begins. The others follow the clip before, so that a model learns what comes after an end; without
them it stays in the silence that every clip fades into. The tape is cut into windows of equal length, which are
shuffled too:

    tape:     ....aaaaaaaaaaaaaaaaaaaaabbbbbbbbbb....ccccccccccccccc            . = silence, never a target
    windows:  |-------|-------|-------|-------|-------|-------|-------|

A window's inputs are its targets' past on the tape, one receptive field of it. Every target of every clip is visited
once in an epoch; the clips behind silence and the cuts are others in each epoch; no window is padded but for the
silence between clips. A clip follows one of its own label.

Generation begins after silence each time, while an epoch has few such beginnings, and a model that has seen too few
takes the silence for a pause. So the first moments of clips stand on the tape once more, each behind silence. Of few
long clips it is the first moments after their pauses, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from wavegen.data.conditioning import ClipCondition, ConditionTable, Segment, join_segments, stack_tables
from wavegen.errors import DataError


class ClassSource(Protocol):
    """A clip's classes."""

    @property
    def n_samples(self) -> int:
        """Length of the clip."""

    def classes(self) -> npt.NDArray[Any]:
        """Return the (n_samples,) classes."""


Source = TypeVar("Source", bound=ClassSource)
MOST_BEGINNINGS = 4  # of a clip in an epoch: more of few clips would be learnt by heart


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


class Tape:
    """The pieces of clips in each window of an endless stream; it depends on the clips' lengths alone.

    Args:
        lengths: targets of each clip, 1 or more.
        receptive_field: samples of past that one prediction sees.
        window_targets: predictions in a window.
        seed: decides the shuffles.
        following: share of the clips that follow another one, without silence before them.
        labels: of the clips, one each; a clip follows one of its own label. None for a single label.
        beginnings: share of the tape, about, for the first moments of clips behind silence once more.
        beginning: their length in samples.
        after_pauses: finds where in a clip sound begins after a pause; asked only where there are too few clips for
            that share.

    Raises:
        DataError: there is no clip.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        receptive_field: int,
        window_targets: int,
        seed: int,
        following: float = 0.0,
        labels: Sequence[str | None] | None = None,
        beginnings: float = 0.0,
        beginning: int = 0,
        after_pauses: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        if not lengths:
            raise DataError("expected at least one training clip, found none")
        self.receptive_field = receptive_field
        self.window_targets = window_targets
        self.seed = seed
        self._lengths = np.array(lengths)
        each = labels if labels is not None and following else [None] * len(lengths)
        names, self._labels = np.unique(np.array([str(label) for label in each]), return_inverse=True)
        # the same number in every epoch, so that all epochs have as many windows; each label's first clip is among them
        self.n_after_silence = max(len(names), round((1 - following) * len(lengths)))
        self.tape_length = int(self._lengths.sum()) + self.n_after_silence * receptive_field
        self._beginning = beginning
        fitting = round(beginnings * self.tape_length / (receptive_field + beginning))
        places = [(clip, 0) for clip in np.flatnonzero(self._lengths >= beginning).tolist()]
        if after_pauses is not None and fitting > MOST_BEGINNINGS * len(places):
            places += [
                (clip, at) for clip, _ in places for at in after_pauses(clip) if 0 < at <= lengths[clip] - beginning
            ]
        self._beginnings = np.array(places, dtype=np.int64).reshape(-1, 2)  # each a clip, and where in it
        self.n_beginnings = min(fitting, MOST_BEGINNINGS * len(places))
        self.tape_length += self.n_beginnings * (receptive_field + beginning)
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
        lengths = np.concatenate([self._lengths[order], np.full(len(again), self._beginning)])
        gaps = np.concatenate([gaps, np.full(len(again), self.receptive_field)])
        starts = np.concatenate([[0], np.cumsum(gaps + lengths)[:-1]])
        order = np.concatenate([order, again])
        return _Epoch(order, origins, lengths, gaps, starts, windows, offset)


class WindowStream(Tape, Generic[Source]):
    """The endless stream of training windows.

    Args:
        clips: the training clips; empty ones are left out.
        receptive_field: samples of past that one prediction sees.
        window_targets: predictions in a window.
        silence: the class before a clip's start; negative for a network that has zeros there.
        seed: decides the shuffles.
        condition_of: what a clip is conditioned on; None for nothing.
        following, labels, beginnings, beginning: as ``Tape``.
        after_pauses: the same as there, of a clip instead of its number.

    Raises:
        DataError: there is no sample to train on.
    """

    def __init__(
        self,
        clips: Sequence[Source],
        receptive_field: int,
        window_targets: int,
        silence: int,
        seed: int,
        condition_of: Callable[[Source], ClipCondition] | None = None,
        following: float = 0.0,
        labels: Sequence[str | None] | None = None,
        beginnings: float = 0.0,
        beginning: int = 0,
        after_pauses: Callable[[Source], Sequence[int]] | None = None,
    ) -> None:
        self.clips = [clip for clip in clips if clip.n_samples]
        if labels is not None:
            labels = [label for clip, label in zip(clips, labels, strict=True) if clip.n_samples]
        lengths = [clip.n_samples for clip in self.clips]
        find = None if after_pauses is None else lambda clip: after_pauses(self.clips[clip])
        super().__init__(lengths, receptive_field, window_targets, seed, following, labels, beginnings, beginning, find)
        self.silence = silence
        self.condition_of = condition_of
        if condition_of is not None:  # tables have one size in all windows
            n_samples = receptive_field + window_targets
            # A window sees the most pieces where the shortest clips happen to lie side by side, and it may begin and
            # end inside of one.
            shortest = np.sort(self._lengths + (0 if following else receptive_field))
            if self.n_beginnings:
                # the silence before a beginning in the midst of its clip is a piece of its own
                in_pieces = (
                    [receptive_field, beginning] if self._beginnings[:, 1].any() else [receptive_field + beginning]
                )
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
