"""Load a configuration from YAML and overrides, or report all of its problems."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wavegen.config.cross_checks import LENGTHS, check_consistency, conflicting_keys
from wavegen.config.schema import KEYS_OF_KINDS, LayerConfig, ModelConfig, Sections, foreign_keys
from wavegen.config.yaml_source import (
    DEFAULT_PRESET,
    KeyPath,
    YamlSource,
    find_config,
    parse_value,
    parse_yaml,
    show,
    write_yaml,
)
from wavegen.errors import ConfigError
from wavegen.text import expand_home, list_first

# The behaviour of training before these keys existed: their values in older checkpoints.
BEFORE_THERE_WERE_KEYS: dict[str, dict[str, Any]] = {
    "audio": {"remove_dc": False, "trim_db": None, "pause_seconds": None, "level": "keep", "max_gain_db": None},
    "data": {"following": 0.0, "beginnings": 0.0},
}
# Keys of older files, and the keys that have replaced them.
MOVED_KEYS: dict[KeyPath, KeyPath] = {
    ("data", "synthetic"): ("series", "synthetic"),
    ("data", "synthetic_points"): ("series", "points"),
    ("data", "offset"): ("series", "offset"),
    ("data", "scale"): ("series", "scale"),
}
# What earlier files have where today a stack has recurrent layers.
OLD_RECURRENT_KINDS, OLD_RECURRENT_KEYS = ("gru", "lstm"), ("recurrent_channels", "recurrent_layers")
MOST_OLD_RECURRENT_LAYERS = 20
MOST_PROBLEMS = 50  # are explained at once

Tree = Mapping[str, Any]  # a JSON Schema, or a part of one


class Config(Sections):
    """The whole configuration."""

    def with_values(self, section: str, **values: Any) -> Config:
        """Return a copy with other values of some keys of one section.

        Raises:
            ConfigError: a value is not allowed.
        """
        tree = self.model_dump()
        tree[section].update(values)
        return validate(YamlSource("the configuration", tree))

    def as_frozen(self, frozen: Config) -> Config:
        """Return a copy with every ``auto`` replaced by another configuration's value."""
        config = self
        for section in ("training", "data", "series", "features"):
            given, decided = (getattr(each, section).model_dump() for each in (self, frozen))
            open_ = [key for key, value in given.items() if value == "auto" and key != "folder"]  # one may be named so
            config = config.with_values(section, **{key: decided[key] for key in open_})
        return config

    def to_yaml(self) -> str:
        """Write the complete configuration as YAML that ``load_config`` reads back to an equal one."""
        return write_yaml(self.model_dump())


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file, with each key's description, range and default."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def load_config(source: str | Path = DEFAULT_PRESET, overrides: Sequence[str] = ()) -> Config:
    """Read a preset or a YAML file, with single values replaced.

    Args:
        source: a preset's name or a file's path; ``data.folder`` in it is relative to the file.
        overrides: ``section.key=value`` each, the value as YAML writes it.

    Returns:
        The validated configuration; keys that the file leaves out have their defaults.

    Raises:
        ConfigError: with every problem found, each with file, line, key, what was expected and what was found.
        UsageError: there is no such preset or file.
    """
    path = find_config(str(source))
    document = _with_absolute_paths(parse_yaml(path), path.parent)
    return validate(_with_absolute_paths(apply_overrides(document, overrides)))


def override(config: Config, overrides: Sequence[str]) -> Config:
    """Return a copy with single values replaced, ``section.key=value`` each.

    Raises:
        ConfigError: with every problem found.
    """
    document = apply_overrides(YamlSource("the configuration", config.model_dump()), overrides)
    return validate(_with_absolute_paths(document))


def parse_config(text: str, name: str) -> Config:
    """Validate a configuration given as YAML text (JSON is YAML); ``name`` stands in its errors."""
    return validate(parse_yaml(text, name))


def parse_frozen(text: str, name: str) -> Config:
    """Validate the configuration of a checkpoint or a run, which may lack newer keys.

    A missing key stands for the behaviour of training before the key existed, not for today's default.
    """
    source = parse_yaml(text, name)
    for section, keys in BEFORE_THERE_WERE_KEYS.items():
        given = source.tree.get(section)
        source.tree[section] = {**keys, **(given if isinstance(given, dict) else {})}
    return validate(source)


