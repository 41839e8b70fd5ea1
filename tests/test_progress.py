"""The output of a running training."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from wavegen.audio.quantize import Quantizer
from wavegen.cli import console
from wavegen.cli.progress import TrainingDisplay
from wavegen.training.progress import Progress

STEP = {"step": 1, "train_loss": 9.5, "targets_per_second": 20_000.0, "hours_of_audio": 0.5, "skipped": 0}
VALIDATION = {"step": 1, "validation_loss": 9.25, "baselines": {"uniform": 16.0}}


@pytest.mark.parametrize(
    ("quantizer", "classes"),
    [
        (Quantizer("mu_law", 256), ""),
        (Quantizer("linear", 65536), "in 65,536 linear classes"),
        (Quantizer("mu_law", 1024), "in 1,024 mu-law classes"),
        (Quantizer("linear", 256), "in 256 linear classes"),
    ],
    ids=str,
)
def test_figures_name_their_classes_unless_they_are_the_usual_ones(quantizer, classes, capsys, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_SECONDS", 0.0)  # this is no terminal: the bar is a line
    display = TrainingDisplay(10, Progress(), quantizer.unit)
    display.on_validation(VALIDATION)
    display.on_step(STEP)
    display.close()
    line, bar = capsys.readouterr().err.splitlines()
    unit = f"bits/sample {classes}".strip()
    assert line == f"step 1: 9.250 {unit} (best so far); baselines: uniform 16.000"
    beside = f"{classes}, " if classes else ""
    assert f"train 9.500, held-out 9.250, {beside}20k targets/s, 0.50 h of audio" in bar


@pytest.mark.parametrize("total", [36, 20_000, 1_000_000])
def test_the_bar_fits_80_columns_and_shows_what_matters(total, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    display = TrainingDisplay(total, Progress(step=total - 2), "bits/sample")
    display.on_step(STEP | {"step": total - 1})
    display.on_validation(VALIDATION)
    display.on_step(STEP | {"step": total})
    display.bar._bar.refresh()
    bar = terminal.getvalue().split("\r")[-1].rstrip()
    display.close()
    assert len(bar) <= 80
    assert bar.startswith("training: ")
    assert f"{total:,} of {total:,} steps, 00:00 left, train 9.500, held-out 9.250" in bar


def test_a_figure_that_is_no_number_is_not_the_best(capsys):
    display = TrainingDisplay(10, Progress(), "bits/sample")
    for bits in (float("nan"), 9.5, 9.75, 9.25):
        display.on_validation(VALIDATION | {"validation_loss": bits})
    display.close()
    said = capsys.readouterr().err.splitlines()
    assert ["(best so far)" in line for line in said] == [False, True, False, True]


def on_terminal(columns, what):
    """Return what a terminal of so many columns gets to see of some Python."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    code = f"from wavegen.cli.console import ProgressBar, print_notice\n{what}"
    with subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment) as process:
        assert process.wait() == 0
    os.close(terminal)
    with os.fdopen(main, "rb") as seen:
        return seen.read1().decode()


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals differ")
@pytest.mark.parametrize("columns", [0, 80])
def test_a_terminal_shows_the_activity_with_its_count_and_clears_it_for_a_notice(columns):
    seen = on_terminal(columns, "with ProgressBar('reading', 10):\n    print_notice('a notice')")
    assert "\rreading: 0 of 10 steps, ? left" in seen
    assert "\ra notice\r\n" in seen
