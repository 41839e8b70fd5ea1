"""Plurals, lists and names in messages."""

import pytest

from wavegen.text import evenly, group_by_reason, list_first, list_in_full, pluralize, printable


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


def test_some_of_many_are_evenly_spread():
    assert evenly("abcdefghi", 5) == list("acegi")
    assert evenly("abcdef", 6) == list("abcdef")
    assert evenly(range(1000), 2) == [0, 999]
    assert evenly("", 6) == []
    for n in range(2, 40):
        some = evenly(range(40), n)
        assert (len(set(some)), some[0], some[-1]) == (n, 0, 39)


def test_a_long_list_is_cut_and_counted():
    assert list_first("abc") == "a; b; c"
    assert list_first("abcdef") == "a; b; c; and 3 more"
    assert list_first([str(i) for i in range(2000)], 2, ", ") == "0, 1, and 1,998 more"
    assert list_first([]) == ""
    list_in_full(True)
    assert list_first("abcdef") == "a; b; c; d; e; f"
    list_in_full(False)
    assert list_first("abcdef") == "a; b; c; and 3 more"


def test_names_that_share_a_reason_stand_together():
    reasons = [*((f"{i}.m4a", "no format") for i in range(500)), ("a\n.wav", "empty"), ("600.m4a", "no format")]
    assert group_by_reason(reasons) == [
        ("501 files: 0.m4a; 1.m4a; 2.m4a; and 498 more", "no format"),
        ("a\\n.wav", "empty"),
    ]


def test_a_name_stays_on_its_line():
    assert printable("a\nb\x1b[31m\udcff.wav") == "a\\nb\\x1b[31m\\udcff.wav"