def _with_absolute_paths(source: YamlSource, base: Path = Path()) -> YamlSource:
    """Make the paths of the recordings absolute; they are relative to the file that names them.

    Args:
        source: the document, which is changed and returned.
        base: the folder of its file; by default the working directory.
    """
    data = source.tree.get("data")
    given = data.get("folder") if isinstance(data, dict) else None

    def absolute(path: Any) -> Any:
        return str(base.absolute() / expand_home(path)) if isinstance(path, str) else path

    if isinstance(data, dict) and given is not None:
        data["folder"] = [absolute(each) for each in given] if isinstance(given, list) else absolute(given)
    return source


def apply_overrides(source: YamlSource, overrides: Sequence[str]) -> YamlSource:
    """Replace single values; an override's errors are located at the override itself.

    Raises:
        ConfigError: an override is not ``section.key=value``; all of those are named.
    """
    problems = []
    overridden: set[tuple[str, ...]] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        path = MOVED_KEYS.get(path, path)
        where = f"--set {override}"
        if not equals or len(path) != 2 or not all(path):
            problems.append(f"{where}: expected section.key=value, such as model.residual_channels=64")
            continue
        try:
            value = parse_value(text, where)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if source.tree.get(path[0]) is None:  # not there, or all its keys are commented out
            source.tree[path[0]] = {}
            source.places.setdefault(path[:1], where)
        section = source.tree[path[0]]
        if isinstance(section, dict):
            section[path[1]] = value
            if path[0] == "training" and path[1] in LENGTHS and value is not None:
                other = LENGTHS[1 - LENGTHS.index(path[1])]
                if ("training", other) not in overridden:  # the document's length gives way, another override stays
                    section.pop(other, None)
            overridden.add(path)
            if path == ("model", "kind") and isinstance(value, str) and value in (*KEYS_OF_KINDS, *OLD_RECURRENT_KINDS):
                foreign = foreign_keys(value) if value in KEYS_OF_KINDS else foreign_keys("stack") | {"layers"}
                source.tree[path[0]] = {key: kept for key, kept in section.items() if key not in foreign}
        source.places[path] = where
    if problems:
        raise ConfigError(problems)
    return source


def validate(source: YamlSource) -> Config:
    """Check a parsed document against the schema.

    Raises:
        ConfigError: with every problem found, in the document's order.
    """
    _move_old_keys(source)
    _translate_recurrent(source)
    problems = conflicting_keys(source)
    config = None
    # a section with all its keys commented out is an empty one
    tree = {section: {} if keys is None else keys for section, keys in source.tree.items()}
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        known = {name: list(keys) for name, keys in Config().model_dump().items()}
        known |= {"model": list(ModelConfig.model_fields), "layer": list(LayerConfig.model_fields)}
        for detail in error.errors()[:MOST_PROBLEMS]:
            key, message = explain(json_schema(), known, source, detail["loc"], detail["type"])
            problems.setdefault(key, message)
    if config is not None:
        problems = {**check_consistency(config), **problems}
    if config is None or problems:
        lines = [f"{source.where(key)}: {'.'.join(key)}: {problems[key]}" for key in source.in_order(problems)]
        raise ConfigError(lines)
    return config


def _move_old_keys(source: YamlSource) -> None:
    """Move the keys of an older document to their new places; one given under both names stays, as an error."""
    for old, (section, key) in MOVED_KEYS.items():
        given = source.tree.get(old[0])
        if not isinstance(given, dict) or old[1] not in given:
            continue
        if source.tree.get(section) is None:
            source.tree[section] = {}
        if isinstance(target := source.tree[section], dict) and key not in target:
            target[key] = given.pop(old[1])
            if place := source.places.pop(old, None):
                source.places[section, key] = place


def _translate_recurrent(source: YamlSource) -> None:
    """Write a recurrent network in the keys of before there were recurrent layers as the stack that it is."""
    section = source.tree.get("model")
    if not isinstance(section, dict) or section.get("kind") not in OLD_RECURRENT_KINDS:
        return
    kind, others = section["kind"], {key: value for key, value in section.items() if key not in OLD_RECURRENT_KEYS}
    channels, depth = section.get("recurrent_channels", 256), section.get("recurrent_layers", 1)
    if "layers" in section or type(depth) is not int or not 1 <= depth <= MOST_OLD_RECURRENT_LAYERS:
        where, remedy = source.where(("model", "kind")), f"kind: stack and layers: [{{kind: {kind}, channels: 256}}]"
        raise ConfigError([f"{where}: model.kind: expected wavenet or stack, found '{kind}'; write {remedy}"])
    source.tree["model"] = {**others, "kind": "stack", "layers": [{"kind": kind, "channels": channels}] * depth}


