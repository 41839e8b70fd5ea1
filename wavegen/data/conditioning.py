"""Conditions of a clip: a label for the whole clip, frames along it.

The network sees conditions as a table of rows and, for each step, the index of a row. A row is a label and a
frame; learned upsampling makes several rows of each frame, which are counted here already:

    labels   a a a a a a      frames   0 0 1 2 3 3          a frame of context on either side, the clip's ends repeated
    row_of   2 2 2 3 3 3 4 4 4 5 5 5 ...                    two rows of each frame, three samples each

The step that predicts sample t of a clip sees frame t // hop_length. Before the clip there is its first row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import ClipFrames, Features, Frames, FrameSource, MelSpectrogram, normalized
from wavegen.audio.quantize import Decoded, Floats, Quantizer, build_quantizer
from wavegen.config import Config
from wavegen.data.corpus import Clip
from wavegen.errors import ParameterError
from wavegen.text import guide, list_first, printable


class ConditionTable(NamedTuple):
    """A table of conditions, and which of its rows each step sees; in a batch all shapes begin with B.

    Attributes:
        labels: (R, L) weights of the labels; None for a network without them.
        frames: (R, D) normalized frames; None for a network without them.
        row_of: (T,) int64, each step's place among the rows that the network makes of these R.
    """

    labels: Floats | None
    frames: Floats | None
    row_of: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClipCondition:
    """The condition of one clip.

    Args:
        label: (L,) float32 weights of the labels; None for a network without them.
        frames: its frames; None for a network without them.
        hop_length: samples that a frame stands for.
        upsampling: rows that the network makes of a frame.
        normalize: makes of frames what the network sees.
    """

    label: Floats | None = None
    frames: Frames | None = None
    hop_length: int = 1
    upsampling: int = 1
    normalize: Callable[[Floats], Floats] = normalized

    def rows(self, first: int, stop: int) -> ConditionTable:
        """Return the conditions of the samples first .. stop - 1, which may lie before the clip."""
        if self.frames is None:
            labels = None if self.label is None else self.label[None]
            return ConditionTable(labels, None, np.zeros(stop - first, np.int64))
        # sample t -> frame t // hop and its place inside, with the clip's ends held before and after it
        within = np.clip(np.arange(first, stop), 0, len(self.frames) * self.hop_length - 1)
        frame, inside = np.divmod(within, self.hop_length)
        begin = int(frame[0])
        frames = self.padded_frames(begin, int(frame[-1]) + 1)
        # + 1: the table has a frame of context in front. Each row of it becomes `upsampling` rows in the network.
        index = (frame - begin + 1) * self.upsampling + inside * self.upsampling // self.hop_length
        return ConditionTable(
            None if self.label is None else np.repeat(self.label[None], len(frames), 0), frames, index
        )

    @property
    def rows_per_frame(self) -> int:
        """Rows that the network makes of each row of the table."""
        return 1 if self.frames is None else self.upsampling

    def most_rows(self, n_samples: int, n_stretches: int) -> int:
        """Return the rows of the largest table for n_samples in n_stretches segments of clips conditioned like this."""
        return n_stretches if self.frames is None else n_samples // self.hop_length + 4 * n_stretches

    def padded_frames(self, first: int, stop: int) -> Floats:
        """Return the normalized frames first - 1 .. stop, (stop - first + 2, D), with the clip's ends repeated."""
        assert self.frames is not None
        places = np.clip(np.arange(first - 1, stop + 1), 0, len(self.frames) - 1)
        begin = int(places[0])
        return self.normalize(self.frames[begin : int(places[-1]) + 1])[places - begin]


Segment = tuple[ClipCondition, int, int]  # of a clip: from one of its samples to another


