"""HTML from function calls: what is not markup already is escaped, so that no text of a user can become any."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset(("img", "link", "meta"))


class Markup(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(element: str, /, *children: str | Iterable[str], **attributes: object) -> Markup:
    """An element.

    Args:
        element: its name.
        children: elements, or texts that become escaped; lists of them too.
        attributes: with an underscore for a hyphen, and one at the end of words that Python keeps (`class_`). True
            writes the bare name; None and False leave the attribute out.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if element in VOID:
        return Markup(f"<{element}{written}>")
    return Markup(f"<{element}{written}>{join(children)}</{element}>")


def join(children: Iterable[str | Iterable[str]]) -> Markup:
    """Elements and texts, one after the other."""
    return Markup("".join(_escape(child) if isinstance(child, str) else join(child) for child in children))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def _escape(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)
