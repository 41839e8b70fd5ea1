"""Inspect anything that wavegen reads or writes: a module for each kind, which returns typed facts.

Names of facts contain units, and None means not applicable or unknown.
"""

from __future__ import annotations

import dataclasses
import difflib
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wavegen.audio.read import find_audio, is_run
from wavegen.config import all_preset_names, preset_names
from wavegen.data.corpus import Progress
from wavegen.data.sources import LISTS
from wavegen.errors import UsageError
from wavegen.inspect.audio import AudioFacts, inspect_audio
from wavegen.inspect.models import CheckpointFacts, ConfigFacts, inspect_checkpoint, inspect_config
from wavegen.inspect.recordings import FolderFacts, SeriesFacts, holds_series, inspect_folder, inspect_series
from wavegen.inspect.runs import ComparisonFacts, RunFacts, RunListFacts, compare_runs, inspect_run, list_runs
from wavegen.runs.run_folder import SHIPPED_MODEL, SHIPPED_NAMES, find_runs
from wavegen.text import printable

Facts = (
    AudioFacts | FolderFacts | SeriesFacts | ConfigFacts | CheckpointFacts | RunFacts | RunListFacts | ComparisonFacts
)


def inspect_paths(paths: Sequence[str], progress: Progress | None = None, *, decode: bool = False) -> Facts:
    """Inspect one path, recordings at several paths, or compare the runs there.

    Args:
        paths: one path of any kind, several runs, or several folders and files of recordings.
        progress: as ``inspect_path``.
        decode: decode every file of a folder, and measure its levels.

    Raises:
        UsageError: some of several are runs and some are not, or there are no recordings to decode.
        WavegenError: as ``inspect_path``.
    """
    runs = [is_run(Path(path)) for path in paths]
    if decode and (any(runs) or not (len(paths) > 1 or Path(paths[0]).is_dir())):
        found = f"{len(paths)} paths" if len(paths) > 1 else printable(paths[0])
        raise UsageError(f"--listen: expected a folder of recordings, found {found}")
    if len(paths) == 1:
        return inspect_path(paths[0], progress, decode=decode)
    if not any(runs):
        return inspect_folder(paths, progress, decode=decode)
    if not all(runs):
        other = paths[runs.index(False)]
        raise UsageError(f"{printable(other)}: expected a run to compare with the others, found none there")
    return compare_runs([Path(path) for path in paths])


def inspect_path(path: str, progress: Progress | None = None, *, decode: bool = False) -> Facts:
    """Inspect the file or folder at a path.

    A folder with `config.yaml` and `checkpoints/` is a run, one of runs and no audio lists them, one of .npy and .csv
    files without audio has series, any other is a folder of recordings. A file that ends in .safetensors is a
    checkpoint, one in .yaml or .yml a configuration, one in .npy or .csv has series, a text lists recordings, any other
    is audio. Where nothing is at the path, it may be a preset's name; `voice` is the model that wavegen ships, and so
    is `demo`, its old name, though a preset has it, too.

    Args:
        path: of a file or a folder, or a name.
        progress: called with (done, in all): files of a folder, samples of an audio file.
        decode: decode every file of a folder, and measure its levels.

    Raises:
        UsageError: there is nothing at the path, or it is no file and no folder.
        ConfigError: a configuration is wrong.
        CheckpointError: a checkpoint is damaged, or none of wavegen.
        AudioError: a file is not audio that libsndfile reads, or damaged.
        DataError: a folder cannot be listed.
    """
    place = Path(path)
    try:
        is_folder = stat.S_ISDIR(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return _inspect_name(path)
    except OSError as error:
        raise UsageError(f"{printable(path)}: cannot be read ({error.strerror})") from None
    if is_folder and is_run(place):
        return inspect_run(place)
    if is_folder and not decode and (runs := find_runs(place)) and not find_audio(place).names:
        return list_runs(place, runs)
    ending = "" if is_folder else place.suffix.lower()
    if ending in (".safetensors", ".yaml", ".yml"):
        return inspect_checkpoint(place) if ending == ".safetensors" else inspect_config(path)
    if holds_series(place):
        if decode:
            raise UsageError(f"--listen: expected a folder of recordings, found one of series: {printable(path)}")
        return inspect_series(place, progress)
    if is_folder or ending in LISTS:
        return inspect_folder(place, progress, decode=decode)
    return inspect_audio(place, progress)


def _inspect_name(name: str) -> Facts:
    """Inspect the shipped model or a preset, where no file has that name."""
    presets = all_preset_names()
    if name in SHIPPED_NAMES:
        return inspect_checkpoint(SHIPPED_MODEL)
    if name in presets:
        return inspect_config(name)
    near = difflib.get_close_matches(name, presets, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    raise UsageError(
        f"{printable(name)}: nothing there; expected a folder of recordings, an audio file, a run folder, "
        f"a checkpoint (.safetensors), a configuration (.yaml) or a preset ({', '.join(preset_names())}){meant}"
    )


def as_dict(found: Facts) -> dict[str, Any]:
    """Return facts as numbers, texts, lists and dictionaries, for JSON."""
    return {"kind": found.kind, **_plain(found)}


def _plain(value: Any) -> Any:
    """Turn data classes and configurations into dictionaries; names keep bytes that are no text."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
