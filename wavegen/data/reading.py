"""From a configuration to its corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wavegen.audio.quantize import Classes, Quantizer
from wavegen.config import Config
from wavegen.data.cache import ClipCache, Progress
from wavegen.data.corpus import Clip, Corpus, build_corpus
from wavegen.errors import UsageError


def build_quantizer(config: Config) -> Quantizer:
    """The companding that a configuration names."""
    return Quantizer(config.quantization.kind, config.quantization.classes)


def read_corpus(config: Config, progress: Progress | None = None) -> Corpus:
    """The corpus that a configuration names.

    Raises:
        UsageError: the configuration names no folder, or there is none.
        DataError: it holds nothing to train on.
    """
    if config.data.folder is None:
        raise UsageError("expected a folder of recordings: wavegen train DIR, or data.folder in the configuration")
    return build_corpus(
        Path(config.data.folder),
        sample_rate_hz=config.audio.sample_rate_hz,
        trim_db=config.audio.trim_db,
        level=config.audio.level,
        quantizer=build_quantizer(config),
        validation=config.data.validation,
        labels=config.data.labels,
        cache=ClipCache(),
        progress=progress,
    )


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
