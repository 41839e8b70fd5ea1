"""The program of `make textbook`: every row is trained and stands in the table."""

from concurrent.futures import Future

import pytest

from programs import compare_forecasters
from wavegen.config import all_preset_names


class OneAfterTheOther:
    """An executor without processes."""

    def __init__(self, *_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_every_row_of_the_table_is_trained_and_checked(monkeypatch, tmp_path, capsys):
    for module in ("wavegen.series.corpus", "programs.compare_forecasters"):
        monkeypatch.setattr(f"{module}.N_TRAIN", 70)
        monkeypatch.setattr(f"{module}.N_VALIDATION", 20)
    monkeypatch.setattr(compare_forecasters, "ProcessPoolExecutor", OneAfterTheOther)
    rows = compare_forecasters.ROWS
    assert {f"textbook/{row.preset}" for row in rows} == {name for name in all_preset_names() if "/" in name}
    problems = compare_forecasters.main(tmp_path, 1, ["training.steps=2", "training.batch_size=2"])
    checked = [row.preset for row in rows if row.is_checked]
    assert [problem.partition(":")[0] for problem in problems] == checked  # two steps are not enough
    head, line, baseline, *table = capsys.readouterr().out.splitlines()[: 3 + len(rows)]
    assert {each.count("|") for each in (head, line, baseline, *table)} == {8}
    for row, text in zip(rows, table, strict=True):
        _, what, positions, *_, at_end, published, _ = (cell.strip() for cell in text.split("|"))
        assert (what, positions, float(published)) == (row.what, row.positions, row.published)
        assert bool(at_end) == (row.positions != "last")
    last_value, constant = compare_forecasters.simplest()
    assert 0.01 < last_value < 0.04 < 0.08 < constant < 0.22


@pytest.mark.parametrize(("factor", "is_wrong"), [(1.05, False), (1.15, True), (0.01, True)])
def test_too_large_an_error_and_one_below_the_noise_fail(monkeypatch, tmp_path, factor, is_wrong):
    figures = {
        row.preset: {"error": row.published * factor, "error_at_end": 0.0, "last_epoch": 1.0}
        for row in compare_forecasters.ROWS
    }
    monkeypatch.setattr(compare_forecasters, "train", lambda preset, *_: figures[preset])
    monkeypatch.setattr(compare_forecasters, "ProcessPoolExecutor", OneAfterTheOther)
    assert bool(compare_forecasters.main(tmp_path, 2, [])) == is_wrong
