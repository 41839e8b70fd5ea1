"""How well a trained model of sound predicts audio."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from wavegen.audio.find import find_audio
from wavegen.audio.quantize import Floats
from wavegen.audio.waveform import Preparation, load_waveform
from wavegen.data.conditioning import ClipCondition, list_labels
from wavegen.data.recordings import first_samples
from wavegen.errors import AudioError, DataError, UsageError, WavegenError
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, fit_baselines
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.text import printable
from wavegen.trained.heard import Heard, warning
from wavegen.trained.model import Label, Model, mono

if TYPE_CHECKING:
    from wavegen.evaluation.sample_statistics import RecordingStatistics


class Scoring(Model):
    """The part of a trained model that scores sound; what does so raises ``UsageError`` on a model of series."""

    def score(self, waveform: npt.ArrayLike, label: Label | None = None) -> float:
        """How well the model predicts a clip from its start, in bits/sample.

        Args:
            waveform: (T,) at the model's rate, such as ``read`` gives; values outside [-1, 1] are clipped.
            label: of the clip, for a model with labels: a name or weights of several; its mel frames are computed where
                the model needs them.

        Raises:
            UsageError: it is not one clip of one sample or more, or the model has no such label.
        """
        from wavegen.evaluation.likelihood import model_bits

        self.check_kind(False, "score")
        classes = self.quantizer.encode(mono(waveform))
        condition = self.conditioner.of_clip(classes, {} if label is None else self._weights(label))
        return model_bits(self.network, [classes], self.quantizer.silence, None, [condition])[0] / len(classes)

    def read_all(
        self,
        paths: Sequence[Path],
        notice: Callable[[str], None],
        label: Label | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[ScoredClip]:
        """The clips of files and of folders of files; what cannot be used is told and left out.

        Args:
            paths: files and folders.
            notice: is told what the user should know.
            label: of all of them; None takes the name of the first sub-folder on the way to a file, or of its folder.
            progress: of reading the training's folder, whose clips are known again by their samples; where it is gone,
                by the bytes of their files alone.

        Raises:
            UsageError: there is nothing at a path, or a clip has no label that the model knows.
            DataError: nothing can be used.
        """
        self.check_kind(False, "read_all")
        given = None if label is None else self._weights(label)
        clips: list[ScoredClip] = []
        for path in paths:
            for file in _files(path, notice):
                try:
                    classes = self.quantizer.encode(self.read(file))
                except AudioError as error:
                    notice(f"skipped: {error}")
                    continue
                clip_label = _folder(file, path) if given is None else given
                condition = self._condition_of(str(file), classes, clip_label)
                clips.append(ScoredClip(str(file), classes, condition, self._label_text(clip_label)))
        if not clips:
            where = ", ".join(map(printable, paths))
            raise DataError(f"{where}: expected audio to score, found none that can be used")
        if heard := self._heard(progress):
            clips = [clip._replace(trained_on=heard.has(_hash_of(Path(clip.name)), clip.classes)) for clip in clips]
        _warn(clips, notice)
        return clips

    def read_clips(self, paths: Sequence[Path], notice: Callable[[str], None]) -> list[Floats]:
        """Read the clips of files and folders at the model's rate, as they are: neither trimmed nor levelled.

        Args:
            paths: files and folders.
            notice: is told what cannot be used.

        Raises:
            UsageError: there is nothing at a path.
            DataError: nothing can be used.
        """
        clips: list[Floats] = []
        for file in (file for path in paths for file in _files(path, notice)):
            try:
                clip = load_waveform(file, Preparation(self.sample_rate_hz))
                clips.append(clip.waveform)
            except AudioError as error:
                notice(f"skipped: {error}")
        if not clips:
            raise DataError(f"{', '.join(map(printable, paths))}: expected audio, found none that can be used")
        return clips

    def held_out(
        self, progress: Callable[[int, int], None] | None = None, notice: Callable[[str], None] | None = None
    ) -> list[ScoredClip]:
        """The clips that the training held out, from its folder.

        Args:
            progress: of reading the folder.
            notice: is told of clips that were trained on besides, under another name.

        Raises:
            DataError: it held out none, or the folder no longer has them.
            UsageError: the model was exported, without a word on them.
        """
        self.check_kind(False, "held_out")
        remembered = self.remembered(progress, "validation")
        heard = Heard(self.checkpoint.manifest, self.corpus().clips)
        clips = [
            ScoredClip(
                clip.name,
                classes := clip.classes(),
                self._condition_of(clip.name, classes, clip.label),
                clip.label if self.labels else None,
                heard.has_held_out(clip),
            )
            for clip in remembered
        ]
        if notice:
            _warn(clips, notice)
        return clips

    def recording_statistics(self, progress: Callable[[int, int], None] | None = None) -> RecordingStatistics:
        """Measure what the recordings of the training sound like, prepared as they were trained on.

        Args:
            progress: of reading the training's folder.

        Raises:
            DataError: they are not there any more, or too short to compare with.
            UsageError: the model was exported and does not know its recordings, or it is conditioned on mel frames.
        """
        from wavegen.evaluation.sample_statistics import PIECE_SECONDS, SILENT_AMPLITUDE, RecordingStatistics, spread

        self.check_kind(False, "recording_statistics")
        if self.conditioner.mel is not None:
            raise UsageError("sample statistics: not of a vocoder, whose sound follows its spectrograms")
        clips = self.remembered(progress, "train")
        pieces = spread([clip.n_samples for clip in clips], round(PIECE_SECONDS * self.sample_rate_hz))
        recordings = [self.quantizer.decode(clips[i].classes()[start:stop]) for i, start, stop in pieces]
        recordings = [clip for clip in recordings if np.abs(clip).max() > SILENT_AMPLITUDE]
        if len(recordings) < 2:
            raise DataError(
                f"{self.config.data.folder}: expected two clips, or 20 s, of sound to compare with, found less"
            )
        return RecordingStatistics(recordings, self.sample_rate_hz)

    def fit_baselines(
        self, notice: Callable[[str], None], progress: Callable[[int, int], None] | None = None
    ) -> Baselines | None:
        """The trivial baselines, fitted on the training split; None, and a notice, where its folder is gone."""
        self.check_kind(False, "fit_baselines")
        if self.checkpoint.is_for_use_only:
            notice("no trivial baselines: an exported model does not know the training's recordings")
            return None
        try:
            corpus = self.corpus(progress)
        except WavegenError as error:
            notice(f"no trivial baselines, they need the training's recordings: {error}")
            return None
        heard = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "train"}
        clips = [clip for clip in corpus.train if clip.content_hash in heard]
        if not clips:
            notice(f"no trivial baselines: {self.config.data.folder} no longer has the training's recordings")
            return None
        return fit_baselines(first_samples(clips, FITTED_SAMPLES), self.quantizer.classes)

    def _heard(self, progress: Callable[[int, int], None] | None) -> Heard | None:
        """What the training heard; None for an exported model, which does not know."""
        if self.checkpoint.is_for_use_only:
            return None
        try:
            return Heard(self.checkpoint.manifest, self.corpus(progress).clips)
        except WavegenError:
            return Heard(self.checkpoint.manifest)

    def _condition_of(
        self, name: str, classes: npt.NDArray[np.integer], label: str | Mapping[str, float] | None
    ) -> ClipCondition | None:
        """The condition of a clip that lies in a folder with the label's name, or that was given weights of labels."""
        if self.labels and not isinstance(label, Mapping) and label not in self.labels:
            raise UsageError(
                f"{printable(name)}: expected it in a folder named as one of this model's labels, "
                f"{list_labels(self.labels)}, found it in '{printable(str(label))}'; say which with --label NAME"
            )
        return self.conditioner.of_clip(classes, label)

    def _label_text(self, label: str | Mapping[str, float]) -> str | None:
        """A clip's label as ``--label`` takes it; None of a model without labels."""
        if not self.labels:
            return None
        if isinstance(label, str):
            return label
        return next(iter(label)) if len(label) == 1 else ",".join(f"{name}={w:g}" for name, w in label.items())


def _files(path: Path, notice: Callable[[str], None]) -> list[Path]:
    """The file at a path, or the audio files of a folder; those that cannot be used are told."""
    if not path.is_dir():
        return [path]
    found = find_audio(path)
    for name, reason in found.unusable:
        notice(f"skipped: {printable(path / name)}: {reason}")
    return [path / name for name in found.names]


def _hash_of(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _warn(clips: Sequence[ScoredClip], notice: Callable[[str], None]) -> None:
    if text := warning(clips, "clips", "audio"):
        notice(text)


def _folder(file: Path, given: Path) -> str:
    """A file's label as a corpus finds it: the first folder on the way to it, or the folder that it lies in."""
    inside = file.relative_to(given).parts if given.is_dir() else ()
    return inside[0] if len(inside) > 1 else file.parent.resolve().name
