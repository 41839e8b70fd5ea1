"""The command line's output about clips."""

import numpy as np
import pytest

from wavegen.cli.console import ProgressBar
from wavegen.cli.generate import ClipWriter
from wavegen.sampling.candidates import BestCandidate
from wavegen.sampling.verdict import Fault, Verdict, in_words


def remedy(faults, is_undertrained=False, **known):
    writer = ClipWriter(["a.wav"], 100, np.zeros(0, np.float32), False, 1, 1, Verdict(100), is_undertrained, **known)
    return writer.remedy(faults)


def test_the_remedy_cools_what_is_loud_and_trains_what_is_undertrained():
    quiet, noise = Fault("level", "quiet", 2.0), Fault("noise", "3.0 s of noise from 0.0 s on", 3.0)
    assert remedy([noise]) == "lower --temperature, or try --best-of 8, or train longer"
    assert remedy([noise], is_best=True) == "lower --temperature, or train longer"
    assert remedy([quiet]) == "try --best-of 8, or train longer"
    assert remedy([quiet, noise], is_best=True) == "train longer"
    assert remedy([noise], is_undertrained=True) == "train longer"
    assert in_words([quiet, noise]) == "quiet; 3.0 s of noise from 0.0 s on"


def test_the_remedy_leaves_out_the_options_that_are_to_blame():
    silent, noise, bright = (Fault(kind, kind, 2.0) for kind in ("dead silence", "noise", "spectrum"))
    tamer, wilder = ["--temperature 0.8", "--top-p 0.9"], ["--temperature 1.5"]
    undertrained = remedy([silent], is_undertrained=True, tamer=tamer[:1])
    assert undertrained == "leave out --temperature 0.8; train longer"
    assert remedy([silent], tamer=tamer) == "leave out --temperature 0.8 and --top-p 0.9"
    assert remedy([silent], is_best=True, tamer=tamer[:1]) == "leave out --temperature 0.8"
    assert remedy([noise], wilder=wilder) == remedy([bright], wilder=wilder) == "leave out --temperature 1.5"
    assert remedy([silent, noise], tamer=tamer, wilder=wilder) == "leave out --temperature 1.5"
    assert remedy([noise], tamer=tamer) == "lower --temperature, or try --best-of 8, or train longer"
    assert remedy([silent], wilder=wilder) == "try --best-of 8, or train longer"


@pytest.mark.parametrize(("tamer", "is_said"), [(["--top-p 0.9"], False), ([], True)])
def test_the_command_that_trains_longer_stands_where_that_is_the_remedy(capsys, tamer, is_said):
    writer = ClipWriter(["a.wav"], 100, np.zeros(0, np.float32), False, 1, 1, Verdict(100), False, tamer)
    writer.train_longer = "train longer: wavegen train --run r --resume --minutes 30"
    writer._print_verdicts([[Fault("silence", "silent", 1.0)]])
    said = capsys.readouterr().err
    assert ("leave out" in said) == bool(tamer)
    assert said.endswith(", or train longer: wavegen train --run r --resume --minutes 30\n") == is_said


def test_the_first_count_has_its_speed():
    writer = ClipWriter(["new.wav"], 100, np.zeros(0, np.float32), False, None, 1000, Verdict(100), False)
    with ProgressBar("generating", 1000) as writer.bar:
        writer.bar._began -= 1.0  # a second ago
        writer.made(200)
        assert 1.9 < float(writer.bar._note.removesuffix(" x real time")) <= 2.0


def test_dropped_candidates_are_counted_in_plain_words():
    faults = [[Fault("level", "", 1.0), Fault("levels", "", 1.0)], [Fault("level", "", 1.0)]]
    best = BestCandidate(np.zeros(1, np.float32), 1, 3.0, 3.0, [], faults, 4)
    several = "; 2 of 4 dropped (too quiet or too loud 2, uneven loudness 1; one can have several)"
    assert str(best) == f"number 1 of 4, 3.00 bits/sample, typical 3.00{several}"
