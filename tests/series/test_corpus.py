"""Series in files: what is read, what is refused and where, and how they become a corpus."""

import errno
import io
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from wavegen.config import load_config
from wavegen.data.corpus import TAIL
from wavegen.errors import DataError, UsageError, WavegenError
from wavegen.inspect.recordings import inspect_series
from wavegen.series.corpus import (
    N_TRAIN,
    N_VALIDATION,
    Normalization,
    build_corpus,
    build_synthetic_corpus,
    hash_of,
    make_sine_mixtures,
    read_corpus,
    series_in,
    with_normalization,
)
from wavegen.series.files import check_output, read_series, write_series


def csv_of(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "series"),
    [
        ("1\n2\n3\n", {"": [1, 2, 3]}),
        ("value\n1\n2.5\n", {"": [1, 2.5]}),
        ("a,b\n1,10\n2,20\n", {"a": [1, 2], "b": [10, 20]}),
        ("1,10\n2,20\n", {"column 1": [1, 2], "column 2": [10, 20]}),
        ("a,b\n1,05\n2,10\n", {"a": [1, 2], "b": [5, 10]}),
        ("0,0\n1,10\n", {"column 1": [0, 1], "column 2": [0, 10]}),
        ("a;b\n1;-1e-3\n2;2\n", {"a": [1, 2], "b": [-0.001, 2]}),
        ("a\tb\n1\t3\n2\t4\n", {"a": [1, 2], "b": [3, 4]}),
        ('"a, b",a,b\n1,2,3\n', {"a, b": [1], "a": [2], "b": [3]}),
        ("\ufeffa,\n1,2\n\n3,4\n\n", {"a": [1, 3], "column 2": [2, 4]}),
    ],
)
def test_a_table_has_a_series_in_each_column(text, series, tmp_path):
    found = read_series(csv_of(tmp_path, text))
    assert {name: values.tolist() for name, values in found.series.items()} == series
    assert found.left_out == ()


def test_columns_without_numbers_are_left_out_and_reported(tmp_path):
    path = csv_of(tmp_path, "date,temperature,note\n2024-01-01,3.5,\n2024-01-02,4,frost\n")
    found = read_series(path)
    assert found.left_out == ("date", "note")
    assert {name: values.tolist() for name, values in found.series.items()} == {"": [3.5, 4.0]}
    corpus = build_corpus(tmp_path, validation=0.0, longer_than=1)
    assert "table.csv: 2 columns are left out, without numbers: 'date'; 'note'." in corpus.notes


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n3,\n", r"table\.csv:3: column 'b': expected a finite number, found an empty cell; fill it in"),
        ("a,b\n1,2\nnan,3\n", r"table\.csv:3: column 'a': expected a finite number, found 'nan'"),
        ("1\n\n-inf\n", r"table\.csv:3: column 'column 1': expected a finite number, found '-inf'"),
        ("a\n1\n1,5\n", r"table\.csv:3: expected 1 column, parted by ',' as in line 1, found 2"),
        ("a,b\n1,2\n3\n", r"table\.csv:3: expected 2 columns, parted by ',' as in line 1, found 1"),
        ("a\n1\nhigh\n", r"table\.csv:3: column 'a': expected a finite number, found 'high'"),
        (
            "day,month\nMonday,May\n",
            r"table\.csv: expected a column of numbers \(0.25 or 1e-3, without other marks\), found none",
        ),
        ("", r"table\.csv: expected a table of numbers, found an empty file"),
        ("\na,b,a\n1,2,3\n", r"table\.csv:2: expected a heading of its own for each column, found 'a' twice"),
    ],
)
def test_what_is_no_number_is_refused_with_its_line(text, complaint, tmp_path):
    with pytest.raises(DataError, match=complaint):
        read_series(csv_of(tmp_path, text))


def test_a_table_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"table\.csv: expected a table in UTF-8"):
        read_series(tmp_path / "table.csv")


