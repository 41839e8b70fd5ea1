"""Load the clips that an audio model is scored on: files, or the held-out clips of its training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavegen.audio.frames import Features, Frames
from wavegen.audio.mono import group_warnings
from wavegen.audio.quantize import Floats, Quantizer
from wavegen.audio.read import find_audio
from wavegen.audio.waveform import Notice, Preparation, load_waveform
from wavegen.data.cache import ClipCache, ClipSettings
from wavegen.data.conditioning import ClipCondition, Conditioner, list_labels
from wavegen.data.corpus import TAIL, Progress, StoredClip, TrainingClips, features_path
from wavegen.data.recordings import first_samples
from wavegen.data.sources import folder_label
from wavegen.errors import AudioError, DataError, UsageError, WavegenError
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, fit_baselines
from wavegen.evaluation.sample_statistics import PIECE_SECONDS, SILENT_AMPLITUDE, RecordingStatistics, spread
from wavegen.evaluation.scores import ScoredClip
from wavegen.text import group_by_reason, list_first, pluralize, printable


@dataclass(frozen=True)
class ClipLoader:
    """Loads clips as the model's input: prepared, quantized, with their conditions.

    Args:
        preparation: of the model's recordings.
        quantizer: its companding.
        conditioner: what it is conditioned on.
        training: the clips of its training.
    """

    preparation: Preparation
    quantizer: Quantizer
    conditioner: Conditioner
    training: TrainingClips

    def load(
        self,
        paths: Sequence[Path],
        notice: Notice,
        label: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> list[ScoredClip]:
        """Load the clips of files and folders; unusable files are reported and left out.

        Args:
            paths: files and folders.
            notice: called with messages for the user.
            label: of all of them, as weights by name; None takes the name of the first sub-folder on the way to a file,
                or of its folder.
            progress: of decoding the files, and of reading the training's folder, whose clips are known again by their
                samples; where it is gone, by the bytes of their files alone.

        Raises:
            UsageError: there is nothing at a path, or a clip has no label that the model knows.
            DataError: nothing can be used.
        """
        loaded, skipped = [], list[tuple[str, str]]()
        for path, file, stored in self._prepared(paths, notice, progress):
            folder = path if path.is_dir() else path.parent
            named = folder_label(file.relative_to(folder).as_posix(), folder)
            classes, own = stored.classes(), named if label is None else label
            try:
                features = self._features_beside(file, len(classes))
            except UsageError as error:
                skipped.append((str(file), str(error).removeprefix(f"{printable(file)}: ")))
                continue
            condition = self._condition(str(file), classes, own, features)
            loaded.append((stored.content_hash, ScoredClip(str(file), classes, condition, self._label_text(own))))
        _report_skipped(skipped, notice)
        _check_any(loaded, paths)
        index = self.training.index(progress)
        clips = [clip._replace(trained_on=index.contains(own, clip.classes)) for own, clip in loaded]
        warn_of_trained_on(clips, "clips", "audio", notice)
        return clips

    def _prepared(
        self, paths: Sequence[Path], notice: Notice, progress: Progress | None
    ) -> list[tuple[Path, Path, StoredClip]]:
        """Prepare the files at paths: the path and the file of each clip; what cannot be used is reported."""
        given = [(path, file) for path in paths for file in _audio_files(path, notice)]
        outcomes = ClipCache().prepare(
            [file for _, file in given], ClipSettings(self.preparation, self.quantizer), progress
        )
        both = [(path, file, stored) for (path, file), stored in zip(given, outcomes, strict=True)]
        _report_skipped([(str(file), stored) for _, file, stored in both if isinstance(stored, str)], notice)
        clips = [(path, file, stored) for path, file, stored in both if not isinstance(stored, str)]
        _warn({str(file): stored for _, file, stored in clips}, notice)
        return clips

    def held_out(self, progress: Progress | None = None, notice: Notice | None = None) -> list[ScoredClip]:
        """Load the training's held-out clips from its folder.

        Args:
            progress: of reading the folder.
            notice: called with the held-out clips that were also trained on, under another name.

        Raises:
            DataError: it held out none, or the folder no longer has them.
            UsageError: the model was exported, without a list of its clips.
        """
        held_out = self.training.of_split("validation", progress)
        index = self.training.index()
        clips = []
        for clip in held_out:
            classes, label = clip.classes(), clip.label if self.conditioner.labels else None
            features = None if clip.features is None else clip.features.frames()
            condition = self._condition(clip.name, classes, clip.label, features)
            known = index.contains_held_out(clip.name, clip.content_hash, classes)
            clips.append(ScoredClip(clip.name, classes, condition, label, known))
        if notice:
            _warn({clip.name.removesuffix(TAIL): clip.stored for clip in held_out}, notice)
            warn_of_trained_on(clips, "clips", "audio", notice)
        return clips

    def recording_statistics(
        self, progress: Progress, notice: Notice, recordings: Sequence[Path] = ()
    ) -> RecordingStatistics:
        """Measure the sample statistics of recordings, prepared as they were trained on.

        Args:
            progress: of reading them.
            notice: called with messages for the user.
            recordings: files and folders; empty for those of the training.

        Raises:
            DataError: they are not there any more, or too short to compare with.
            UsageError: the model was exported and does not know its recordings, or it is conditioned on frames.
        """
        if (source := self.conditioner.frames) is not None:
            raise UsageError(f"sample statistics: not for a model whose sound follows its {source.kind}")
        rate = self.preparation.sample_rate_hz
        if recordings:
            clips: Sequence[StoredClip] = [clip for _, _, clip in self._prepared(recordings, notice, progress)]
        elif self.training.manifest is None:
            text = "sample statistics: an exported model does not know its recordings; give {recordings}"
            raise UsageError(text, {"recordings": "DIR"})
        else:
            clips = self.training.of_split("train", progress)
        pieces = spread([clip.n_samples for clip in clips], round(PIECE_SECONDS * rate))
        decoded = [self.quantizer.decode(clips[i].classes()[start:stop]) for i, start, stop in pieces]
        decoded = [clip for clip in decoded if np.abs(clip).max() > SILENT_AMPLITUDE]
        if len(decoded) < 2:
            where = list_first(map(str, recordings)) if recordings else self.training.corpus().folder
            raise DataError(f"{where}: expected two clips, or 20 s, of sound to compare with, found less")
        return RecordingStatistics(decoded, rate)

    def fit_baselines(self, notice: Notice, progress: Progress | None = None) -> Baselines | None:
        """Fit the trivial baselines on the training split; return None, with a notice, if its clips are gone."""
        if self.training.manifest is None:
            notice("no trivial baselines: an exported model does not know the training's recordings")
            return None
        try:
            clips = self.training.of_split("train", progress)
        except WavegenError as error:
            notice(f"no trivial baselines, they need the training's recordings: {error}")
            return None
        return fit_baselines(first_samples(clips, FITTED_SAMPLES), self.quantizer.classes)

    def _condition(
        self,
        name: str,
        classes: npt.NDArray[np.integer],
        label: str | Mapping[str, float] | None,
        features: Frames | None,
    ) -> ClipCondition | None:
        """Return the condition of a clip in a folder with the label's name, or with given weights of labels."""
        labels = self.conditioner.labels
        if labels and not isinstance(label, Mapping) and label not in labels:
            expected = f"expected it in a folder named as one of this model's labels, {list_labels(labels)}"
            found = f"found it in '{printable(str(label))}'; give the label of all files instead"
            raise UsageError(f"{printable(name)}: {expected}, {found}")
        return self.conditioner.of_clip(classes, label, features)

    def _features_beside(self, file: Path, n_samples: int) -> Frames | None:
        """Read the features of a recording; None for a model without."""
        source, path = self.conditioner.frames, features_path(file)
        return source.of_clip(source.read(path), n_samples, str(path)) if isinstance(source, Features) else None

    def _label_text(self, label: str | Mapping[str, float]) -> str | None:
        """Return a clip's label as text; None for a model without labels."""
        if not self.conditioner.labels:
            return None
        if isinstance(label, str):
            return label
        return next(iter(label)) if len(label) == 1 else ",".join(f"{name}={w:g}" for name, w in label.items())


