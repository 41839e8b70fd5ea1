"""What the schema objects to, in words: keys that are unknown, and values that are not allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from wavegen.config.yaml_source import KeyPath, YamlSource

Tree = Mapping[str, Any]  # a JSON Schema, or a part of one


def explain(
    schema: Tree, known: Mapping[str, list[str]], source: YamlSource, loc: Sequence[int | str], kind: str
) -> tuple[KeyPath, str]:
    """One of pydantic's errors as the key it belongs to and a sentence.

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


def show(value: Any) -> str:
    """A value as YAML has it, or the beginning of it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
    """What a JSON schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"])
    if "const" in schema:  # older pydantics give an enum of one beside it
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
    """The nearest known key: in the same section first, then anywhere."""
    tree = dict(tree)
    of_layers = tree.pop("layer")
    here = of_layers if len(key) > 2 else list(tree) if len(key) == 1 else tree[key[0]]
    everywhere = {name: section for section, names in tree.items() for name in names}
    near = difflib.get_close_matches(key[-1], here, n=1)
    if near and key[-1] not in everywhere:
        return f"; did you mean '{near[0]}'?"
    far = difflib.get_close_matches(key[-1], list(everywhere), n=1, cutoff=0.75)
    if far:
        return f"; did you mean '{far[0]}' of the section '{everywhere[far[0]]}'?"
    return f"; known here: {', '.join(here)}"
