"""The benchmark of training: the ways that it measures, and the rows that go through each matrix product."""

from wavegen.bench.training import ways_to_train


def test_one_thread_is_measured_and_all():
    assert {threads for _, _, threads, _ in ways_to_train(True, 1)} == {1}
    assert {threads for _, _, threads, _ in ways_to_train(True, 4)} == {1, 4}


def test_what_is_made_for_wavenets_is_not_measured_of_others():
    assert list(ways_to_train(False, 2)) == [("torch", "float32", 1, False), ("torch", "float32", 2, False)]


def test_every_block_has_rows_for_the_past_that_those_above_it_see(random_model):
    """Two windows of ten targets; the blocks' reaches are 1, 2 and 4, and the first input has a context of 7."""
    model = random_model(residual_channels=6, gate_channels=5, skip_channels=7, head_channels=9)
    of_blocks = 2 * ((10 + 6) + (10 + 4) + 10)
    assert model.product_rows(2, 10) == {
        (2 * 6, 2 * 5): of_blocks,
        (5, 6): of_blocks - 2 * 10,  # the last has none
        (3 * 5, 7): 2 * 10,
        (7, 9): 2 * 10,
        (9, 16): 2 * 10,
    }