def join_segments(stretches: Sequence[Segment], n_rows: int, length: int) -> ConditionTable:
    """Join the conditions of segments of clips that follow each other.

    Args:
        stretches: one or more.
        n_rows: of the table, which is filled up with zeros.
        length: of ``row_of``, which is filled up with its last entry.
    """
    parts, index, begin = [], [], 0
    for condition, first, stop in stretches:
        rows = condition.rows(first, stop)
        parts.append(rows)
        index.append(rows.row_of + begin * condition.rows_per_frame)
        begin += max(0 if table is None else len(table) for table in rows[:2])

    def join(tables: Sequence[Floats]) -> Floats:
        # [(rows of a segment, width), ...] -> (n_rows, width)
        return np.pad(np.concatenate(tables), ((0, n_rows - begin), (0, 0)))

    steps = np.concatenate(index)
    return ConditionTable(*_combine(parts, join), np.pad(steps, (0, length - len(steps)), mode="edge"))


def stack_tables(sequences: Sequence[ConditionTable]) -> ConditionTable:
    """Stack tables of equal size as a batch: B times (R, width) -> (B, R, width)."""
    return ConditionTable(*_combine(sequences, np.stack), np.stack([one.row_of for one in sequences]))


def _combine(
    tables: Sequence[ConditionTable], combine: Callable[[Sequence[Floats]], Floats]
) -> tuple[Floats | None, Floats | None]:
    """Return the labels of all tables as one array, and their frames; None for what they do not have."""
    labels = [table.labels for table in tables if table.labels is not None]
    frames = [table.frames for table in tables if table.frames is not None]
    return combine(labels) if labels else None, combine(frames) if frames else None


@dataclass(frozen=True)
class Conditioner:
    """The conditioning of a model's clips.

    Args:
        labels: in the model's order; none for a model without.
        frames: their convention; None for a model without.
        upsampling: rows that the network makes of a frame.
        quantizer: the model's companding.
    """

    labels: tuple[str, ...]
    frames: FrameSource | None
    upsampling: int
    quantizer: Quantizer

    @property
    def is_needed(self) -> bool:
        """True if the model has conditions."""
        return bool(self.labels) or self.frames is not None

    def on_gpu(self) -> Conditioner:
        """Return the same conditioning for a GPU, which computes mel frames itself: see ``DeviceFrames``."""
        mel = self.frames
        return replace(self, frames=replace(mel, in_windows=True)) if isinstance(mel, MelSpectrogram) else self

    def of_clip(
        self,
        classes: npt.NDArray[np.integer],
        label: str | Mapping[str, float] | None,
        features: Frames | None = None,
    ) -> ClipCondition | None:
        """Return the condition of a recording: its label, and its own frames; None for a model without any.

        Args:
            classes: (T,) of the recording.
            label: a name, as a corpus has it, or weights by name, as a user gives them.
            features: of the recording, checked; mel frames are computed.

        Raises:
            UsageError: the label is none of the model's, or features are missing.
        """
        frames = features
        if isinstance(self.frames, MelSpectrogram):
            frames = ClipFrames(self.frames, Decoded(classes, self.quantizer))
        elif self.frames is not None and features is None:
            raise ParameterError("features", f"expected those of the recording, {self.frames}, found none")
        if not isinstance(label, Mapping):  # a model without labels may be given recordings that have some
            label = {label: 1.0} if label is not None and self.labels else None
        return self._condition(self._mixed(label), frames)

    def of_recording(self, clip: Clip) -> ClipCondition:
        """Return the condition of a clip of a corpus, for a model that needs one."""
        features = None if clip.features is None else clip.features.frames()
        condition = self.of_clip(clip.classes(), clip.label, features)
        assert condition is not None
        return condition

    def to_generate(
        self,
        label: Mapping[str, float] | None,
        mel: npt.ArrayLike | Frames | None = None,
        features: npt.ArrayLike | Frames | None = None,
    ) -> ClipCondition | None:
        """Return the condition of a new clip; None for a model without any.

        Args:
            label: weights by name, which need not sum to 1; None for a model without labels.
            mel: mel frames in the model's convention, a clip's or (F, n_mels); None for a model without.
            features: likewise, (F, D).

        Raises:
            UsageError: something is missing, not for this model, or there is no such label.
        """
        given: dict[type[FrameSource], Any] = {MelSpectrogram: mel, Features: features}
        for kind, frames in given.items():
            if frames is not None:
                self.check_takes(kind)
        if self.frames is None:
            return self._condition(self._mixed(label), None)
        own = given[type(self.frames)]
        if own is None:
            expected = f"expected {self.frames.noun}, which this model makes sound of, found none"
            raise ParameterError(self.frames.name, expected)
        return self._condition(self._mixed(label), self.frames.checked(own, self.frames.name))

    def check_takes(self, kind: type[FrameSource], parameter: str | None = None) -> None:
        """Make sure that the model is conditioned on frames of a kind.

        Args:
            kind: of the frames.
            parameter: that gives them; by default the kind's own.

        Raises:
            ParameterError: it is not.
        """
        if not isinstance(self.frames, kind):
            problem = f"this model is not conditioned on {kind.kind}; leave it out, see {guide(kind.guide)}"
            raise ParameterError(parameter or kind.name, problem)

    def _condition(self, label: Floats | None, frames: Frames | None) -> ClipCondition | None:
        if not self.is_needed:
            return None
        if self.frames is None:
            return ClipCondition(label)
        return ClipCondition(label, frames, self.frames.hop_length, self.upsampling, self.frames.normalize)

    def _mixed(self, label: Mapping[str, float] | None) -> Floats | None:
        if label and not self.labels:
            raise ParameterError("label", f"this model has no labels; leave it out, or see {guide('voices')}")
        if not self.labels:
            return None
        if not label:
            raise ParameterError("label", f"expected one of {list_labels(self.labels)}, found none")
        if unknown := [name for name in label if name not in self.labels]:
            raise ParameterError("label", f"no such label '{unknown[0]}'; this model knows {list_labels(self.labels)}")
        total = sum(label.values())
        if not all(0 <= weight < np.inf for weight in label.values()) or not 0 < total < np.inf:
            raise ParameterError("label", f"expected weights of 0 or more and not all 0, found {dict(label)}")
        return np.array([label.get(name, 0.0) / total for name in self.labels], np.float32)


