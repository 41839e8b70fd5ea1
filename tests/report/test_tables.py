import io

import pytest

from wavegen.report import Table, facts, first_rows, print_tables
from wavegen.text import format_bytes, format_duration

CURVE = Table(
    "3 validations (bits/sample)",
    ("step", "train", "held-out", "hours heard", ""),
    [
        ("500", "7.300", "6.816", "0.14", ""),
        ("13,000", "3.901", "-", "3.70", "best"),
        ("100,000", "3.900", "4.250", "284.44", ""),
    ],
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def printed(*tables, file=None):
    file = file or io.StringIO()
    print_tables(tables, file)
    return file.getvalue()


def test_facts_stand_in_two_aligned_columns_and_none_is_left_out():
    text = printed(facts("a clip", rate="16,000 Hz", file_size="3 KiB", missing=None))
    assert text == "a clip\n  rate       16,000 Hz\n  file size  3 KiB\n\n"


def test_numbers_stand_right_and_texts_left():
    table = Table("files", ("name", "minutes"), [("01.wav", "9.50"), ("long name.wav", "12.25")])
    lines = printed(table).splitlines()
    assert lines[1] == "  name            minutes"
    assert lines[3:] == ["  01.wav             9.50", "  long name.wav     12.25", ""]


@pytest.mark.parametrize(
    "cell", ["12", "-3.5", "1,234", "4.2 s", "3:07 min", "80%", "80 %", "1e-05", "-", "", "5.4 MiB"]
)
def test_what_counts_as_a_number(cell):
    rows = printed(Table("t", ("a long heading", "b"), [(cell, "x")])).splitlines()
    assert rows[3] == f"  {cell:>14}   x"


@pytest.mark.parametrize("cell", ["0001.wav", "3rd take.wav", "2-5.flac", ".hidden", "-x"])
def test_a_name_that_begins_like_a_number_is_text(cell):
    rows = printed(Table("t", ("a long heading", "b"), [(cell, "x")])).splitlines()
    assert rows[3] == f"  {cell:<14}   x"


def test_rows_left_out_are_counted():
    rows = [(f"{i}.wav",) for i in range(1234)]
    table = first_rows("bad", ("file",), rows, 3)
    assert len(table.rows) == 3
    assert printed(table).endswith("  2.wav\n  and 1,231 more; --full lists them\n\n")
    assert "more" not in printed(first_rows("bad", ("file",), rows[:3], 3))


def test_output_that_is_no_terminal_has_no_escape_codes_and_no_trailing_spaces():
    text = printed(CURVE, facts("a clip", rate="16,000 Hz"), first_rows("t", ("a",), [("x",), ("y",)], 1))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_terminal_gets_bold_titles_unless_no_color_is_set(monkeypatch):
    table = facts("a clip", rate="16,000 Hz")
    assert "\x1b[1ma clip\x1b[0m" in printed(table, file=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed(table, file=Terminal())


def test_a_narrow_terminal_breaks_texts_but_no_number(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    reason = "libsndfile cannot read it; copy it again from its source"
    tables = [
        CURVE,
        Table("cannot be used", ("file", "why"), [("sub/a_rather_long_name_without_spaces.wav", reason)]),
        facts("a run", damaged=reason, steps="13,000 of 20,000"),
    ]
    text = printed(*tables)
    assert max(map(len, text.splitlines())) <= 40
    for cell in ("100,000", "3.901", "284.44", "best", "held-out"):
        assert cell in text
    assert "sub/a_rather_long_name_without_spaces.wav" in "".join(
        line.strip().split(" ")[0] for line in text.partition("why")[2].splitlines()
    )


@pytest.mark.parametrize("columns", ["1", "20"])
def test_a_terminal_too_narrow_for_a_table_loses_nothing_of_it(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", "40")
    expected = printed(CURVE)
    monkeypatch.setenv("COLUMNS", columns)
    assert printed(CURVE) == expected


def test_text_that_looks_like_markup_is_printed_as_it_is():
    text = printed(facts("[bold]title[/bold]", name="take [2] :smile:"), Table("t", ("a",), [("[red]x",)]))
    assert "[bold]title[/bold]" in text
    assert "take [2] :smile:" in text
    assert "[red]x" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.24, "4.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1:00 min"),
        (187, "3:07 min"),
        (3599.7, "1:00 h"),
        (18720, "5:12 h"),
        (400_000, "111:06 h"),
    ],
)
def test_minutes(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (85_200, "83.2 KiB"),
        (1_048_000, "1,023 KiB"),
        (1_048_576, "1.0 MiB"),
        (325_000_000, "310 MiB"),
        (5_000_000_000_000, "4,657 GiB"),
    ],
)
def test_file_size(n_bytes, text):
    assert format_bytes(n_bytes) == text
