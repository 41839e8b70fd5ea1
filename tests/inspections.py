"""What ``wavegen inspect`` finds in files that are made up."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wavegen.report.inspection import Inspection, inspect_path
from wavegen.report.tables import print_tables

RATE = 16000


def sine(amplitude: float, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write(path: Path, waveform: np.ndarray, rate_hz: int = RATE, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate_hz, subtype=subtype)
    return path


def text_of(inspection: Inspection) -> str:
    file = io.StringIO()
    print_tables(inspection.tables, file)
    return file.getvalue()


def inspected(path: Path | str, kind: str) -> tuple[dict[str, Any], str]:
    """The facts, after a trip through strict JSON, and the printed tables."""
    inspection = inspect_path(str(path))
    facts = json.loads(json.dumps(inspection.facts, allow_nan=False))
    assert facts == inspection.facts
    assert inspection.kind == facts["kind"] == kind
    return facts, text_of(inspection)