def build_conditioner(config: Config) -> Conditioner:
    """Return the conditioning of the model that a configuration describes.

    While the labels are not known (``data.label_names: auto``), one without a name stands for all.
    """
    names, mel, features, rate = config.data.label_names, config.mel, config.features, config.audio.sample_rate_hz
    source: FrameSource | None = None
    if mel.n_mels is not None:
        f_max = rate / 2 if mel.f_max is None else mel.f_max
        source = MelSpectrogram(rate, mel.n_mels, mel.n_fft, mel.hop_length, mel.f_min, f_max)
    elif features.columns is not None:
        mean = (0.0,) * features.width if features.mean == "auto" else tuple(features.mean)
        scale = (1.0,) * features.width if features.scale == "auto" else tuple(features.scale)
        source = Features(rate, features.hop_length, mean, scale)
    labels = [""] * config.n_labels if names == "auto" else names[: config.n_labels]
    upsampling = 1 if config.frames is None else config.frames.upsampling
    return Conditioner(tuple(labels), source, upsampling, build_quantizer(config))


def parse_label(text: str, known: Sequence[str] = ()) -> dict[str, float]:
    """Parse ``NAME`` or ``NAME=WEIGHT,NAME=WEIGHT``; a known name may contain any characters.

    Raises:
        UsageError: it is neither.
    """
    if "=" not in text or text in known:
        return {text: 1.0}
    parts = [part.rpartition("=") for part in text.split(",")]
    weights: dict[str, float] = {}
    with contextlib.suppress(ValueError):
        weights = {name.strip(): float(number) for name, _, number in parts}
    if "" in weights or len(weights) < len(parts):
        raise ParameterError("label", f"expected NAME or NAME=WEIGHT,NAME=WEIGHT, each once, found '{text}'")
    return weights


def list_labels(labels: Sequence[str]) -> str:
    """Return labels for a message: the first of them, and how many more there are."""
    return list_first(map(printable, labels), 20, ", ")
