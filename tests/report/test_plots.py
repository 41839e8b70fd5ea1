import io
import json
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from wavegen.config import load_config
from wavegen.errors import UsageError, WavegenError
from wavegen.inspect import inspect_path, inspect_paths
from wavegen.output_file import check_writable, write_output
from wavegen.report import plots
from wavegen.report.curves import limits, run_figure, smooth
from wavegen.report.inspected import draw
from wavegen.report.plots import encode, envelope, new_figure, sound_figure, title
from wavegen.runs.run_folder import History, RunFolder, read_history

RATE = 16000
BASELINES = {"uniform": 8.0, "unigram": 7.6, "order-1 Markov": 5.0, "order-2 Markov": 4.9, "linear prediction": 4.0}


def sine(amplitude, seconds, hertz=1000.0):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def size(path):
    height, width, _ = imread(path).shape
    return width, height


def write_run(path, steps=200, bits=5.0):
    run = RunFolder(path)
    run.create(load_config().to_yaml())
    with run.metrics_file.open("w") as file:
        for step in range(1, steps + 1):
            entry = {
                "step": step,
                "train_bits": None if step == 3 else bits + 3 / step,
                "learning_rate": 0.001,
                "targets_per_second": 1e4 + step,
                "hours_of_audio": step / 1000,
                "seconds": step * 0.5,
                "skipped": 0,
            }
            file.write(json.dumps(entry) + "\n")
            if step % 50 == 0:
                line = {"step": step, "validation_bits": bits + 10 / step, "baselines": BASELINES}
                file.write(json.dumps(line) + "\n")
    return path


# --- numbers of a picture -----------------------------------------------------------------------------------


def test_a_full_scale_sine_is_0_db_at_its_frequency():
    drawn = plots.spectrogram(sine(1.0, 1.0), RATE, 10_000)
    frequency, column = np.unravel_index(np.argmax(drawn.level_db), drawn.level_db.shape)
    assert frequency * RATE / drawn.fft_size == 1000
    assert drawn.level_db[frequency, column] == pytest.approx(0.0, abs=0.05)
    assert drawn.level_db.shape == (drawn.fft_size // 2 + 1, 1 + RATE // drawn.hop)


def test_a_long_spectrogram_is_the_mean_power_of_the_short_one(monkeypatch):
    waveform = np.random.default_rng(0).normal(0, 0.1, 50_000).astype(np.float32)
    every = plots.spectrogram(waveform, RATE, 10_000)
    monkeypatch.setattr(plots, "FRAMES_AT_ONCE", 64)
    few = plots.spectrogram(waveform, RATE, 40)
    per_column = few.hop // every.hop
    power = 10 ** (every.level_db / 10)
    expected = [power[:, i : i + per_column].mean(axis=1) for i in range(0, power.shape[1], per_column)]
    assert len(expected) <= 40
    np.testing.assert_allclose(few.level_db, 10 * np.log10(np.stack(expected, axis=1)), atol=1e-3)


@pytest.mark.parametrize("n_samples", [1, 7, 100, 12_345])
def test_the_envelope_holds_every_sample(n_samples):
    waveform = np.random.default_rng(1).normal(size=n_samples).astype(np.float32)
    lowest, highest = envelope(waveform, 100)
    assert len(lowest) == len(highest) <= 100
    assert (lowest.min(), highest.max()) == (waveform.min(), waveform.max())


def test_a_smooth_curve_keeps_the_mean_and_leaves_out_what_is_not_finite():
    values = [None if i == 5 else float(i % 7) for i in range(3000)]
    places, means = smooth(range(3000), values)
    assert len(places) == len(means) == 200
    assert np.mean(means) == pytest.approx(np.mean([v for v in values if v is not None]), abs=0.01)
    assert smooth([1, 2], [None, None]) == ([], [])
    assert smooth([1, 2], [3.0, 5.0]) == ([1.0, 2.0], [3.0, 5.0])


def test_limits_leave_out_the_fall_of_the_first_steps():
    history = History(
        steps=list(range(1, 1001)), train=[8.0] * 20 + [3.0 + 1 / step for step in range(21, 1001)], validations=[]
    )
    span = limits([history], [8.0, 7.5, 3.5, 3.2])
    assert span[0] < 3.0
    assert 3.5 < span[1] < 4.0


def test_the_history_of_a_run(tmp_path):
    history = read_history(write_run(tmp_path / "run"))
    assert history.baselines == BASELINES
    assert list(history.baselines.values()) == sorted(BASELINES.values(), reverse=True)  # the highest first
    assert median(history.recent_speeds) == pytest.approx(1e4 + 150.5)
    assert history.best is not None
    assert history.best.step == 200


def test_the_legend_has_the_figures_of_all_baselines(tmp_path):
    figure = run_figure("run", read_history(write_run(tmp_path / "run")), "bits/sample")
    names = figure.axes[0].get_legend_handles_labels()[1]
    expected = {f"{name}: {bits:.3f}" for name, bits in BASELINES.items()}
    assert set(names) == {"training", "held-out", "best: 5.050 at step 200"} | expected
    assert figure.axes[0].get_ylim()[1] < BASELINES["uniform"]  # the legend alone has it


# --- pictures -----------------------------------------------------------------------------------------------


def test_every_kind_is_drawn(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(0.5, 1.0), RATE)
    (tmp_path / "sub").mkdir()
    for i in range(5):
        soundfile.write(tmp_path / "sub" / f"{i}.flac", sine(0.1 * i, 0.2 * (i + 1)), RATE)
    run, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", steps=150, bits=4.0)
    cases = {
        "folder": inspect_path(str(tmp_path / "sub")),
        "heard": inspect_paths([str(tmp_path / "sub")], decode=True),
        "audio": inspect_path(str(tmp_path / "a.wav")),
        "config": inspect_path("small"),
        "run": inspect_path(str(run)),
        "comparison": inspect_paths([str(run), str(other)]),
    }
    for name, inspection in cases.items():
        draw(inspection, tmp_path / f"{name}.png")
        width, height = size(tmp_path / f"{name}.png")
        assert width == 1000
        assert 400 <= height <= 1100


@pytest.mark.parametrize("n_samples", [1, 100, 40_000])
def test_audio_of_any_length_is_drawn(tmp_path, n_samples):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(0.5, n_samples / RATE), RATE)
    draw(inspect_path(str(path)), tmp_path / "a.png")
    figure = sound_figure(np.zeros(n_samples, np.float32), RATE, "silence")
    assert imread(io.BytesIO(encode(figure))).shape[:2] == (550, 1000)