def test_an_array_has_a_series_in_each_row(tmp_path):
    rows = np.arange(6).reshape(2, 3)
    np.save(tmp_path / "two.npy", rows)
    np.save(tmp_path / "one.npy", rows[0].astype(np.float16))
    two, one = read_series(tmp_path / "two.npy").series, read_series(tmp_path / "one.npy").series
    assert {name: values.tolist() for name, values in two.items()} == {"0": [0, 1, 2], "1": [3, 4, 5]}
    assert {name: values.tolist() for name, values in one.items()} == {"": [0, 1, 2]}


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((2, 2, 2)), r"expected the shape \(T,\) for a series or \(N, T\) for N of them, found \(2, 2, 2\)"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), r"expected finite numbers, found nan at \[1, 1\]"),
        (np.array([1.0, np.inf]), r"expected finite numbers, found inf at \[1\]"),
        (np.array([1j]), "expected an array of real numbers, found complex128"),
        (np.zeros((0,)), "expected a value or more"),
    ],
)
def test_other_arrays_are_refused(array, complaint, tmp_path):
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(DataError, match=r"array\.npy: " + complaint):
        read_series(tmp_path / "array.npy")


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"trap\.npy: expected an array of numbers"):
        read_series(tmp_path / "trap.npy")
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_not_there_or_of_another_kind_is_a_wrong_call(tmp_path):
    for name, complaint in (
        ("gone.csv", "expected a file of series, found none"),
        ("a.wav", r"ends in \.npy or \.csv"),
    ):
        with pytest.raises(UsageError, match=complaint):
            read_series(tmp_path / name)


@pytest.mark.parametrize("name", ["out.csv", "out.npy"])
def test_what_is_written_is_read_back(name, tmp_path):
    path = tmp_path / name
    written = {"a": np.array([1.0, -2.5e-7]), "b": np.array([3.25, 1e9])}
    check_output(str(path), overwrite=False)
    write_series(str(path), written, io.StringIO())
    read = read_series(path).series
    assert [values.tolist() for values in read.values()] == [values.tolist() for values in written.values()]
    with pytest.raises(UsageError, match="already exists; give another name, or overwrite=True"):
        check_output(str(path), overwrite=False)
    check_output(str(path), overwrite=True)
    for wrong in (str(tmp_path / "out.wav"), str(tmp_path / "gone" / name)):
        with pytest.raises(UsageError, match=r"expected a name that ends|does not exist"):
            check_output(wrong, overwrite=False)


