"""Show what ``inspect`` found, as tables or as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wavegen.errors import UsageError
from wavegen.inspect.audio import AudioFacts
from wavegen.inspect.checkpoint import CheckpointFacts
from wavegen.inspect.comparison import ComparisonFacts
from wavegen.inspect.config import ConfigFacts
from wavegen.inspect.facts import Facts
from wavegen.inspect.folder import FolderFacts
from wavegen.inspect.run import RunFacts
from wavegen.inspect.series import SeriesFacts
from wavegen.output_file import write_output
from wavegen.report.models import checkpoint_tables, comparison_tables, config_tables, run_tables
from wavegen.report.recordings import audio_tables, folder_tables, series_tables
from wavegen.report.tables import Table
from wavegen.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def tables_of(found: Facts) -> list[Table]:
    """Return the tables of what was inspected."""
    match found:
        case FolderFacts():
            return folder_tables(found)
        case AudioFacts():
            return audio_tables(found)
        case SeriesFacts():
            return series_tables(found)
        case ConfigFacts():
            return config_tables(found)
        case CheckpointFacts():
            return checkpoint_tables(found)
        case RunFacts():
            return run_tables(found)
        case ComparisonFacts():
            return comparison_tables(found)
    raise AssertionError(found.kind)


def draw(found: Facts, target: Path) -> None:
    """Draw what was inspected into a PNG file.

    Raises:
        UsageError: there is nothing to draw yet: no step, no validation, no file.
        WavegenError: the file cannot be written; what was there before stays.
    """
    from wavegen.report.plots.figure import to_png

    write_output(target, to_png(_figure(found)))


def _figure(found: Facts) -> Figure:
    from wavegen.report.plots.audio import audio_figure
    from wavegen.report.plots.curves import comparison_figure, ranking_figure, run_figure
    from wavegen.report.plots.folder import folder_figure, series_figure
    from wavegen.report.plots.network import network_figure

    match found:
        case FolderFacts():
            _require(bool(found.files), found.path, "it has no usable audio file")
            return folder_figure(found)
        case AudioFacts():
            return audio_figure(Path(found.path))
        case SeriesFacts():
            _require(bool(found.series), found.path, "it has no usable series")
            return series_figure(found)
        case ConfigFacts():
            return network_figure(printable(found.path), found.network)
        case CheckpointFacts():
            ranked = [] if found.last_validation is None else found.last_validation.ranking()
            known = [(name, loss) for name, loss in ranked if loss is not None]
            _require(bool(known), found.path, "it was never validated")
            assert found.last_validation is not None
            title = f"{printable(found.path)}, step {found.last_validation.step:,}"
            return ranking_figure(title, found.loss_unit, known)
        case RunFacts():
            _require_steps(found)
            return run_figure(printable(found.path), found.history, found.loss_unit.full_name)
        case ComparisonFacts():
            for run in found.runs:
                _require_steps(run)
            histories = {name: run.history for name, run in zip(found.names, found.runs, strict=True)}
            units = {name: run.loss_unit.full_name for name, run in zip(found.names, found.runs, strict=True)}
            return comparison_figure(histories, units, found.not_comparable_because)
    raise AssertionError(found.kind)


def _require(condition: bool, path: str, reason: str) -> None:
    if not condition:
        raise UsageError(f"{printable(path)}: nothing to draw: {reason}")


def _require_steps(run: RunFacts) -> None:
    has_steps = any(loss is not None for loss in run.history.train)
    _require(has_steps, run.path, "its metrics.jsonl has no step with a finite loss")
