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