@pytest.mark.parametrize("name", ["forecast.csv", "ahead.csv", "ahead.npy"])
def test_forecasts_in_a_folder_of_series_are_left_out(name, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        np.savetxt(tmp_path / f"{i}.csv", rng.normal(size=(60, 2)), delimiter=",", header="price,volume", comments="")
    known = read_series(tmp_path / "0.csv").series
    ahead = {name: values[:30] for name, values in known.items()} if name != "forecast.csv" else {"": np.ones(30)}
    write_series(str(tmp_path / name), ahead, io.StringIO())
    corpus = build_corpus(tmp_path, validation=0.1, longer_than=5)
    assert corpus.unusable == ((name, "written by wavegen forecast, and no data; if it is data, rename its columns"),)
    notices = []
    scored = {name for name, _ in series_in([tmp_path], 5, notices.append)}
    assert scored == {f"{tmp_path}/{series.name.removesuffix(TAIL)}" for series in corpus.clips}
    assert notices == [
        f"left out: {tmp_path / name}: written by wavegen forecast, and no data; if it is data, rename its columns"
    ]
    assert inspect_series(tmp_path).unusable[0].name == name
    assert [values for _, values in series_in([tmp_path / name], 5, notices.append)]  # given by name, it is meant
    assert {series.name.partition("[")[0] for series in corpus.train} == {"0.csv", "1.csv", "2.csv"}
    if name == "ahead.csv":
        write_series(str(tmp_path / name), read_series(tmp_path / name).series, io.StringIO())  # of forecasts
        assert list(read_series(tmp_path / name).series) == ["price forecast", "volume forecast"]


# --- corpora --------------------------------------------------------------------------------------------------------


def test_a_folder_of_many_series_is_split_by_their_content(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "many.npy", rng.normal(size=(60, 20)))
    corpus = build_corpus(tmp_path, validation=0.25, longer_than=3)
    assert len(corpus.clips) == 60
    assert 5 < len(corpus.validation) < 25
    held_out = {clip.content_hash for clip in corpus.validation}
    np.save(tmp_path / "more.npy", rng.normal(size=(10, 20)))
    more = build_corpus(tmp_path, validation=0.25, longer_than=3)
    assert held_out <= {clip.content_hash for clip in more.validation}
    assert not held_out & {clip.content_hash for clip in more.train}


def test_of_few_series_the_ends_are_held_out(tmp_path):
    series = np.random.default_rng(0).normal(size=(2, 100))
    np.save(tmp_path / "two.npy", series)
    np.save(tmp_path / "short.npy", series[0, :9])
    corpus = build_corpus(tmp_path, validation=0.1, longer_than=4)
    assert {clip.name: clip.n_samples for clip in corpus.train} == {"two.npy[0]": 90, "two.npy[1]": 90, "short.npy": 9}
    ends = {clip.name: clip.values for clip in corpus.validation}
    assert ends.keys() == {f"two.npy[0]{TAIL}", f"two.npy[1]{TAIL}"}  # of nine values no end of five can be spared
    assert np.array_equal(ends[f"two.npy[1]{TAIL}"], series[1, 90:])
    assert corpus.notes == ("There are fewer than 10 usable series: the last 10% of each is held out instead of whole "
                            "series.",)  # fmt: skip


def test_what_cannot_be_used_is_said_with_its_reason(tmp_path):
    np.save(tmp_path / "good.npy", np.arange(30.0))
    np.save(tmp_path / "short.npy", np.arange(5.0))
    csv_of(tmp_path, "a\n1\nx\n3\n")
    (tmp_path / "readme.txt").write_text("no series")
    corpus = build_corpus(tmp_path, validation=0.1, longer_than=5)
    assert corpus.unusable == (
        ("short.npy", "too short: 5 values, expected 6 or more"),
        ("table.csv", "line 3: column 'a': expected a finite number, found 'x'; fill it in, or leave the line out"),
    )
    (tmp_path / "good.npy").unlink()
    with pytest.raises(DataError, match=r"none of 2 files can be used: short\.npy: too short"):
        build_corpus(tmp_path, validation=0.1, longer_than=5)


def test_files_that_cannot_be_used_are_left_out_however_they_were_given(tmp_path):
    np.save(tmp_path / "good.npy", np.arange(30.0))
    np.save(tmp_path / "short.npy", np.arange(5.0))
    np.save(tmp_path / "bad.npy", np.array([1.0, np.nan]))
    csv_of(tmp_path, "a\n1\nx\n")
    files = [tmp_path / name for name in ("bad.npy", "good.npy", "short.npy", "table.csv")]
    reasons, of_folder = [], []
    one_by_one = list(series_in(files, longer_than=5, notice=reasons.append))
    as_a_folder = list(series_in([tmp_path], longer_than=5, notice=of_folder.append))
    assert [name for name, _ in as_a_folder] == [name for name, _ in one_by_one]
    assert reasons == of_folder
    assert [reason.partition(": ")[0] for reason in reasons] == ["left out"] * 3
    assert "bad.npy: expected finite numbers, found nan at [1]" in reasons[0]
    assert [name for name, _ in one_by_one] == [str(tmp_path / "good.npy")]
    with pytest.raises(UsageError, match=r"gone\.npy: expected a file of series, found none"):
        list(series_in([tmp_path / "gone.npy"], longer_than=5, notice=print))


@pytest.mark.parametrize("name", ["out.csv", "out.npy"])
def test_a_forecast_that_cannot_be_written_leaves_the_file_before(name, tmp_path, monkeypatch):
    path = tmp_path / name
    write_series(str(path), {"a": np.array([1.0])}, io.StringIO())
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WavegenError, match=rf"{name}: cannot be written \(No space left on device\)"):
        write_series(str(path), {"a": np.array([2.0])}, io.StringIO())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_series_is_the_same_in_every_format(tmp_path):
    values = np.random.default_rng(0).normal(size=20)
    np.save(tmp_path / "a.npy", values)
    write_series(str(tmp_path / "b.csv"), {"b": values}, io.StringIO())
    hashes = {hash_of(series) for _, series in series_in([tmp_path], longer_than=1, notice=print)}
    assert len(hashes) == 1


