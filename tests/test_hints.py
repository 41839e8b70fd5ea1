"""Calls to paste: every name survives the shell."""

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from wavegen.cli.console import forecast_command, generate_command, resume_command


def corpus_of(*names, label=None):
    clips = [SimpleNamespace(name=name, content_hash=str(i), label=label) for i, name in enumerate(names)]
    return SimpleNamespace(folder=Path("/my sounds"), validation=clips, train=[])


@pytest.mark.parametrize(
    ("labels", "frames", "corpus", "words"),
    [
        ((), None, corpus_of("a.wav"), []),
        (("anna", "bert"), None, corpus_of("a.wav", label="bert"), ["--label", "anna"]),
        (("it's $5; rm", "x"), None, corpus_of("a.wav"), ["--label", "it's $5; rm"]),
        (("-x",), None, corpus_of("a.wav"), ["--label=-x"]),
        ((), "mel", corpus_of("a b.wav", "c.wav"), ["--mel-from", "/my sounds/a b.wav"]),
        ((), "mel", corpus_of("a.wav#tail"), ["--mel-from", "/my sounds/a.wav"]),
        (
            ("anna", "bert"),
            "mel",
            corpus_of("bert/a.wav", label="bert"),
            ["--label", "bert", "--mel-from", "/my sounds/bert/a.wav"],
        ),
    ],
)
def test_the_command_to_generate_has_the_options_that_the_model_needs(labels, frames, corpus, words):
    call = generate_command(Path("my runs/one"), labels, frames, corpus)
    assert shlex.split(call) == ["wavegen", "generate", "my runs/one", *words, "-o", "new.wav"]


def test_a_series_is_gone_on_with_by_a_run():
    assert forecast_command(Path("my runs/one")) == "wavegen forecast 'my runs/one' series.csv"


def test_a_run_is_gone_on_with():
    assert resume_command(Path("runs/one")) == "wavegen train --run runs/one --resume"
    assert resume_command(Path("my runs/one")) == "wavegen train --run 'my runs/one' --resume"
