import math

import pytest

from wavegen.config.yaml_source import parse_value, parse_yaml
from wavegen.errors import ConfigError, UsageError


def problem(source, name="my.yaml"):
    with pytest.raises(ConfigError) as caught:
        parse_yaml(source, name)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("4.", 4.0),
        (".5", 0.5),
        ("-2.5e+3", -2500.0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("12", 12),
        ("-12", -12),
        ("+7", 7),
        ("007", 7),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("n", "n"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("=", "="),
        ("<<", "<<"),
        ("[1, [a, 2.5], {b: no}]", [1, ["a", 2.5], {"b": "no"}]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, value):
    for parsed in (parse_value(text, "here"), parse_yaml(f"key: {text}\n").tree["key"]):
        assert parsed == value
        assert type(parsed) is type(value)


def test_not_a_number_is_a_number():
    assert math.isnan(parse_value(".nan", "here"))


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n", "---\n", "\ufeff"])
def test_a_document_without_content_is_empty(text, tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text(text, encoding="utf-8")
    assert parse_yaml(path).tree == {}


# --- places ------------------------------------------------------------------------------------------------------


def test_every_key_knows_its_line():
    source = parse_yaml("# words\na:\n  b: 1\n  c:\n    - d: 2\n\n  e: {f: 3,\n    g: 4}\nh:\n", "my.yaml")
    lines = {".".join(key): place for key, place in source.places.items()}
    assert lines == {
        "a": "my.yaml:2",
        "a.b": "my.yaml:3",
        "a.c": "my.yaml:4",
        "a.c.0": "my.yaml:5",
        "a.c.0.d": "my.yaml:5",
        "a.e": "my.yaml:7",
        "a.e.f": "my.yaml:7",
        "a.e.g": "my.yaml:8",
        "h": "my.yaml:9",
    }
    assert source.where(("a", "b")) == "my.yaml:3"
    assert source.where(("a", "zz", "y")) == "my.yaml:2", "an absent key is placed at what encloses it"
    assert source.where(("zz",)) == "my.yaml"
    assert source.value(("a", "e", "g")) == 4
    assert source.value(("a", "b", "c")) is None
    keys = [("h",), ("a", "e"), ("nowhere",), ("a", "b")]
    assert source.in_order(keys) == [("nowhere",), ("a", "b"), ("a", "e"), ("h",)]


def test_windows_line_ends_and_a_byte_order_mark_move_nothing(tmp_path):
    path = tmp_path / "windows.yaml"
    path.write_bytes("\ufeffa:\r\n  b: caf\u00e9\r\n".encode())
    source = parse_yaml(path)
    assert source.tree == {"a": {"b": "caf\u00e9"}}
    assert source.where(("a", "b")) == f"{path}:2"


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", ("a",), 3),
        ("a:\n  b: 1\n  b: 3\n", ("a", "b"), 3),
        ("1: x\n'1': 3\n", ("1",), 2),
        ("a: {b: 1,\n  c: 2,\n  b: 3}\n", ("a", "b"), 3),
    ],
)
def test_keys_given_twice_are_noted_and_the_last_counts(text, key, line):
    source = parse_yaml(text, "my.yaml")
    assert source.repeated == [key]
    assert source.where(key) == f"my.yaml:{line}"
    assert source.value(key) == 3


# --- what a configuration has no use for -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: &x 1\nb: *x\n", 2, "aliases have no use in a configuration"),
        ("a: &x\n  b: 1\nc:\n  <<: *x\n", 4, "aliases have no use in a configuration"),
        ("a:\n  b: !!python/object/apply:os.system ['touch owned']\n", 2, "tag:yaml.org,2002:python/object/apply"),
        ("a: !mine 5\n", 1, "found the tag !mine"),
        ("a: !!binary aGVsbG8=\n", 1, "found the tag tag:yaml.org,2002:binary"),
        ("a: !!set {b, c}\n", 1, "found the tag tag:yaml.org,2002:set"),
        ("a: !!int x\n", 1, "expected a number, found 'x'"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a:\n\tb: 1\n", 2, "cannot start any token"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: 1\nb\n", 3, "not valid YAML"),
    ],
)
def test_what_is_refused_is_located(text, line, says):
    message = problem(text)
    assert message.startswith(f"my.yaml:{line}: ")
    assert says in message


@pytest.mark.parametrize("text", ["5", "- a\n- b\n", "just words"])
def test_a_document_that_is_no_mapping(text):
    assert problem(text).startswith("my.yaml: expected sections such as 'model:', found ")


def test_a_character_that_yaml_has_not_is_refused():
    assert problem("a: 1\nb: \x00\n").startswith("my.yaml")


@pytest.mark.parametrize(
    ("content", "line"), [(b"a: caf\xe9\n", 1), (b"a: 1\nb: \xff\n", 2), ("a: 1".encode("utf-16"), 1)]
)
def test_a_file_that_is_not_utf_8_is_located(content, line, tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"latin\.yaml:{line}: expected UTF-8 text, found the byte 0x"):
        parse_yaml(path)


def test_a_file_that_cannot_be_read_is_a_wrong_call(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read: No such file or directory"):
        parse_yaml(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        parse_yaml(tmp_path)


# --- bombs -------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)  # a second, and room for a busy machine
@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 200_000,
        "a: " + "{a: " * 60_000,
        "".join(" " * depth + "a:\n" for depth in range(700)),
        "- " * 100_000,
        "? " * 100_000,
        "a: " + "[" * 30 + "]" * 30,
        "".join(" " * depth + "a:\n" for depth in range(30)),
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "x" * 250_000 + ":",
        '"' + "\\" * 250_000,
    ],
    ids=["lists", "mappings", "blocks", "dashes", "keys", "30 lists", "30 blocks", "laughs", "long key", "escapes"],
)
def test_bombs_are_defused(text):
    assert len(problem(text)) < 300


@pytest.mark.timeout(60)
def test_a_large_file_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"a: [" + b"1, " * (10 << 20) + b"]")
    assert problem(path) == f"{path}: expected a configuration of at most 64 KiB, found more"
