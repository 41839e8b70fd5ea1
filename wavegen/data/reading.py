"""From a configuration to its corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wavegen.audio.conditions import Conditioner, list_labels
from wavegen.audio.decoding import end_decoders
from wavegen.audio.features import MelSpectrogram
from wavegen.audio.quantize import Classes, Quantizer
from wavegen.audio.signal import Preparation
from wavegen.config import Config
from wavegen.data.cache import ClipCache, Progress
from wavegen.data.corpus import Clip, Corpus
from wavegen.data.recordings import build_corpus
from wavegen.errors import DataError, UsageError

MOST_LABELS = 1000  # as the schema allows; they are listed in every configuration


def build_quantizer(config: Config) -> Quantizer:
    """The companding that a configuration names."""
    return Quantizer(config.quantization.kind, config.quantization.classes)


def build_preparation(config: Config) -> Preparation:
    """Return the preparation of the recordings that a configuration trains on.

    Clips with mel spectrograms are never cut: what is made of a spectrogram is as long as its recording.
    """
    audio, whole = config.audio, config.mel.n_mels is not None
    return Preparation(
        audio.sample_rate_hz,
        audio.remove_dc,
        None if whole else audio.trim_db,
        None if whole else audio.pause_seconds,
        audio.level,
        audio.max_gain_db,
    )


def build_conditioner(config: Config) -> Conditioner:
    """How the clips of the model that a configuration describes are conditioned.

    As long as the labels are not known (``data.label_names: auto``), one stands for all, without a name.
    """
    names = config.data.label_names
    mel = config.mel
    return Conditioner(
        labels=tuple([""] * config.n_labels if names == "auto" else names[: config.n_labels]),
        mel=None
        if mel.n_mels is None
        else MelSpectrogram(
            sample_rate_hz=config.audio.sample_rate_hz,
            n_mels=mel.n_mels,
            n_fft=mel.n_fft,
            hop_length=mel.hop_length,
            f_min=mel.f_min,
            f_max=config.audio.sample_rate_hz / 2 if mel.f_max is None else mel.f_max,
        ),
        upsampling=mel.upsampling,
        quantizer=build_quantizer(config),
    )


def with_labels(config: Config, corpus: Corpus[Clip]) -> Config:
    """Return the configuration with its model's labels, in their order: those of the corpus, or those given.

    Raises:
        DataError: the corpus has a label that is not among those given, or too many.
    """
    if config.data.labels == "none":
        return config
    if config.data.label_names == "auto":
        if len(corpus.labels) > MOST_LABELS:
            raise DataError(
                f"{corpus.folder}: expected at most {MOST_LABELS:,} sub-folders as labels, found {len(corpus.labels):,}"
            )
        return config.with_values("data", label_names=list(corpus.labels))
    if strange := [name for name in corpus.labels if name not in config.data.label_names]:
        raise DataError(
            f"{corpus.folder}: expected the labels {list_labels(config.data.label_names)}, found "
            f"{list_labels(strange)} besides; start a new run, with --init-from to keep what was learnt"
        )
    return config


def read_recordings(config: Config, progress: Progress | None = None) -> Corpus[Clip]:
    """Read the recordings that a configuration names.

    Args:
        config: with ``data.folder``.
        progress: called with (files done, files in all).

    Raises:
        UsageError: the configuration names no folder, or there is none.
        DataError: it holds nothing to train on.
    """
    if config.data.folder is None:
        raise UsageError("expected a folder of recordings: wavegen train DIR, or data.folder in the configuration")
    corpus = build_corpus(
        Path(config.data.folder),
        preparation=build_preparation(config),
        quantizer=build_quantizer(config),
        validation=config.data.validation,
        labels=config.data.labels,
        cache=ClipCache(),
        progress=progress,
    )
    end_decoders()  # what follows may take days
    return corpus


def first_samples(clips: Sequence[Clip], limit: int | None) -> list[Classes]:
    """The clips' classes until so many samples are together, the last clip cut short; all of them without a limit."""
    taken: list[Classes] = []
    n_taken = 0
    for clip in clips:
        if limit is not None and n_taken >= limit:
            break
        classes = clip.classes()
        taken.append(classes if limit is None else classes[: limit - n_taken])
        n_taken += len(taken[-1])
    return taken