def load_unprepared(paths: Sequence[Path], sample_rate_hz: int, notice: Notice) -> list[Floats]:
    """Load the clips of files and folders at a rate, as they are: neither trimmed nor levelled.

    Args:
        paths: files and folders.
        sample_rate_hz: of the waveforms.
        notice: called with what cannot be used.

    Raises:
        UsageError: there is nothing at a path.
        DataError: nothing can be used.
    """
    waveforms, skipped = [], []
    for file in (file for path in paths for file in _audio_files(path, notice)):
        try:
            waveforms.append(load_waveform(file, Preparation(sample_rate_hz), notice))
        except AudioError as error:
            skipped.append((str(file), str(error).removeprefix(f"{printable(file)}: ")))
    _report_skipped(skipped, notice)
    _check_any(waveforms, paths)
    return waveforms


def _warn(stored: Mapping[str, StoredClip], notice: Notice) -> None:
    """Report what is wrong with files, by their names."""
    for line in group_warnings((name, clip.warnings.splitlines()) for name, clip in stored.items()):
        notice(line)


def _report_skipped(skipped: Iterable[tuple[str, str]], notice: Notice) -> None:
    for names, reason in group_by_reason(skipped):
        notice(f"skipped: {names}: {reason}")


def _check_any(usable: Sequence[object], paths: Sequence[Path]) -> None:
    if not usable:
        raise DataError(f"{list_first(map(printable, paths))}: expected audio to score, found none that can be used")


def warn_of_trained_on(scored: Sequence[Any], noun: str, material: str, notice: Notice) -> None:
    """Report which of the clips or series to score were trained on.

    Args:
        scored: all that is scored, as ``ScoredClip`` or ``wavegen.series.scores.ScoredSeries``.
        noun: what they are, in the plural.
        material: the kind of data, such as audio.
        notice: called with the warning, if there is one.
    """
    names = [printable(one.name) for one in scored if one.trained_on]
    if names:
        of_all = f"of {len(scored):,} {noun}"
        what = f"{pluralize(len(names), f'{of_all} was', f'{of_all} were')} trained on"
        notice(f"{what}, and the figures are not of held-out {material}: {list_first(names)}")


def _audio_files(path: Path, notice: Notice) -> list[Path]:
    """Return the file at a path, or the audio files of a folder; unusable ones are reported."""
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{printable(path)}: expected an audio file, found nothing there")
        return [path]
    found = find_audio(path)
    _report_skipped(((str(path / name), reason) for name, reason in found.unusable), notice)
    return [path / name for name in found.names]
