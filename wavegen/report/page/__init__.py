"""A run as one page: a file without scripts that needs no network, to read, to hear and to send."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from wavegen import __version__
from wavegen.errors import UsageError
from wavegen.output_file import check_writable, write_output
from wavegen.report.inspection import Inspection, Progress
from wavegen.report.page.markup import Markup, join, tag
from wavegen.report.page.samples import SampleRequest, generate_samples, read_auditions
from wavegen.runs.history import read_history
from wavegen.runs.run_folder import is_run
from wavegen.text import printable

__all__ = ["SampleRequest", "check_page", "write_page"]

# The browser itself holds the page to its word: nothing is loaded from anywhere, nothing runs.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def check_page(paths: Sequence[str], target: Path, overwrite: bool) -> None:
    """Make sure that a page can be written, before anything is read or generated.

    Raises:
        UsageError: the paths are not one run, or the target cannot be written.
    """
    if len(paths) != 1:
        raise UsageError(f"--html: expected one run, found {len(paths)} paths")
    if not is_run(Path(paths[0])):
        raise UsageError(f"--html: expected a run, found none at {printable(paths[0])}")
    check_writable(target, overwrite, ending=".html")


def write_page(inspection: Inspection, target: Path, request: SampleRequest, progress: Progress) -> int:
    """Write a run's page.

    Args:
        inspection: of the run.
        target: of the HTML file; `check_page` has looked at it.
        request: the new samples to generate.
        progress: called with (samples made, samples in all).

    Returns:
        The page's bytes.

    Raises:
        CheckpointError, ModelError: there is a checkpoint to generate from, and it is damaged.
        WavegenError: the page cannot be written.
    """
    content = build_page(inspection, request, progress).encode("utf-8")
    write_output(target, content)
    return len(content)


def build_page(inspection: Inspection, request: SampleRequest, progress: Progress) -> str:
    """The page as text; arguments as `write_page`."""
    from wavegen.report.page import sections

    facts = inspection.facts
    run = Path(facts["path"])
    name = printable(run.absolute().name)
    history = read_history(run)
    is_series = facts["config"]["output"]["kind"] == "regression"
    samples, origin = ([], "") if is_series else generate_samples(run, request, progress)
    auditions, problems = read_auditions(run, facts["auditions"])
    n_all = len(facts["auditions"])
    some = "All" if len(auditions) == n_all else f"{len(auditions)} of the {n_all}"
    note = f"{some} that the training left, with one seed: they compare." if auditions else "There are none yet."
    parts = {
        "summary": ("Summary", sections.summary(facts)),
        "samples": ("Samples", sections.sounds("samples", "Samples", origin, samples)),
        "auditions": (
            "Auditions",
            sections.sounds("auditions", "Auditions", " ".join([note, *map(printable, problems)]), auditions),
        ),
        "curves": ("Curves", sections.curves(history, facts["last_validation"])),
        "data": ("Data", sections.data(facts)),
        "network": ("Network", sections.network(facts)),
        "configuration": ("Configuration", sections.configuration(facts["config"])),
    }
    if is_series:  # there is nothing to hear
        parts = {key: part for key, part in parts.items() if key not in ("samples", "auditions")}
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, (title, _) in parts.items()]
    made = datetime.now(UTC)
    given = [] if facts["config"]["mel"]["n_mels"] is None else ["--mel-from", "recording.wav"]
    call = ["wavegen", "generate", facts["path"], *given, "-o", "new.wav"]
    if is_series:
        call = ["wavegen", "forecast", facts["path"], "series.csv"]
    body = tag(
        "body",
        tag("a", "Skip to the content", href="#content", class_="skip"),
        tag(
            "header",
            tag("h1", name),
            tag("p", printable(facts["path"]), class_="note"),
            tag("nav", tag("ul", links), aria_label="Sections"),
        ),
        tag("main", [part for _, part in parts.values()], id="content"),
        tag(
            "footer",
            tag("p", "More of it: ", tag("code", printable(shlex.join(call)))),
            tag(
                "p",
                f"Made by wavegen {__version__}, ",
                tag("time", f"{made:%Y-%m-%d %H:%M} UTC", datetime=f"{made:%Y-%m-%dT%H:%MZ}"),
            ),
        ),
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name}: a wavegen run"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))),
    )
    return "<!DOCTYPE html>\n" + tag("html", join([head, "\n", body]), lang="en") + "\n"
