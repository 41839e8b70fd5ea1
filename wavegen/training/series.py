"""Training on series of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from wavegen.config import Config
from wavegen.data.corpus import Corpus, by_content
from wavegen.data.normalization import SeenSeries
from wavegen.data.reading import build_normalization
from wavegen.data.series import values_of
from wavegen.data.windows import WindowStream
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.evaluation.measure import unit_of_loss
from wavegen.evaluation.series import baseline_errors, fit_linear_forecast, model_errors
from wavegen.model.network import Network


class Series:
    """Series as ``wavegen.training.material.Material``; every validation scores all that are held out.

    Args:
        config: frozen.
        corpus: of series.
    """

    def __init__(self, config: Config, corpus: Corpus) -> None:
        self.settings, self.output, self.corpus = config.training, config.output, corpus
        self.normalization, self.unit = build_normalization(config), unit_of_loss(config)

    def windows(self, network: Network) -> WindowStream[Any]:
        """Windows of the series, as the network sees them."""
        return WindowStream(
            [SeenSeries(clip, self.normalization) for clip in self.corpus.train],
            network.receptive_field,
            self.settings.window_targets,
            network.before_series,
            self.settings.seed,
            horizon=self.output.horizon,
        )

    def amount(self, targets: int) -> float:
        """In points."""
        return targets

    def held_out(self, seconds: float | None) -> list[ScoredClip]:  # noqa: ARG002
        """Always all, as the network sees them."""
        clips = by_content(self.corpus.validation)
        return [ScoredClip(clip.name, self.normalization.seen(values_of(clip))) for clip in clips]

    def length(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        """In points."""
        return {"held_out_points": sum(map(self.n_predictions, clips))}

    def n_predictions(self, clip: ScoredClip) -> int:
        """One for each value that enough others follow."""
        return len(clip.classes) - self.output.horizon

    def costs(self, network: Network, clips: Sequence[ScoredClip], heard: Callable[[int], None]) -> list[float]:
        """Errors in the units of the data."""
        errors = model_errors(network, [clip.classes for clip in clips], self.output.horizon, self.output.error, heard)
        return [each.total * self.unit for each in errors]

    def baselines(self, clips: Sequence[ScoredClip]) -> dict[str, float]:  # noqa: ARG002 (always all)
        """Errors of all held-out series in the units of the data."""
        return self._baselines

    @cached_property
    def _baselines(self) -> dict[str, float]:
        horizon = self.output.horizon
        linear = fit_linear_forecast([values_of(clip) for clip in self.corpus.train], horizon)
        held_out = [values_of(clip) for clip in self.corpus.validation]
        each = [baseline_errors(linear, values, horizon, self.output.error) for values in held_out]
        n_positions = sum(errors["linear"].n_positions for errors in each)
        return {name: sum(e[name].total for e in each) / n_positions for name in each[0]}

    def profile(self) -> None:
        """There is nothing to hear."""

    def audition(self, *_: Any) -> None:
        """There is nothing to hear."""
