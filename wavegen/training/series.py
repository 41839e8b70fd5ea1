"""Training on series of numbers: what is different from training on sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wavegen.data.reading import build_normalization
from wavegen.data.series import SeenSeries, values_of
from wavegen.data.windows import WindowStream
from wavegen.evaluation.evaluation import ScoredClip
from wavegen.evaluation.series import baseline_errors, fit_linear_forecast, model_errors
from wavegen.model.network import Network
from wavegen.training.trainer import Trainer, by_content


class SeriesTrainer(Trainer):
    """See ``Trainer``: every validation scores all held-out series, and there are no auditions."""

    _known_baselines: dict[str, float] | None = None

    def _window_stream(self) -> WindowStream[Any]:
        normalization = build_normalization(self.config)
        return WindowStream(
            [SeenSeries(clip, normalization) for clip in self.corpus.train],
            self.model.receptive_field,
            self.settings.window_targets,
            self.model.before_series,
            self.settings.seed,
            horizon=self.config.output.horizon,
        )

    def _validation_clips(self, seconds: float | None) -> list[ScoredClip]:  # noqa: ARG002
        normalization = build_normalization(self.config)
        clips = by_content(self.corpus.validation)
        return [ScoredClip(clip.name, normalization.seen(values_of(clip))) for clip in clips]

    def _n_predictions(self, clip: ScoredClip) -> int:
        return len(clip.classes) - self.config.output.horizon

    def _totals(self, clips: Sequence[ScoredClip], model: Network, hear: Callable[[int], None]) -> list[float]:
        output = self.config.output
        errors = model_errors(model, [clip.classes for clip in clips], output.horizon, output.error, hear)
        return [each.total * self.unit for each in errors]

    def _heard(self) -> float:
        return self.progress.targets

    def _length_of(self, clips: Sequence[ScoredClip]) -> dict[str, float]:
        return {"held_out_points": sum(map(self._n_predictions, clips))}

    def _baseline_figures(self, clips: Sequence[ScoredClip]) -> dict[str, float]:  # noqa: ARG002 (always all)
        if self._known_baselines is None:
            output = self.config.output
            linear = fit_linear_forecast([values_of(clip) for clip in self.corpus.train], output.horizon)
            held_out = [values_of(clip) for clip in self.corpus.validation]
            each = [baseline_errors(linear, values, output.horizon, output.error) for values in held_out]
            n_positions = sum(errors["linear"].n_positions for errors in each)
            self._known_baselines = {name: sum(e[name].total for e in each) / n_positions for name in each[0]}
        return self._known_baselines

    def _precision_costs(self, exact: Network, clips: Sequence[ScoredClip], exact_bits: float) -> dict[str, float]:  # noqa: ARG002
        return {}  # forecasts are made in float32 alone

    def _audition(self) -> None:
        pass  # there is nothing to hear


def trainer_class(is_series: bool) -> type[Trainer]:
    """Who trains on such data."""
    return SeriesTrainer if is_series else Trainer