def test_names_in_any_script_and_with_dollars_are_drawn():
    figure = new_figure(3, 2)
    title(figure.subplots(), r"$\frac{1}{ _ 録音 \x00.wav".replace("\\x00", ""))
    assert imread(io.BytesIO(encode(figure))).shape[:2] == (200, 300)


def test_nothing_to_draw_is_reported(tmp_path):
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "run").create(load_config().to_yaml())
    for path, message in (("empty", "no usable audio file"), ("run", "has no step with a finite loss")):
        with pytest.raises(UsageError, match=f"{path}: nothing to draw: .*{message}"):
            draw(inspect_path(str(tmp_path / path)), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


# --- where they go ------------------------------------------------------------------------------------------


def test_a_target_is_checked_before_the_work(tmp_path):
    (tmp_path / "old.png").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    check_writable(tmp_path / "new.PNG", overwrite=False, ending=".png")
    check_writable(tmp_path / "old.png", overwrite=True, ending=".png")
    for name, message in {
        "new.jpg": r"new\.jpg: expected a name that ends in \.png",
        "old.png": r"old\.png: already exists; .*overwrite=True",
        "folder.png": r"folder\.png: expected a file to write, found a folder",
        "gone/new.png": r"the folder .*gone does not exist",
        f"{'x' * 300}.png": "cannot be written",
    }.items():
        with pytest.raises(UsageError, match=message):
            check_writable(tmp_path / name, overwrite=False, ending=".png")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def fail(self, other):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WavegenError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_output(target, b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.png", b"old")]


def test_every_time_axis_with_a_name_has_numbers(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(0.5, 1.0), RATE)
    named = [axes for axes in plots.audio_figure(tmp_path / "a.wav").axes if axes.get_xlabel() == "time (s)"]
    assert [axes.xaxis.get_tick_params()["labelbottom"] for axes in named] == [True]