def test_validation_may_be_a_folder_or_a_list(tmp_path):
    (tmp_path / "held").mkdir()
    for name in ("a.npy", "b.npy", "held/c.npy"):
        np.save(tmp_path / name, np.arange(30.0) + len(name))
    corpus = build_corpus(tmp_path, validation=str(tmp_path / "held"), longer_than=1)
    assert [clip.name for clip in corpus.validation] == ["held/c.npy"]
    (tmp_path / "list.txt").write_text("b.npy\n")
    corpus = build_corpus(tmp_path, validation=str(tmp_path / "list.txt"), longer_than=1)
    assert [clip.name for clip in corpus.validation] == ["b.npy"]


def test_one_file_may_be_all_the_data(tmp_path):
    np.save(tmp_path / "all.npy", np.arange(30.0))
    assert [clip.name for clip in build_corpus(tmp_path / "all.npy", validation=0.1, longer_than=1).train] == [
        "all.npy"
    ]


# --- made-up series -------------------------------------------------------------------------------------------------


def test_waves_are_two_sines_and_noise_the_same_at_every_call():
    waves = make_sine_mixtures(60, 400)
    assert waves.shape == (400, 60)
    assert np.array_equal(waves, make_sine_mixtures(60, 400))
    assert 0.72 < np.abs(waves).max() < 0.75  # 0.5 + 0.2 + 0.05 at most
    # two sines of known frequencies explain a series but for the noise, uniform in +-0.05
    rng = np.random.Generator(np.random.Philox(20190905))
    f1, f2, _, _ = rng.random((4, 400, 1))
    t = np.linspace(0, 1, 60)
    for series, a, b in zip(waves, 10 * f1[:, 0] + 10, 20 * f2[:, 0] + 20, strict=True):
        sines = np.stack([np.sin(a * t), np.cos(a * t), np.sin(b * t), np.cos(b * t)], axis=1)
        weights = np.linalg.lstsq(sines, series, rcond=None)[0]
        assert np.hypot(*weights[:2]) == pytest.approx(0.5, abs=0.05)
        assert np.abs(series - sines @ weights).max() < 0.08


def test_made_up_series_to_test_on_are_neither_trained_nor_validated_on():
    corpus = build_synthetic_corpus(20)
    assert (len(corpus.train), len(corpus.validation)) == (7000, 2000)
    waves = make_sine_mixtures(20)
    assert np.array_equal(np.stack([clip.values for clip in corpus.train]), waves[:7000])
    assert np.array_equal(np.stack([clip.values for clip in corpus.validation]), waves[7000:9000])
    assert len({clip.content_hash for clip in corpus.clips}) == 9000


# --- what the network sees ------------------------------------------------------------------------------------------


def series_config(folder, *overrides):
    return load_config("book-simple", ["series.synthetic=null", f"data.folder={folder}", *overrides])


