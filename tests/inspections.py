"""Facts of ``wavegen inspect`` about synthetic files."""

import io
import json

import numpy as np
import soundfile

from wavegen.inspect import as_dict, inspect_path
from wavegen.report import print_tables
from wavegen.report.inspected import tables_of

RATE = 16000


def sine(amplitude, seconds, hertz=440.0):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write(path, waveform, rate_hz=RATE, subtype=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, rate_hz, subtype=subtype)
    return path


def text_of(inspection):
    file = io.StringIO()
    print_tables(tables_of(inspection), file)
    return file.getvalue()


def inspected(path, kind):
    """The facts, after a trip through strict JSON, and the printed tables."""
    inspection = inspect_path(str(path))
    facts = json.loads(json.dumps(as_dict(inspection), allow_nan=False))
    assert facts == as_dict(inspection)
    assert inspection.kind == facts["kind"] == kind
    return facts, text_of(inspection)
