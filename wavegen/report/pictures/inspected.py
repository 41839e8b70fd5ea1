"""From what was inspected to its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wavegen.errors import UsageError
from wavegen.evaluation.measure import measure_in
from wavegen.output_file import write_output
from wavegen.report.inspection.config import unit
from wavegen.report.inspection.inspection import Inspection
from wavegen.report.pictures.figure import to_png
from wavegen.runs.history import History, read_history
from wavegen.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(inspection: Inspection, target: Path) -> None:
    """Draw what was inspected.

    Args:
        inspection: of anything.
        target: of the PNG file; `check_writable` has looked at it.

    Raises:
        UsageError: there is nothing to draw yet: no step, no validation, no file.
        WavegenError: the picture cannot be written.
    """
    write_output(target, to_png(_figure(inspection)))


def _figure(inspection: Inspection) -> Figure:
    facts = inspection.facts
    if inspection.kind == "folder":
        from wavegen.report.pictures.folder import folder_figure

        if not facts["files"]:
            raise UsageError(f"{printable(facts['path'])}: nothing to draw: it has no usable audio file")
        return folder_figure(facts)
    if inspection.kind == "series":
        from wavegen.report.pictures.series import series_figure

        if not facts["series"]:
            raise UsageError(f"{printable(facts['path'])}: nothing to draw: it has no usable series")
        return series_figure(printable(facts["path"]), facts)
    if inspection.kind == "audio":
        from wavegen.report.pictures.audio import audio_figure

        return audio_figure(Path(facts["path"]))
    if inspection.kind == "config":
        from wavegen.report.pictures.network import network_figure

        return network_figure(printable(facts["path"]), facts)
    if inspection.kind == "comparison":
        from wavegen.report.pictures.curves import comparison_figure

        histories = {run["name"]: _history(Path(run["path"])) for run in facts["runs"]}
        units = {run["name"]: _unit(histories[run["name"]], run) for run in facts["runs"]}
        return comparison_figure(histories, units, facts["bits_not_comparable_because"])
    if inspection.kind == "run":
        from wavegen.report.pictures.curves import run_figure

        history = _history(Path(facts["path"]))
        return run_figure(printable(facts["path"]), history, _unit(history, facts))
    return _checkpoint_figure(inspection)


def _unit(history: History, facts: dict[str, Any]) -> str:
    """Of a run's figures, with the classes of bits/sample where they are not the usual ones."""
    return unit(facts["network"]) if history.measure.is_bits else history.measure.unit


def _checkpoint_figure(inspection: Inspection) -> Figure:
    """The model among the trivial baselines: a checkpoint remembers its last validation, not its curves."""
    from wavegen.report.inspection.checkpoint import ranked_models
    from wavegen.report.pictures.curves import ranking_figure

    path, validation = printable(inspection.facts["path"]), inspection.facts["last_validation"]
    ranked = [] if validation is None else ranked_models(validation)
    known = [(name, figure) for name, figure in ranked if figure is not None]
    if not known:
        raise UsageError(f"{path}: nothing to draw: it was never validated")
    measure = measure_in(validation, unit(inspection.facts["network"]))
    return ranking_figure(f"{path}, step {validation['step']:,}", measure, known)


def _history(path: Path) -> History:
    history = read_history(path)
    if not any(figure is not None for figure in history.train):
        raise UsageError(f"{printable(path)}: nothing to draw: its metrics.jsonl has no step with a finite figure")
    return history
