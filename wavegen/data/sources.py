"""The files of a corpus: from folders, files, patterns and lists, with their splits and labels."""

from __future__ import annotations

import codecs
import contextlib
import functools
import glob
import os
import posixpath
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from wavegen.audio.read import IS_RUN, FoundAudio, find_audio, is_run, suffix
from wavegen.data.corpus import Split
from wavegen.errors import UsageError
from wavegen.text import expand_home, group_by_reason, list_first, pluralize, printable

LISTS = frozenset((".txt", ".lst", ".list", ".m3u", ".m3u8"))  # endings of texts that list recordings
MOST_SOURCES = 100  # in a configuration, which is parsed whenever its model is used

Source = str | Path
Find = Callable[[Path], FoundAudio]


@dataclass(frozen=True)
class File:
    """A file of a corpus: its name, path, split and label."""

    name: str
    path: Path
    split: Split
    label: str
    is_loose: bool  # in no sub-folder that could be its label


@dataclass(frozen=True)
class Sources:
    """The files of a corpus.

    Attributes:
        root: the folder that names are relative to: the one that was given, or else one that holds all that were.
        found: the files.
        labels: of the folders, by their names in ``root``, where not one folder alone was given.
    """

    root: Path
    found: FoundAudio
    labels: Mapping[str, str] | None

    def label(self, name: str) -> tuple[str, bool]:
        """Return a file's label, and whether it is loose.

        It is the name of the folder that was given, or the file's own; in a folder given alone, ``folder_label``.
        """
        if self.labels is None:
            return _label(name, self.root)
        inside = posixpath.dirname(name)
        while inside and inside not in self.labels:
            inside = posixpath.dirname(inside)
        return self.labels.get(inside) or (self.root / name).parent.name, False


def find_sources(given: Source | Sequence[Source], find: Find = find_audio) -> Sources:
    """List the files of a corpus.

    Args:
        given: folders, files, patterns such as ``*.wav``, or texts that list folders and files, one a line and
            relative to the text. Of a line such as ``a.wav|some words`` the part before the bar counts.
        find: lists the files of a folder, or looks at a single one.

    Raises:
        UsageError: there is nothing at a place, or a text lists nothing that is there.
        DataError: a folder cannot be listed.
    """
    given = [given] if isinstance(given, str | Path) else given
    if not given:
        raise UsageError("expected a folder of recordings, found none")
    places: dict[Path, None] = {}
    unusable: dict[str, str] = {}
    n_ignored = 0
    for path in map(expand_home, given):
        if suffix(path.name) in LISTS and path.is_file():
            listed, missing = _read_list(path)
            if not listed and len(given) == 1:
                raise UsageError(
                    f"{printable(path)}: expected a list of recordings, one a line and relative to this text, found"
                    f" none of them: {list_first(map(printable, missing))}"
                )
            if listed:
                unusable |= dict.fromkeys(missing, f"listed in {printable(path)}, and not there")
            n_ignored += not listed  # words about the recordings next to it
        else:
            listed = [path] if _exists(path) else [Path(each) for each in _matching(str(path))] or [path]
        places |= dict.fromkeys(map(_absolute, listed))
    if not places:
        raise UsageError(f"{list_sources(given)}: expected recordings, found words about them")
    runs = [place for place in places if is_run(place)]
    if len(places) == 1 or len(runs) == len(places):
        check_source(next(iter(places)))
    unusable |= {str(run): IS_RUN for run in runs}
    founds = {place: find(place) for place in places if place not in runs}
    folders = {place: place if place.is_dir() else place.parent for place in founds}
    root = Path(os.path.commonpath(folders.values()))
    names: set[str] = set()
    labels: dict[str, str] = {}
    for place, found in founds.items():
        inside = "" if folders[place] == root else folders[place].relative_to(root).as_posix()
        names |= {posixpath.join(inside, name) for name in found.names}
        unusable |= {posixpath.join(inside, name): reason for name, reason in found.unusable}
        n_ignored += found.n_ignored
        if folders[place] == place:
            labels[inside] = place.name
    is_one_folder = len(places) == 1 and bool(labels)
    files = FoundAudio(tuple(sorted(names)), tuple(sorted(unusable.items())), n_ignored)
    return Sources(root, files, None if is_one_folder else labels)


def list_sources(given: Source | Sequence[Source]) -> str:
    """Return the first sources on a line, for messages."""
    return list_first(map(printable, [given] if isinstance(given, str | Path) else given))


def nothing_usable(where: str, expected: str, unusable: Mapping[str, str], n_ignored: int) -> str:
    """Return the message of sources of which nothing can be used: why each file cannot, or that there are none."""
    if not unusable:
        ignored = pluralize(n_ignored, "other entry was", "other entries were")
        return f"{where}: expected {expected}, found none; {ignored} ignored"
    reasons = [f"{names}: {reason}" for names, reason in group_by_reason(sorted(unusable.items()))]
    return f"{where}: none of {pluralize(len(unusable), 'file')} can be used: {list_first(reasons)}"


def check_source(path: Path) -> None:
    """Check for what is no recordings but a run, a configuration or a checkpoint.

    Raises:
        UsageError: it is one of these; the message has the right command.
    """
    where, quoted = printable(path), shlex.quote(str(path))
    if is_run(path):
        raise UsageError(f"{where}: this is a run, no recordings; resume it: wavegen train --run {quoted} --resume")
    if suffix(path.name) in (".yaml", ".yml") and path.is_file():
        raise UsageError(f"{where}: this is a configuration, no recordings: wavegen train DIR --config {quoted}")
    if suffix(path.name) == ".safetensors" and path.is_file():
        raise UsageError(f"{where}: this is a checkpoint, no recordings: wavegen train DIR --init-from {quoted}")


