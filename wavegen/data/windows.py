"""Which window is item i of the training stream: a pure function of (seed, i).

An epoch lays the clips end to end in a shuffled order. Some stand behind a receptive field of silence: a model learns
from them how a clip begins. The others follow the clip before, so that a model learns what comes after an end; without
them it stays in the silence that every clip fades into. The tape is cut into windows of equal length, which are
shuffled too:

    tape:     ....aaaaaaaaaaaaaaaaaaaaabbbbbbbbbb....ccccccccccccccc            . = silence, never a target
    windows:  |-------|-------|-------|-------|-------|-------|-------|

A window's inputs are its targets' past on the tape, one receptive field of it. Every target of every clip is visited
once in an epoch; the clips behind silence and the cuts are others in each epoch; no window is padded but for the
silence between clips. A clip follows one of its own label.

Of a series of numbers a target is the next values, as many as the horizon has. Its first value is none, for nothing is
forecast before it, and where too few follow there is none: the tape holds each series without its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from wavegen.audio.conditions import ClipCondition, ConditionRows, Stretch, rows_of_stretches, stacked
from wavegen.errors import DataError


class ClassSource(Protocol):
    """Something that holds a clip's classes, or a series's values."""

    @property
    def n_samples(self) -> int:
        """Length of the clip."""

    def classes(self) -> npt.NDArray[Any]:
        """The (n_samples,) classes, or values."""


Source = TypeVar("Source", bound=ClassSource)


@dataclass(frozen=True)
class Batch:
    """What a training step sees.

    Args:
        inputs: (B, receptive_field - 1 + window_targets) int64 classes, or float32 values.
        targets: (B, window_targets) int64 classes, or (B, window_targets, horizon) float32 values; target i is
            predicted from inputs i .. i + receptive_field - 1.
        is_real: (B, window_targets) bool; False at the silence between clips, which is no target.
        condition: of each window: what step i, which predicts the sample after input i, is conditioned on.
        first: the number of its first window in the stream.
    """

    inputs: npt.NDArray[Any]
    targets: npt.NDArray[Any]
    is_real: npt.NDArray[np.bool_]
    condition: ConditionRows | None = None
    first: int = 0


@dataclass(frozen=True)
class _Epoch:
    """One epoch's shuffles.

    Args:
        order: the clips in their order on the tape.
        gaps: the silence before each of them, in samples.
        starts: where each of them (its silence first) begins on the tape.
        windows: the places of the windows in the order in which they are visited.
        offset: where the first window begins on the tape, which is a ring.
    """

    order: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    windows: npt.NDArray[np.int64]
    offset: int


class WindowStream(Generic[Source]):
    """The endless stream of training windows.

    Args:
        clips: the training clips.
        receptive_field: samples of past that one prediction sees.
        window_targets: predictions in a window.
        silence: the class before a clip's start; negative for a network that has zeros there.
        seed: decides the shuffles.
        condition_of: what a clip is conditioned on; None for nothing.
        following: share of the clips that follow another one, without silence before them.
        labels: of the clips, one each; a clip follows one of its own label. None for a single label.
        horizon: of series: next values in a target, which are no longer classes; None for clips of sound.

    Raises:
        DataError: there is no sample to train on.
    """

    def __init__(
        self,
        clips: Sequence[Source],
        receptive_field: int,
        window_targets: int,
        silence: float,
        seed: int,
        condition_of: Callable[[Source], ClipCondition] | None = None,
        following: float = 0.0,
        labels: Sequence[str | None] | None = None,
        horizon: int | None = None,
    ) -> None:
        self.horizon = horizon
        self._first = 0 if horizon is None else 1  # a clip's first target
        beside = self._first + (horizon or 1) - 1  # samples that are none
        self.clips = [clip for clip in clips if clip.n_samples > beside]
        each = labels if labels is not None and following else [None] * len(clips)
        kept = [str(label) for clip, label in zip(clips, each, strict=True) if clip.n_samples > beside]
        names, self._labels = np.unique(np.array(kept, dtype=str), return_inverse=True)
        if not self.clips:
            raise DataError("expected at least one training clip, found none")
        self.receptive_field = receptive_field
        self.window_targets = window_targets
        self.silence = silence
        self.seed = seed
        self._lengths = np.array([clip.n_samples - beside for clip in self.clips])
        # the same number in every epoch, so that all epochs have as many windows; each label's first clip is among them
        self.n_after_silence = max(len(names), round((1 - following) * len(self.clips)))
        self.tape_length = int(self._lengths.sum()) + self.n_after_silence * receptive_field
        self.windows_per_epoch = -(-self.tape_length // window_targets)
        self.condition_of = condition_of
        if condition_of is not None:  # all windows have tables of one size, whatever clips they see
            n_samples = receptive_field + window_targets
            shortest = np.sort(self._lengths + (0 if following else receptive_field))
            turns, rest = divmod(n_samples, int(shortest.sum()))  # of a tape that is shorter than a window
            most_stretches = 2 + turns * len(shortest) + int(np.searchsorted(np.cumsum(shortest), rest, side="right"))
            self._table_rows = condition_of(self.clips[0]).most_rows(n_samples, most_stretches)
        self._epoch = lru_cache(maxsize=2)(self._shuffle)  # a batch can straddle two epochs

    def batch(self, first: int, count: int) -> Batch:
        """Items first .. first + count - 1 of the stream, as one batch."""
        field, n_targets = self.receptive_field, self.window_targets
        tape = np.full((count, field + n_targets), self.silence, dtype=np.int64 if self.horizon is None else np.float32)
        is_real = np.zeros((count, field + n_targets), dtype=np.bool_)
        ahead = None if self.horizon is None else np.zeros((*tape.shape, self.horizon), dtype=np.float32)
        seen = [
            self._fill(first + row, tape[row], is_real[row], None if ahead is None else ahead[row])
            for row in range(count)
        ]
        condition = None
        if self.condition_of is not None:  # a step predicts the sample after its input
            rows = stacked([rows_of_stretches(stretches, self._table_rows, field + n_targets) for stretches in seen])
            condition = rows._replace(row_of=np.ascontiguousarray(rows.row_of[:, 1:]))
        # what is no target is a class all the same
        targets = np.maximum(tape[:, field:], 0) if ahead is None else ahead[:, field:]
        return Batch(tape[:, :-1], targets, is_real[:, field:], condition, first)

    def n_targets(self, first: int, count: int) -> int:
        """How many targets of a batch are real, without reading any."""
        field = self.receptive_field
        stretches = (stretch for row in range(count) for stretch in self._stretches(first + row))
        return sum(
            max(0, at + length - max(at + max(self._first - inside, 0), field)) for at, _, inside, length in stretches
        )

    def _fill(
        self,
        item: int,
        tape: npt.NDArray[Any],
        is_real: npt.NDArray[np.bool_],
        ahead: npt.NDArray[np.float32] | None,
    ) -> list[Stretch]:
        """Copy the stretch of tape that item's window sees: a receptive field of past, then its targets.

        Returns:
            The conditions along it; nothing where there are none.
        """
        seen: list[Stretch] = []
        for at, clip, inside, length in self._stretches(item):
            silent = min(max(-inside, 0), length)
            if silent < length:
                classes = self.clips[clip].classes()
                tape[at + silent : at + length] = classes[inside + silent : inside + length]
                real = min(max(self._first - inside, 0), length)  # so many are no targets
                is_real[at + real : at + length] = True
                if ahead is not None:
                    following = sliding_window_view(classes, ahead.shape[1])
                    ahead[at + real : at + length] = following[inside + real : inside + length]
            if self.condition_of is not None:
                seen.append((self.condition_of(self.clips[clip]), inside, inside + length))
        return seen

    def _stretches(self, item: int) -> Iterator[tuple[int, int, int, int]]:
        """The pieces of clips in item's window: the place in it, the clip, the first sample there, their number.

        A first sample below 0 lies in the silence before the clip. The targets of series begin with the second value.
        """
        number, place = divmod(item, self.windows_per_epoch)
        epoch = self._epoch(number)
        window = int(epoch.windows[place])
        targets_from = epoch.offset + window * self.window_targets  # the first target's place on the ring
        begin = targets_from - self.receptive_field
        end = min(targets_from + self.window_targets, epoch.offset + self.tape_length)  # the last window is shorter
        at = begin
        while at < end:
            on_tape = at % self.tape_length
            slot = int(np.searchsorted(epoch.starts, on_tape, side="right")) - 1
            clip = int(epoch.order[slot])
            here = on_tape - int(epoch.starts[slot])
            gap = int(epoch.gaps[slot])
            inside = here - gap + self._first  # negative in the clip's silence
            length = int(min(end - at, gap + self._lengths[clip] - here))
            yield at - begin, clip, inside, length
            at += length

    def _shuffle(self, number: int) -> _Epoch:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, number])))
        order = rng.permutation(len(self.clips))
        windows, offset = rng.permutation(self.windows_per_epoch), int(rng.integers(self.tape_length))
        order = order[np.argsort(self._labels[order], kind="stable")]  # shuffled within each label
        is_first = np.diff(self._labels[order], prepend=-1) != 0
        others = rng.permutation(np.flatnonzero(~is_first))[: self.n_after_silence - int(is_first.sum())]
        gaps = np.where(is_first, self.receptive_field, 0)
        gaps[others] = self.receptive_field
        starts = np.concatenate([[0], np.cumsum(gaps + self._lengths[order])[:-1]])
        return _Epoch(order, gaps, starts, windows, offset)
