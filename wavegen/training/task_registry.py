"""The kinds of tasks, and the one place that chooses between them."""

from __future__ import annotations

from typing import Any

from wavegen.config import Config
from wavegen.data.corpus import Corpus
from wavegen.series.task import SeriesTask
from wavegen.training.audio_task import AudioTask
from wavegen.training.task import Progress, Task


def task_type(config: Config) -> type[AudioTask] | type[SeriesTask]:
    """Return the kind of task that a configuration describes."""
    return SeriesTask if config.is_series else AudioTask


def build_task(config: Config, corpus: Corpus[Any]) -> Task[Any]:
    """Build the task of a complete configuration on its corpus."""
    return task_type(config)(config, corpus)


def read_corpus(config: Config, progress: Progress | None = None) -> Corpus[Any]:
    """Read the corpus that a configuration names; see ``Task.read_corpus``."""
    return task_type(config).read_corpus(config, progress)


def with_corpus(config: Config, corpus: Corpus[Any]) -> Config:
    """Return the configuration with what its corpus decides; see ``Task.with_corpus``."""
    return task_type(config).with_corpus(config, corpus)
