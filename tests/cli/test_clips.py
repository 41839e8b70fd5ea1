"""The command line's output about clips."""

from wavegen.cli.clips import remedy
from wavegen.sampling.verdict import Fault, in_words


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
    assert remedy([silent], tamer=tamer) == "leave out --temperature 0.8 and --top-p 0.9"
    assert remedy([silent], is_best=True, tamer=tamer[:1]) == "leave out --temperature 0.8"
    assert remedy([noise], wilder=wilder) == remedy([bright], wilder=wilder) == "leave out --temperature 1.5"
    assert remedy([silent, noise], tamer=tamer, wilder=wilder) == "leave out --temperature 1.5"
    assert remedy([noise], tamer=tamer) == "lower --temperature, or try --best-of 8, or train longer"
    assert remedy([silent], wilder=wilder) == "try --best-of 8, or train longer"
    assert remedy([silent], is_undertrained=True, tamer=tamer) == "train longer"