def compact_sources(given: Sequence[Source]) -> list[str]:
    """Return absolute paths of sources; of many files, those that are all of their kind in a folder as a pattern.

    Raises:
        UsageError: as ``check_source``, or they are too many for a configuration even so.
    """
    if len(given) == 1:
        check_source(expand_home(given[0]))
    paths = [str(_absolute(expand_home(each))) for each in given]
    if len(paths) <= MOST_SOURCES:
        return paths
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, name = os.path.split(path)
        groups[f"{glob.escape(folder)}/*{Path(name).suffix}"].append(path)  # of the same case: recorders write .WAV
    compact: list[str] = []
    for pattern, files in groups.items():
        compact += [pattern] if set(files) == set(_matching(pattern)) else files
    if len(compact) > MOST_SOURCES:
        raise UsageError(
            f"expected at most {MOST_SOURCES} folders and files, found {len(compact):,}; list them in a text, one a"
            " line, and give that: wavegen train list.txt"
        )
    return compact


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []  # noqa: PTH207 (Path's follows no links)


def _absolute(path: Path) -> Path:
    # what lies above a link is where the link leads
    return path.resolve() if ".." in path.parts else path.absolute()


def _exists(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a name too long to exist
        return path.exists() or path.is_symlink()
    return False


def _read_list(text: Path) -> tuple[list[Path], list[str]]:
    """Return the places that a text lists, and those of its lines that name none."""
    listed, missing = [], []
    for line in _lines_of(text):
        if line.startswith("#EXT"):  # of a playlist
            continue
        name = line.partition("|")[0].strip()
        names = (line, name, name.replace("\\", "/"))  # the last for a list from Windows
        place = next((place for each in names if _exists(place := text.parent / expand_home(each))), None)
        if place is None:
            missing.append(line)
        else:
            listed.append(place)
    return listed, missing


def _lines_of(text: Path) -> list[str]:
    content = os.fsdecode(text.read_bytes().removeprefix(codecs.BOM_UTF8))
    return [stripped for line in content.split("\n") if (stripped := line.strip())]


# --- splits and labels ---------------------------------------------------------------------------------------------


def list_files(
    sources: Sources, validation: float | str, find: Find = find_audio
) -> tuple[list[File], dict[str, str], int]:
    """Find the files to decode, the reasons why others are not, and how many are no audio.

    Args:
        sources: of the corpus.
        validation: a folder of validation files or a list of them; or a share, which is of the clips.
        find: lists the files of a folder.

    Raises:
        UsageError: there is no such folder or list, or the list names a file that is not in the corpus.
    """
    folder, found = sources.root, sources.found
    held_out = _look_up(Path(validation), folder) if isinstance(validation, str) else None
    unusable = dict(found.unusable)
    names = set[str]()  # that are held out
    if held_out is not None and not held_out.is_dir():
        names, held_out = _read_names(held_out, folder, {*found.names, *unusable}), None
    real = None if held_out is None else held_out.resolve()

    @functools.cache
    def is_held_out(inside: str) -> bool:
        return real is not None and (folder / inside).resolve().is_relative_to(real)

    files = [
        File(name, folder / name, "validation" if name in names else "train", *sources.label(name))
        for name in found.names
        if not is_held_out(posixpath.dirname(name))
    ]
    if held_out is None:
        return files, unusable, found.n_ignored
    held = find(held_out)
    prefix = os.path.relpath(held_out.absolute(), folder.absolute()).replace(os.sep, "/")
    # corpus/held_out/anna/1.wav is anna's, and so is corpus/anna/held_out/1.wav
    nested = not prefix.startswith("..") and "/" in prefix
    for name in held.names:
        full_name = posixpath.join(prefix, name)
        label = sources.label(full_name) if nested else _label(name, held_out)
        files.append(File(full_name, held_out / name, "validation", *label))
    unusable |= {posixpath.join(prefix, name): reason for name, reason in held.unusable}
    n_ignored = found.n_ignored + (held.n_ignored if prefix.startswith("..") else 0)
    return sorted(files, key=lambda file: file.name), unusable, n_ignored


def folder_label(name: str, folder: Path) -> str:
    """Return a file's label: the first folder on the way to it, or else the name of the folder itself.

    Args:
        name: of the file, relative to the folder, with forward slashes.
        folder: that is searched.
    """
    first, slash, _ = name.partition("/")
    return first if slash else folder.resolve().name


def _label(name: str, folder: Path) -> tuple[str, bool]:
    return folder_label(name, folder), "/" not in name


def _look_up(validation: Path, folder: Path) -> Path:
    """Find the folder or list of validation files: from the working directory, else from the corpus folder."""
    validation = expand_home(validation)
    for path in (validation, folder / validation):
        with contextlib.suppress(OSError):  # a name too long to exist
            if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
                raise UsageError(f"data.validation: {printable(path)} holds the training folder itself")
            if path.is_dir() or path.is_file():
                return path
    raise UsageError(
        f"data.validation: expected a share, a folder or a list of files, found nothing at {printable(validation)},"
        f" here or in {printable(folder)}"
    )


def _read_names(listing: Path, folder: Path, known: Set[str]) -> set[str]:
    """Read a list of files of the corpus, one a line.

    Raises:
        UsageError: a file is not in the folder; the message names the first of them.
    """
    names = {posixpath.normpath(line) for line in _lines_of(listing)}
    if unknown := sorted(names - known):
        raise UsageError(
            f"{printable(listing)}: {pluralize(len(unknown), 'name is')} not among the files of {printable(folder)}:"
            f" {list_first(map(printable, unknown))}"
        )
    return names
