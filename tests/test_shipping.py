"""Checks of `make dist` without building: versions, types, completion, the make targets."""

import re
import tomllib
from pathlib import Path

import pytest

import wavegen
from command_line import COMMAND, run_interpreter

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def call(*arguments, **environment):
    return run_interpreter(COMMAND, *arguments, **environment).stdout


def test_all_places_name_the_same_version():
    assert PROJECT["version"] == wavegen.__version__
    assert call("--version") == f"wavegen {wavegen.__version__}\n"
    changes = (ROOT / "wavegen" / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert re.search(r"^## ([\d.]+)", changes, re.MULTILINE)[1] == wavegen.__version__, "the newest comes first"


def test_type_checkers_find_the_types():
    assert (Path(wavegen.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_every_extra_that_tests_need_is_among_those_of_development():
    extras = PROJECT["optional-dependencies"]
    assert extras.keys() == {"tensorboard", "onnx", "dev"}
    assert "wavegen[onnx,tensorboard]" in extras["dev"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [("wavegen ge", {"generate"}), ("wavegen ex", {"export"}), ("wavegen e", {"evaluate", "export"})],
)
def test_shells_complete_commands(words, expected):
    asked = {"_WAVEGEN_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
    assert set(call(**asked).split()) == expected


def test_shells_complete_options():
    asked = {"_WAVEGEN_COMPLETE": "complete_bash", "COMP_WORDS": "wavegen export --pre", "COMP_CWORD": "2"}
    assert call(**asked).split() == ["--precision"]


def test_completion_is_installed_where_the_shell_reads_it(tmp_path):
    # the shell as it is named, not the one that the tests were started from, which there need not be
    call("--install-completion", "bash", HOME=str(tmp_path), _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    (script,) = re.findall(r"^source '?(.*?)'?$", (tmp_path / ".bashrc").read_text(), re.MULTILINE)
    assert "complete -o default -F _wavegen_completion wavegen" in Path(script).read_text()


def test_the_files_that_the_guide_for_contributors_names_are_there():
    """How to add something: its paths, and those of the code's table."""
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])((?:wavegen|tests|configs)/[\w/]*(?:\.py|\.yaml|\.md)?)", text))
    assert len(named) > 20
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
