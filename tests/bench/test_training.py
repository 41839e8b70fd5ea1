"""The benchmark of training: the ways that it measures."""

from wavegen.bench.training import ways_to_train


def test_one_thread_is_measured_and_all():
    assert {threads for _, _, threads, _ in ways_to_train(True, 1)} == {1}
    assert {threads for _, _, threads, _ in ways_to_train(True, 4)} == {1, 4}


def test_what_is_made_for_wavenets_is_not_measured_of_others():
    assert list(ways_to_train(False, 2)) == [("torch", "float32", 1, False), ("torch", "float32", 2, False)]
