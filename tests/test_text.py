"""Plurals, lists and names in messages."""

import pytest

from wavegen.text import list_first, pluralize, printable


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "file"), "0 files"),
        ((1, "file"), "1 file"),
        ((1234, "file"), "1,234 files"),
        ((1, "file is"), "1 file is"),
        ((2, "held-out file is"), "2 held-out files are"),
        ((2, "series", "series"), "2 series"),
    ],
)
def test_a_count_stands_with_its_noun(arguments, text):
    assert pluralize(*arguments) == text


def test_a_long_list_is_cut_and_counted():
    assert list_first("abcde") == "a; b; c; d; e"
    assert list_first("abcdef") == "a; b; c; d; e; and 1 more"
    assert list_first([str(i) for i in range(2000)], 2, ", ") == "0, 1, and 1,998 more"
    assert list_first([]) == ""


def test_a_name_stays_on_its_line():
    assert printable("a\nb\x1b[31m\udcff.wav") == "a\\nb\\x1b[31m\\udcff.wav"