def differences(old: Config, new: Config) -> list[str]:
    """Return the keys in which two configurations differ, a line each: ``key: old -> new``; layers one by one."""
    before, after = old.model_dump(), new.model_dump()
    lines = []
    for section, values in after.items():
        for key, value in values.items():
            was = before[section].get(key, "not there")
            if was == value:
                continue
            if key == "layers" and was != "not there":
                lines += _layer_differences(was, value)
            else:
                lines.append(f"{section}.{key}: {_shortened(was)} -> {_shortened(value)}")
    return lines


def _shortened(value: Any) -> Any:
    is_names = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return f"[{list_first(value, separator=', ')}]" if is_names else value


def _layer_differences(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each layer that was changed, added or removed, by its place in the old list or the new."""
    before, after = ([str(dict(layer)).replace("'", "") for layer in layers] for layers in (old, new))
    lines = []
    for what, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what != "equal":
            pairs = enumerate(zip_longest(before[i:j], after[k:m], fillvalue="not there"))
            lines += [f"model.layers.{i + n if i + n < j else k + n}: {was} -> {now}" for n, (was, now) in pairs]
    return lines


def explain(
    schema: Tree, known: Mapping[str, list[str]], source: YamlSource, loc: Sequence[int | str], kind: str
) -> tuple[KeyPath, str]:
    """Return the key and a sentence for one of pydantic's errors.

    Args:
        schema: the JSON Schema of a configuration.
        known: the keys of each section, and of a ``layer``.
        source: the document.
        loc: pydantic's place.
        kind: pydantic's name of the error.
    """
    node, key = _walk_schema(schema, loc)
    found = source.value(key)
    if kind == "extra_forbidden":
        return key, "unknown key" + _suggest(key, known)
    return key, f"expected {_describe(node)}, found {show(found)}"


def _walk_schema(root: Tree, loc: Sequence[int | str]) -> tuple[Tree, KeyPath]:
    """Follow an error's location to what the schema has there, and to the key that a user wrote.

    What pydantic adds for unions is left out.
    """
    node = root
    key: KeyPath = ()
    for part in loc:
        here = _resolve(root, node)
        if "properties" in here:
            node = here["properties"].get(part, {})
        elif isinstance(part, int) and "properties" in _resolve(root, here.get("items", {})):
            node = here["items"]
        else:
            break
        key = (*key, str(part))
    return _resolve(root, node), key


def _resolve(root: Tree, node: Tree) -> Tree:
    reference = node.get("$ref")
    return root["$defs"][reference.rsplit("/", 1)[1]] if reference else node


def _describe(schema: Tree) -> str:
    """Describe the values that a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    if "const" in schema:  # older versions of pydantic add an enum of one
        return str(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    kind = schema.get("type", "object")  # a section of a list is a reference, without a type
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _describe_range(schema)
    if kind == "array":
        return f"a list of {schema.get('minItems', 0)} or more, each {_describe(schema['items'])}"
    words = {"string": "text", "null": "null", "boolean": "true or false", "object": "a section of keys"}
    return words[str(kind)]


def _describe_range(schema: Tree) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 10**6 else f", {low:g} or more, up to {high}"
    parts = [
        *([f"{low:g} or more"] if low is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"at most {high:g}"] if high is not None else []),
        *([f"below {below:g}"] if below is not None else []),
    ]
    return " " + " and ".join(parts) if parts else ""


def _suggest(key: KeyPath, tree: Mapping[str, list[str]]) -> str:
    """Suggest the nearest known key: in the same section first, then anywhere."""
    tree = dict(tree)
    of_layers = tree.pop("layer")
    if len(key) == 2 and key[1] in tree:
        return f"; '{key[1]}' is a section, of {', '.join(tree[key[1]])}"
    here = of_layers if len(key) > 2 else list(tree) if len(key) == 1 else tree[key[0]]
    everywhere = {name: section for section, names in tree.items() for name in names}
    near = difflib.get_close_matches(key[-1], here, n=1)
    if near and key[-1] not in everywhere:
        return f"; did you mean '{near[0]}'?"
    far = difflib.get_close_matches(key[-1], list(everywhere), n=1, cutoff=0.75)
    if far:
        return f"; did you mean '{far[0]}' of the section '{everywhere[far[0]]}'?"
    return f"; known here: {', '.join(here)}"
