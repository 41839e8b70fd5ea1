"""The YAML of a configuration, read with the place of each key; the reader builds nothing but plain values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wavegen.errors import ConfigError, UsageError

KeyPath = tuple[str, ...]

LARGEST_FILE_BYTES = 64 * 1024
DEEPEST_NESTING = 20
# The values of scalars by the last part of their tags.
SCALARS: dict[str, Callable[[str], str | int | float | bool | None]] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


@dataclass
class YamlSource:
    """A parsed document.

    Args:
        name: of the file, for errors.
        tree: nested dicts, lists, and plain scalars.
        places: where each key stands, ``file:line`` or the override that set it.
        repeated: keys given more than once; the last one counts.
    """

    name: str
    tree: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)
    repeated: list[KeyPath] = field(default_factory=list)

    def where(self, key: KeyPath) -> str:
        """Return the place of a key, or of the nearest enclosing one that the document has."""
        while key and key not in self.places:
            key = key[:-1]
        return self.places.get(key, self.name)

    def value(self, key: KeyPath) -> Any:
        """Return the value at a key; None where the document has none."""
        node: Any = self.tree
        for part in key:
            if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            else:
                node = node.get(part) if isinstance(node, dict) else None
        return node

    def in_order(self, keys: Iterable[KeyPath]) -> list[KeyPath]:
        """Return keys in the document's order; those that are not in it come first."""
        ranks = {key: rank for rank, key in enumerate(self.places)}
        return sorted(keys, key=lambda key: ranks.get(key, -1))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core scalars: ``on`` and ``no`` are text, ``1e-3`` is a number. No aliases: they can multiply."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (pyyaml's own)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases have no use in a configuration", problem_mark=mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would not read back as text."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.inf|\.nan", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.yaml_implicit_resolvers[""] = _Loader.yaml_implicit_resolvers.pop("\0")


def parse_yaml(source: Path | str, name: str | None = None) -> YamlSource:
    """Parse a file, or text with the name that errors shall give it.

    Raises:
        ConfigError: not YAML, or YAML with what a configuration has no use for: aliases, tags,
            several documents, deep nesting, more than 64 KiB.
        UsageError: the file cannot be read.
    """
    if isinstance(source, Path):
        name = name or str(source)
        text = _read(source)
    else:
        name, text = name or "the text", source
    parsed = YamlSource(name, {})
    try:
        node = yaml.compose(text, Loader=_Loader)
        tree = None if node is None else _build(node, (), parsed)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{name}:{line}: not valid YAML: {error.problem}"]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError([f"{name}: not valid YAML: {str(error).splitlines()[0]}"]) from None
    if tree is None:
        return parsed
    if not isinstance(tree, dict):
        raise ConfigError([f"{name}: expected sections such as 'model:', found {type(tree).__name__}"])
    parsed.tree.update(tree)
    return parsed


def parse_value(text: str, name: str) -> Any:
    """Parse one value as YAML writes it.

    Raises:
        ConfigError: it is not valid YAML; ``name`` gives the place.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _build(node, (), YamlSource(name, {}))
    except (yaml.YAMLError, RecursionError):
        raise ConfigError([f"{name}: expected a value as YAML writes it, found {text!r}"]) from None


def write_yaml(tree: dict[str, Any]) -> str:
    """Return text that ``parse_yaml`` reads back to an equal tree."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False)
    return text


def show(value: Any) -> str:
    """Return a value as YAML writes it, cut to 60 characters."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise ConfigError([f"{path}: expected a configuration of at most 64 KiB, found more"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: expected UTF-8 text, found the byte {content[error.start]:#04x}"]) from None


def _build(node: yaml.Node, key: KeyPath, source: YamlSource) -> Any:
    """Return the plain value of a node; the line of every key in it is noted."""
    line = node.start_mark.line + 1
    where = f"{source.name}:{line}"
    if len(key) > DEEPEST_NESTING:
        raise ConfigError([f"{where}: expected plain keys and values, found deep nesting"])
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        tree: dict[str, Any] = {}
        if key:  # a section in a list has a place of its own; others stand where their key is
            source.places.setdefault(key, where)
        for key_node, value_node in node.value:
            name = str(_build(key_node, key, source))
            line = key_node.start_mark.line + 1
            if name in tree:
                source.repeated.append((*key, name))
            source.places[(*key, name)] = f"{source.name}:{line}"
            tree[name] = _build(value_node, (*key, name), source)
        return tree
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_build(item, (*key, str(i)), source) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, where)
    raise ConfigError([f"{where}: expected plain keys and values, found the tag {node.tag}"])


def _scalar(node: yaml.ScalarNode, where: str) -> str | int | float | bool | None:
    kind = node.tag.rpartition(":")[2]
    if kind not in SCALARS:
        raise ConfigError([f"{where}: expected plain keys and values, found the tag {node.tag}"])
    try:
        return SCALARS[kind](node.value)
    except ValueError:
        raise ConfigError([f"{where}: expected a number, found {node.value[:40]!r}"]) from None
