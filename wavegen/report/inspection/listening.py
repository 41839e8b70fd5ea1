"""Hearing every file of a folder: level, silence, damage, and what sounds the same."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wavegen.audio.read import read_blocks
from wavegen.audio.waveform import MISSING_SECONDS
from wavegen.errors import AudioError, UsageError
from wavegen.report.inspection.inspection import Progress
from wavegen.report.inspection.level import SILENCE_DB, LevelMeter
from wavegen.report.tables import Table, facts, first_rows, minutes
from wavegen.text import pluralize, printable

MAX_WORKERS = 8
CLIPPED_SHARE = 1e-4  # a normalized file touches full scale once or twice without being clipped
DC_OFFSET = 0.01  # of full scale


@dataclass(frozen=True)
class Heard:
    """A file from its first sample to its last.

    Attributes:
        seconds: decoded.
        missing_seconds: how much more its header claims.
        level: facts of its `LevelMeter`.
        sound_hash: of the samples: files with the same sound have the same, whatever their names and tags.
    """

    seconds: float
    missing_seconds: float
    level: dict[str, Any]
    sound_hash: str


def listen(folder: Path, names: Sequence[str], progress: Progress | None) -> dict[str, Heard | str]:
    """Decode files, as many at once as there are processors, block by block.

    Returns:
        For each name what was heard, or why it cannot be used.
    """
    heard: dict[str, Heard | str] = {}
    pool = ThreadPoolExecutor(min(MAX_WORKERS, os.cpu_count() or 1), "listen")
    try:
        for name, one in zip(names, pool.map(lambda name: _hear(folder / name), names), strict=True):
            heard[name] = one
            if progress:
                progress(len(heard), len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    return heard


def duplicates(heard: dict[str, Heard]) -> list[list[str]]:
    """The groups of files that sound the same, sample for sample."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, one in heard.items():
        groups[one.sound_hash].append(name)
    return sorted(names for names in groups.values() if len(names) > 1)


def listening_facts(heard: dict[str, Heard], groups: Sequence[Sequence[str]], sample_rate_hz: int) -> dict[str, Any]:
    """All files together.

    Args:
        heard: those that can be used.
        groups: their `duplicates`.
        sample_rate_hz: of the preset that training takes without a configuration.
    """
    levels = [one.level for one in heard.values()]
    seconds = sum(one.seconds for one in heard.values())
    silent_seconds = sum(one.seconds * one.level["silent_share"] for one in heard.values())
    return {
        "peak_dbfs": _spread([level["peak_dbfs"] for level in levels]),
        "rms_dbfs": _spread([level["rms_dbfs"] for level in levels]),
        "clipped_files": sum(level["clipped_share"] >= CLIPPED_SHARE for level in levels),
        "full_scale_samples": sum(level["clipped_samples"] for level in levels),
        "dc_offset_files": sum(abs(level["dc_offset"]) >= DC_OFFSET for level in levels),
        "silent_files": sum(level["peak_dbfs"] is None for level in levels),
        "silence_threshold_db": SILENCE_DB,
        "silent_share": silent_seconds / seconds if seconds else None,
        "damaged_files": sum(one.missing_seconds > MISSING_SECONDS for one in heard.values()),
        "duplicates": [list(group) for group in groups],
        "training": {
            "files": len(heard),
            "minutes": seconds / 60,
            "sample_rate_hz": sample_rate_hz,
            "distinct_minutes": (seconds - sum(heard[name].seconds for g in groups for name in g[1:])) / 60,
        },
    }


def listening_tables(heard: dict[str, Heard], values: dict[str, Any]) -> list[Table]:
    """What `listening_facts` found, and the files that are worth a look."""
    groups, training, share = values["duplicates"], values["training"], values["silent_share"]
    copies = sum(len(group) - 1 for group in groups)
    threshold = f"{values['silence_threshold_db']:.0f} dB"
    levels = facts(
        "levels",
        **{
            "peak": _in_words(values["peak_dbfs"]),
            "RMS": _in_words(values["rms_dbfs"]),
            "clipped": _files(values["clipped_files"], f"with {CLIPPED_SHARE:.2%} of their samples at full scale"),
            "DC offset": _files(values["dc_offset_files"], f"with {DC_OFFSET:.0%} of full scale or more"),
            "silence": None
            if share is None
            else f"{share:.1%} of all audio lies {threshold} below its file's loudest part",
            "silent": _files(values["silent_files"], "without any sound"),
            "duplicates": _files(copies, "with the very samples of another"),
            "damaged": _files(values["damaged_files"], "shorter than their header says"),
        },
    )
    repeated = 60 * (training["minutes"] - training["distinct_minutes"])
    use = facts(
        "what training would use",
        files=f"{training['files']:,}",
        length=minutes(60 * training["minutes"]) + (f", {minutes(repeated)} of it repeated" if copies else ""),
        **{
            "as": f"mono at {training['sample_rate_hz']:,} Hz, "
            f"{round(60 * training['minutes'] * training['sample_rate_hz']):,} samples (the default preset)"
        },
    )
    originals = {name: group[0] for group in groups for name in group[1:]}
    rows = [
        (printable(name), "; ".join(remarks))
        for name, one in sorted(heard.items())
        if (remarks := _remarks(one, originals.get(name)))
    ]
    look = [first_rows("worth a look", ("file", "what"), rows)] if rows else []
    return [levels, use, *look]


def _hear(path: Path) -> Heard | str:
    try:
        info, blocks = read_blocks(path)
        meter, digest = LevelMeter(info), hashlib.sha256(f"{info.rate_hz} {info.channels}".encode())
        for block in blocks:
            meter.hear(block)
            digest.update(np.ascontiguousarray(block).data)
    except (AudioError, UsageError) as error:
        return str(error).removeprefix(f"{printable(path)}: ")
    except MemoryError:
        return "needs more memory than there is; cut it into shorter files"
    seconds = meter.n_frames / info.rate_hz
    return Heard(seconds, max(0.0, (info.seconds or 0.0) - seconds), meter.facts(), digest.hexdigest())


def _remarks(one: Heard, original: str | None) -> list[str]:
    """What is odd about a file; the original is another that sounds the same."""
    level = one.level
    remarks = []
    if level["peak_dbfs"] is None:
        remarks.append("silent from end to end")
    if level["clipped_share"] >= CLIPPED_SHARE:
        remarks.append(f"clipped: {level['clipped_share']:.2%} of its samples are at full scale")
    if abs(level["dc_offset"]) >= DC_OFFSET:
        remarks.append(f"DC offset {level['dc_offset']:+.3f}")
    if one.missing_seconds > MISSING_SECONDS:
        remarks.append(f"{one.missing_seconds:.2f} s less than its header says")
    if original is not None:
        remarks.append(f"the same as {printable(original)}")
    return remarks


def _spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"lowest": min(known), "median": median(known), "highest": max(known)} if known else None


def _in_words(spread: dict[str, float] | None) -> str | None:
    if spread is None:
        return None
    words = (f"{name} {round(level, 1) + 0.0:.1f}" for name, level in spread.items())  # + 0.0 makes no -0.0
    return f"{', '.join(words)} dBFS"


def _files(number: int, what: str) -> str:
    return f"{pluralize(number, 'file')} {what}" if number else "none"
