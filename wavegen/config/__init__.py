"""The YAML configuration: presets, files and overrides, and errors that name file, line, key and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wavegen.config.cross_checks import check_consistency, conflicting_keys
from wavegen.config.schema import KEYS_OF_KINDS, Sections, foreign_keys
from wavegen.config.yaml_source import KeyPath, YamlSource, parse_value, parse_yaml, show, write_yaml
from wavegen.errors import ConfigError, UsageError
from wavegen.text import expand_home, list_first

DEFAULT_PRESET = "small"
LONG_EVENTS_PRESET = "music"  # instead, where notes and decays are long and no preset is asked for
LENGTHS = ("steps", "minutes")  # of training; with both, the shorter one counts
# The behaviour of training before these keys existed: their values in older checkpoints.
BEFORE_THERE_WERE_KEYS: dict[str, dict[str, Any]] = {
    "audio": {"remove_dc": False, "trim_db": None, "pause_seconds": None, "level": "keep", "max_gain_db": None},
    "data": {"following": 0.0, "beginnings": 0.0, "quiet_weight": 1.0},
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
# JSON Schema's limits of a number, in words.
LIMITS = {
    "minimum": "{:g} or more",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}

Tree = Mapping[str, Any]  # a JSON Schema, or a part of one


def presets_folder() -> Path:
    """Return the folder of the presets: inside the installed package, or ``configs/`` of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Return the names of the presets that are listed."""
    return [name for name in all_preset_names() if "/" not in name]


def all_preset_names() -> list[str]:
    """Return the names that ``--config`` takes besides files: also ``textbook/lstm`` for a preset in a sub-folder."""
    folder = presets_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def preset_text(name: str) -> str:
    """Return a preset's YAML with all its comments.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in all_preset_names():
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
    if source in all_preset_names():
        return presets_folder() / f"{source}.yaml"
    path = expand_home(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise UsageError(f"{source}: expected a YAML file or a preset, found a folder")
    raise UsageError(f"{source}: no such file, and {_no_such_preset(source)}")


def _no_such_preset(name: str) -> str:
    near = difflib.get_close_matches(name, all_preset_names(), n=1)
    return f"no such preset ({', '.join(preset_names())})" + (f"; did you mean '{near[0]}'?" if near else "")


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


def load_for_long_events(overrides: Sequence[str] = ()) -> Config:
    """Read the preset that replaces the default one for long notes and decays; without labels, as that one is.

    Raises:
        ConfigError: with every problem found in the overrides.
    """
    return load_config(LONG_EVENTS_PRESET, ["data.labels=none", *overrides])


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

    def absolute(given: Any) -> Any:
        if isinstance(given, list):
            return [absolute(each) for each in given]
        return str(base.absolute() / expand_home(given)) if isinstance(given, str) else given

    data = source.tree.get("data")
    if isinstance(data, dict) and "folder" in data:
        data["folder"] = absolute(data["folder"])
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
    problems = dict(conflicting_keys(source))
    config = None
    # a section with all its keys commented out is an empty one
    tree = {section: {} if keys is None else keys for section, keys in source.tree.items()}
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        for detail in error.errors()[:MOST_PROBLEMS]:
            node, key = _walk_schema(json_schema(), detail["loc"])
            expected = f"expected {_describe(node)}, found {show(source.value(key))}"
            unknown = detail["type"] == "extra_forbidden"
            problems.setdefault(key, f"unknown key{_suggest(key)}" if unknown else expected)
    if config is not None:
        problems = {**dict(check_consistency(config)), **problems}
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
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 10**6 else f", {low:g} or more, up to {high}"
    parts = [text.format(schema[limit]) for limit, text in LIMITS.items() if limit in schema]
    return " " + " and ".join(parts) if parts else ""


def _suggest(key: KeyPath) -> str:
    """Suggest the nearest known key: in the same section first, then anywhere."""
    schema = json_schema()
    sections = {name: list(_resolve(schema, node)["properties"]) for name, node in schema["properties"].items()}
    if len(key) == 2 and key[1] in sections:
        return f"; '{key[1]}' is a section, of {', '.join(sections[key[1]])}"
    of_layer = list(schema["$defs"]["LayerConfig"]["properties"])
    here = of_layer if len(key) > 2 else list(sections) if len(key) == 1 else sections[key[0]]
    everywhere = {name: section for section, names in sections.items() for name in names}
    near = difflib.get_close_matches(key[-1], here, n=1)
    if near and key[-1] not in everywhere:
        return f"; did you mean '{near[0]}'?"
    far = difflib.get_close_matches(key[-1], list(everywhere), n=1, cutoff=0.75)
    if far:
        return f"; did you mean '{far[0]}' of the section '{everywhere[far[0]]}'?"
    return f"; known here: {', '.join(here)}"
