"""The shipped configurations, by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from wavegen.errors import UsageError

DEFAULT_PRESET = "small"


def presets_folder() -> Path:
    """Return the folder of the presets: inside the installed package, or ``configs/`` of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Return the names that ``--config`` takes besides files."""
    return sorted(path.stem for path in presets_folder().glob("*.yaml"))


def preset_text(name: str) -> str:
    """Return a preset's YAML with all its comments.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in preset_names():
        raise UsageError(f"{name}: {_no_such_preset(name)}")
    return (presets_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def preset_summaries() -> dict[str, str]:
    """Return each preset's name with its purpose: the comment that begins with the name."""
    summaries = {}
    for name in preset_names():
        start = f"# {name}: "
        lines = (line.removeprefix(start) for line in preset_text(name).splitlines() if line.startswith(start))
        summaries[name] = next(lines, "")
    return summaries


def find_config(source: str) -> Path:
    """Return the file of a preset's name or a path.

    Raises:
        UsageError: there is no such preset or file.
    """
    if source in preset_names():
        return presets_folder() / f"{source}.yaml"
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{source}: expected a YAML file or a preset, found a folder")
    raise UsageError(f"{source}: no such file, and {_no_such_preset(source)}")


def _no_such_preset(name: str) -> str:
    names = preset_names()
    near = difflib.get_close_matches(name, names, n=1)
    return f"no such preset ({', '.join(names)})" + (f"; did you mean '{near[0]}'?" if near else "")