def test_offset_and_scale_are_those_of_the_series_that_are_trained_on(tmp_path):
    values = 1e6 + 3.0 * np.random.default_rng(0).normal(size=(20, 50))
    np.save(tmp_path / "a.npy", values)
    config = series_config(tmp_path)
    corpus = read_corpus(config)
    trained_on = np.stack([clip.values for clip in corpus.train])
    frozen = with_normalization(config, corpus).series
    assert frozen.offset == pytest.approx(trained_on.mean(), rel=1e-12)
    assert frozen.scale == pytest.approx(trained_on.std(), rel=1e-9)
    assert with_normalization(series_config(tmp_path, "series.scale=2.0"), corpus).series.scale == 2.0
    normalization = Normalization(float(frozen.offset), float(frozen.scale))
    seen = np.stack([normalization.normalize(clip.values) for clip in corpus.train])
    assert seen.dtype == np.float32
    assert (seen.mean(), seen.std()) == pytest.approx((0.0, 1.0), abs=1e-4)
    assert normalization.denormalize(seen) == pytest.approx(trained_on, rel=1e-9)


def test_a_series_that_never_changes_has_the_scale_1():
    assert Normalization.fit([np.full(5, 7.0)]) == Normalization(7.0, 1.0)


# --- what files of series may hold -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["date,1\n2024-01-10,5\n2024-01-11,6\n", "x\n5\n6\n", "day,x\nmon 1,5\ntue 2,6\n"])
def test_words_above_dates_or_numbers_are_headings(tmp_path, text):
    file = tmp_path / "a.csv"
    file.write_text(text)
    assert read_series(file).series[""].tolist() == [5, 6]


@pytest.mark.parametrize("cell", ["1_0", "0x1", "1,000", "\N{ARABIC-INDIC DIGIT ONE}", "one"])
def test_a_number_is_written_plainly(tmp_path, cell):
    file = tmp_path / "a.csv"
    file.write_text(f'x\n1\n"{cell}"\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.csv:3: column 'x': expected a finite number"):
        read_series(file)


@pytest.mark.parametrize("size", [1e31, 1e-31])
def test_sizes_that_cannot_be_computed_with_are_refused(tmp_path, size):
    file = tmp_path / "a.npy"
    np.save(file, np.arange(5) * size)
    with pytest.raises(DataError, match=r"expected values between 1e-30 and 1e\+30 in size, found 4e"):
        read_series(file)


def test_a_forecast_keeps_its_digits(tmp_path):
    values = 1e12 + np.sin(np.arange(5.0))
    write_series(str(tmp_path / "a.csv"), {"": values}, io.StringIO())
    assert np.array_equal(read_series(tmp_path / "a.csv").series[""], values)


def test_a_constant_series_has_the_scale_1():
    assert Normalization.fit([np.full(41, 0.1)]).scale == 1.0


@pytest.mark.slow
def test_made_up_waves_have_the_textbooks_one_step_figures():
    """Published, for the value after 50: last value 0.0212; a dense layer, 20 epochs of Adam, 0.0038."""
    waves = torch.from_numpy(make_sine_mixtures(51)).float()
    train, held_out = waves[:N_TRAIN], waves[N_TRAIN : N_TRAIN + N_VALIDATION]
    assert float((held_out[:, 49] - held_out[:, 50]).square().mean()) == pytest.approx(0.0212, rel=0.1)

    n_seeds, random = 15, torch.Generator().manual_seed(0)
    limit = math.sqrt(6 / (50 + 1))  # Glorot's
    weights = torch.empty(n_seeds, 50, 1).uniform_(-limit, limit, generator=random).requires_grad_()
    biases = torch.zeros(n_seeds, 1, 1, requires_grad=True)
    adam = torch.optim.Adam([weights, biases], lr=0.001, eps=1e-7)
    for _ in range(20):
        order = torch.stack([torch.randperm(N_TRAIN, generator=random) for _ in range(n_seeds)])
        for numbers in order.split(32, dim=1):
            batch = train[numbers]  # (seeds, 32, 51)
            errors = batch[:, :, :50] @ weights + biases - batch[:, :, 50:]
            adam.zero_grad()
            errors.square().mean(dim=(1, 2)).sum().backward()
            adam.step()
    with torch.no_grad():
        errors = held_out[:, :50] @ weights + biases - held_out[:, 50:]
    assert float(errors.square().mean(dim=(1, 2)).median()) == pytest.approx(0.0038, rel=0.1)
