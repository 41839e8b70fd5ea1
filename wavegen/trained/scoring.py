"""How well a trained model of sound predicts audio."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wavegen.audio.conditions import ClipCondition, shown
from wavegen.audio.finding import find_audio
from wavegen.data.reading import first_samples, read_corpus
from wavegen.errors import AudioError, DataError, UsageError, WavegenError
from wavegen.evaluation.baselines import FITTED_SAMPLES, Baselines, fit_baselines
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.trained.model import Label, Model, mono


class Scoring(Model):
    """The part of a trained model that scores sound; on a model of series all of it raises ``UsageError``."""

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
        self, paths: Sequence[Path], skipped: Callable[[str], None], label: Label | None = None
    ) -> list[ScoredClip]:
        """The clips of files and of folders of files; what cannot be used is told and left out.

        Args:
            paths: files and folders.
            skipped: is told what the user should know.
            label: of all of them; None takes the name of the first sub-folder on the way to a file, or of its folder.

        Raises:
            UsageError: there is nothing at a path, or a clip has no label that the model knows.
            DataError: nothing can be used.
        """
        given = None if label is None else self._weights(label)
        clips: list[ScoredClip] = []
        trained_on = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "train"}
        n_trained_on = 0
        for path in paths:
            if path.is_dir():
                found = find_audio(path)
                files = [path / name for name in found.names]
                for name, reason in found.unusable:
                    skipped(f"skipped: {path / name}: {reason}")
            else:
                files = [path]
            for file in files:
                try:
                    classes = self.quantizer.encode(self.read(file))
                except AudioError as error:
                    skipped(f"skipped: {error}")
                    continue
                condition = self._condition_of(str(file), classes, _folder(file, path) if given is None else given)
                clips.append(ScoredClip(str(file), classes, condition))
                with file.open("rb") as content:
                    n_trained_on += hashlib.file_digest(content, "sha256").hexdigest() in trained_on
        if not clips:
            raise DataError(f"{', '.join(map(str, paths))}: expected audio to score, found none that can be used")
        if n_trained_on:
            skipped(f"{n_trained_on} of {len(clips)} clips were trained on: the figures are not of held-out audio")
        return clips

    def held_out(self, progress: Callable[[int, int], None] | None = None) -> list[ScoredClip]:
        """The clips that the training held out, from its folder.

        Raises:
            DataError: it held out none, or the folder no longer has them.
            UsageError: the model was exported, without a word on them.
        """
        return [
            ScoredClip(clip.name, classes := clip.classes(), self._condition_of(clip.name, classes, clip.label))
            for clip in self.remembered(progress, "validation")
        ]

    def fit_baselines(
        self, notice: Callable[[str], None], progress: Callable[[int, int], None] | None = None
    ) -> Baselines | None:
        """The trivial baselines, fitted on the training split; None, and a notice, where its folder is gone."""
        if self.checkpoint.is_for_use_only:
            notice("no trivial baselines: an exported model does not know the training's recordings")
            return None
        try:
            corpus = read_corpus(self.config, progress)
        except WavegenError as error:
            notice(f"no trivial baselines, they need the training's recordings: {error}")
            return None
        heard = {clip["content_hash"] for clip in self.checkpoint.manifest if clip["split"] == "train"}
        clips = [clip for clip in corpus.train if clip.content_hash in heard]
        if not clips:
            notice(f"no trivial baselines: {self.config.data.folder} no longer has the training's recordings")
            return None
        return fit_baselines(first_samples(clips, FITTED_SAMPLES), self.quantizer.classes)

    def _condition_of(
        self, name: str, classes: npt.NDArray[np.integer], label: str | Mapping[str, float] | None
    ) -> ClipCondition | None:
        """The condition of a clip that lies in a folder with the label's name, or that was given weights of labels."""
        if self.labels and not isinstance(label, Mapping) and label not in self.labels:
            raise UsageError(
                f"{name}: expected it in a folder named as one of this model's labels, {shown(self.labels)}, "
                f"found it in '{label}'; say which with --label NAME"
            )
        return self.conditioner.of_clip(classes, label)


def _folder(file: Path, given: Path) -> str:
    """A file's label as a corpus finds it: the first folder on the way to it, or the folder that it lies in."""
    inside = file.relative_to(given).parts if given.is_dir() else ()
    return inside[0] if len(inside) > 1 else file.absolute().parent.name
