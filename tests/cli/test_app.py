"""Behaviour that all commands share: help, quiet, tracebacks, the style of errors."""

import os
import resource
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from command_line import wavegen
from wavegen.audio.write import output_paths
from wavegen.cli import app
from wavegen.errors import UsageError

GROUP = typer.main.get_command(app)


def test_without_arguments_it_shows_its_help():
    assert wavegen().stdout == wavegen("--help").stdout
    assert wavegen().stdout.startswith("Usage: wavegen")


@pytest.mark.parametrize("name", GROUP.commands)
def test_help_ends_with_examples_that_parse(name):
    examples = wavegen(name, "--help").stdout.partition("\nExamples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) >= 2
    for example in examples:
        program, command, *arguments = shlex.split(example.partition(" > ")[0])
        assert (program, command) == ("wavegen", name)
        GROUP.commands[name].make_context(name, arguments, parent=GROUP.make_context("wavegen", [name]))


@pytest.mark.parametrize("words", [[], *([name] for name in GROUP.commands)])
def test_help_names_a_guide(words):
    title, _, path = wavegen(*words, "--help").stdout.splitlines()[-1].partition(": ")
    guide = Path(path)
    assert (title == "Guide" and guide.is_file()) or (title == "Guides" and (guide / "sound.md").is_file())


def test_the_list_of_commands_cuts_nothing_off():
    assert "..." not in wavegen("--help").stdout.partition("\nCommands:\n")[2]


@pytest.mark.parametrize("name", GROUP.commands)
def test_no_line_of_a_help_is_too_wide(name):
    lines = wavegen(name, "--help").stdout.partition("\nExamples:\n")[0].splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("before", [True, False])
def test_quiet_leaves_results_and_errors(before, tmp_path):
    def call(*words, **options):
        return wavegen(*(["-q", *words] if before else [*words, "-q"]), **options)

    done = call("generate", "voice", "--seconds", "0.01", "-o", tmp_path / "new.wav")
    assert (done.stdout, done.stderr) == ("", "")
    assert (tmp_path / "new.wav").exists()
    assert "small" in call("config").stdout
    assert call("inspect", "nowhere", exit_code=2).stderr.startswith("error: nowhere: ")
    assert "seed: " in wavegen("generate", "voice", "--seconds", "0.01", "-o", tmp_path / "again.wav").stderr


def test_a_limit_of_addresses_is_one_line(tmp_path):
    """Of 600 MB, in which no PyTorch fits, whatever it was built for."""
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (600 << 20, 600 << 20))
    command = [sys.executable, "-m", "wavegen", "train", tmp_path, "--run", tmp_path / "run"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: out of memory; close other programs, raise ulimit -v, or")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("can't start new thread"), "out of memory; close other programs"),
        (OSError("libx.so: failed to map segment from shared object"), "libx.so: failed to map segment"),
    ],
    ids=str,
)
def test_errors_of_the_system_are_one_line(error, line, capsys, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr("wavegen.api.load", fail)
    with pytest.raises(SystemExit) as stop:
        app(["evaluate", "voice"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.parametrize("arguments", [["--debug", "inspect", "nowhere"], ["inspect", "nowhere", "--debug"]], ids=str)
def test_debug_shows_the_traceback_wherever_it_stands(arguments):
    assert "Traceback" in wavegen(*arguments, exit_code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--nothing"], "error: No such option: --nothing; see wavegen --help\n"),
        (["fly"], "error: No such command 'fly'; see wavegen --help\n"),
        (["evaluate"], "error: Missing argument 'RUN|CHECKPOINT'; see wavegen evaluate --help\n"),
        (
            ["generate", "voice", "--count", "two"],
            "error: --count: expected a whole number; see wavegen generate --help\n",
        ),
        (
            ["generate", "voice", "--count", "1" * 20],
            f"error: --count: expected at most 500, found {'1' * 20}; call it again with another seed\n",
        ),
        (
            ["generate", "voice", "--engine", "torch", "--threads", "2"],
            "error: --threads: the torch engine runs on one thread; give --engine numba\n",
        ),
    ],
    ids=str,
)
def test_errors_of_parsing_are_one_line_as_all_others(arguments, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert wavegen(*arguments, exit_code=2).stderr.endswith(error)


@pytest.mark.parametrize("name", GROUP.commands)
def test_help_has_no_words_of_the_parser(name):
    shown = wavegen(name, "--help").stdout
    assert not any(words in shown for words in ("[[", "]...]", "list[", "<str>  Run"))


def test_an_unknown_option_suggests_the_nearest_one():
    said = wavegen("generate", "voice", "--second", "5", exit_code=2).stderr
    assert said == "error: No such option: --second (did you mean --seconds?); see wavegen generate --help\n"


def test_the_seed_is_printed_when_the_options_are_right():
    assert "seed: " not in wavegen("generate", "voice", "--top-k", "0", exit_code=2).stderr


def test_config_names_the_presets_in_the_folder_textbook():
    shown = " ".join(wavegen("config").stdout.split())
    assert "textbook/NAME forecasters of number series to compare: conv-gru, linear, " in shown


def test_no_audio_goes_to_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="standard output is a terminal"):
        output_paths("-", 1, False)
