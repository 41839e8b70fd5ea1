"""Training under conditions: what it freezes, resumes, learns, says, scores and lets one hear."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from recordings import write_tones
from trainings import RATE_HZ, TINY, assert_same_state, begin, go_on, newest
from wavegen.api import load
from wavegen.config import load_config
from wavegen.errors import DataError, ModelError, UsageError
from wavegen.evaluation.scores import score_clips, total
from wavegen.inspect import as_dict, inspect_path
from wavegen.report import print_tables
from wavegen.report.inspected import tables_of
from wavegen.report.page import generate_samples
from wavegen.report.training import plan_tables
from wavegen.runs.checkpoint import load_checkpoint
from wavegen.runs.run_folder import RunFolder
from wavegen.training import task
from wavegen.training.compute import resolve_compute, training_bytes
from wavegen.training.progress import Observer
from wavegen.training.task import task_type

LABELS = ["data.labels=subfolders", "model.label_channels=3"]
MEL = ["mel.n_mels=6", "mel.n_fft=128", "mel.hop_length=40", "mel.upsampling=4"]
FEATURES = ["features.columns=auto"]


def write_voices(folder, voices, n_clips=6):
    """A sub-folder for each voice: tones of its pitch."""
    for seed, (name, hz) in enumerate(voices.items()):
        write_tones(folder / name, [hz] * n_clips, seed=seed)
        write_features(folder / name, np.random.default_rng(seed))
    return folder


def write_features(folder, rng):
    """A file of two columns beside each recording, a frame every 40 samples, as librosa counts them."""
    for path in sorted(folder.glob("*.wav")):
        np.save(path.with_suffix(".npy"), rng.normal(3.0, [2.0, 0.1], (1 + soundfile.info(path).frames // 40, 2)))


@pytest.fixture
def voices(tmp_path):
    return write_voices(tmp_path / "voices", {"carl": 150.0, "anna": 400.0})


def tiny(folder, *overrides):
    return load_config("small", [f"data.folder={folder}", *TINY, *overrides])


def held_out_bits(training):
    return training.mean_loss(training.average, training.task.validation_clips(None))


# --- frozen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize(
    "keys", [LABELS, MEL, LABELS + MEL, FEATURES, LABELS + FEATURES], ids=["labels", "mel", "both", "features", "all"]
)
def test_interrupted_and_resumed_equals_uninterrupted(voices, tmp_path, keys, backend, stop_after):
    config = tiny(voices, *keys, f"training.backend={backend}", "training.validate_every=4")
    begin(config, tmp_path / "whole").fit()
    stop_after(begin(config, tmp_path / "parts"), step=5)
    go_on(tmp_path / "parts").fit()
    whole = newest(tmp_path / "whole")
    assert_same_state(whole, newest(tmp_path / "parts"))
    assert np.abs(whole.weights["conditioning.projection"]).max() > 0, "learnt"


def test_labels_are_frozen_in_their_order(voices, tmp_path, stop_after):
    stop_after(begin(tiny(voices, *LABELS), tmp_path / "run"), step=3)
    frozen = load_config(tmp_path / "run" / "config.yaml")
    assert frozen.data.label_names == ["anna", "carl"]
    assert newest(tmp_path / "run").config == frozen
    labels = {clip["name"]: clip["label"] for clip in newest(tmp_path / "run").manifest}
    assert labels["carl/0.wav"] == "carl"
    assert go_on(tmp_path / "run", lambda _: tiny(voices, *LABELS)).config.data.label_names == ["anna", "carl"]
    with pytest.raises(UsageError, match=r"cannot change within a run: data\.label_names"):
        go_on(tmp_path / "run", lambda f: f.with_values("data", label_names=["carl", "anna"]), accept=True)
    with pytest.raises(UsageError, match=r"cannot change within a run: mel\.n_mels"):
        go_on(tmp_path / "run", lambda f: f.with_values("mel", n_mels=10), accept=True)


def test_features_are_frozen_with_their_hop_and_scale(voices, tmp_path, stop_after):
    stop_after(begin(tiny(voices, *FEATURES), tmp_path / "run"), step=3)
    frozen, manifest = newest(tmp_path / "run").config, newest(tmp_path / "run").manifest
    files = [np.load((voices / clip["name"]).with_suffix(".npy")) for clip in manifest if clip["split"] == "train"]
    assert (frozen.features.columns, frozen.features.hop) == (2, 40)
    assert {file.shape for file in files} == {(51, 2)}
    kept = np.concatenate([file[:50] for file in files])  # librosa's last frame stands for no sample
    np.testing.assert_allclose(frozen.features.mean, kept.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(frozen.features.scale, kept.std(axis=0), rtol=1e-5)
    assert go_on(tmp_path / "run", lambda _: tiny(voices, *FEATURES)).config.features == frozen.features
    with pytest.raises(UsageError, match=r"cannot change within a run: features\.hop"):
        go_on(tmp_path / "run", lambda f: f.with_values("features", hop=41), accept=True)
    np.save(voices / "anna" / "0.npy", np.load(voices / "anna" / "0.npy") + 1)
    with pytest.raises(UsageError, match=r"anna/0\.wav.*other features"):
        go_on(tmp_path / "run")


def test_a_label_that_comes_later_needs_a_new_run(voices, tmp_path, stop_after):
    stop_after(begin(tiny(voices, *LABELS), tmp_path / "run"), step=3)
    write_voices(voices, {"bert": 300.0})
    with pytest.raises(UsageError, match=r"added: bert/0\.wav.*--accept-changes"):
        go_on(tmp_path / "run")
    with pytest.raises(DataError, match="expected the labels anna, carl, found bert besides; start a new run"):
        go_on(tmp_path / "run", accept=True)


def test_labels_may_be_given_in_any_order_and_with_room_for_more(voices, tmp_path):
    training = begin(tiny(voices, *LABELS, "data.label_names=[dora, carl, anna]"), tmp_path / "run")
    assert training.model.conditioning.labels.shape == (3, 3)
    assert training.task.conditioner.labels == ("dora", "carl", "anna")
    with pytest.raises(DataError, match="expected the labels carl, found anna besides"):
        begin(tiny(voices, *LABELS, "data.label_names=[carl]"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- fine-tuning -------------------------------------------------------------------------------------------------


def test_fine_tuning_keeps_the_labels_that_match_and_reports_them(voices, tmp_path):
    begin(tiny(voices, *LABELS), tmp_path / "first").fit()
    others = write_voices(tmp_path / "others", {"anna": 400.0, "bert": 300.0, "dora": 200.0})
    said = []
    second = begin(tiny(others, *LABELS), tmp_path / "second", said, tmp_path / "first")
    assert "labels: anna kept; bert, dora new; carl left behind" in said
    first = load_checkpoint(RunFolder(tmp_path / "first").best_checkpoint).average
    for model in (second.model, second.average):
        rows = model.conditioning.labels.detach().numpy()
        np.testing.assert_array_equal(rows[0], first["conditioning.labels"][0])
        assert np.abs(rows[1:, None] - first["conditioning.labels"]).min() > 1e-4
        np.testing.assert_array_equal(model.conditioning.projection.detach(), first["conditioning.projection"])
        np.testing.assert_array_equal(model.skip.weight.detach(), first["skip.weight"])
    second.fit()
    assert newest(tmp_path / "second").config.data.label_names == ["anna", "bert", "dora"]


def test_labels_learnt_on_top_of_a_network_without_them_begin_as_it_was(voices, tmp_path):
    first = begin(tiny(voices), tmp_path / "first")
    first.fit()
    second = begin(tiny(voices, *LABELS), tmp_path / "second", init_from=tmp_path / "first")
    assert held_out_bits(second) == pytest.approx(held_out_bits(first), rel=1e-6)


@pytest.mark.parametrize(
    ("before", "now", "sentence"),
    [
        (
            LABELS,
            LABELS + MEL,
            "; fresh: conditioning.interpolation, conditioning.projection (mel columns)",
        ),
        (
            MEL,
            LABELS + MEL,
            "; fresh: conditioning.labels, conditioning.projection (label columns)",
        ),
        (LABELS + MEL, MEL, "; not used: conditioning.labels, conditioning.projection (label columns)"),
        (
            LABELS,
            MEL,
            "; fresh: conditioning.interpolation, conditioning.projection (mel columns)"
            "; not used: conditioning.labels, conditioning.projection (label columns)",
        ),
        ([], MEL, "; fresh: conditioning.interpolation, conditioning.projection (mel columns)"),
        (MEL, [], "; not used: conditioning.interpolation, conditioning.projection (mel columns)"),
    ],
    ids=["mel added", "labels added", "labels dropped", "labels to mel", "first conditions", "no conditions any more"],
)
def test_conditions_may_come_and_go(voices, tmp_path, before, now, sentence):
    first = begin(tiny(voices, *before), tmp_path / "first")
    first.fit()
    learnt = load_checkpoint(RunFolder(tmp_path / "first").best_checkpoint).average
    said = []
    second = begin(tiny(voices, *now), tmp_path / "second", said, tmp_path / "first")
    initialized, *little = said  # mel.* differs in nothing that both have
    assert all(text.startswith("only ") for text in little)
    assert initialized.startswith("initialized ")
    assert initialized.endswith(f"{tmp_path / 'first'}{sentence}")
    weights = {name: parameter.detach().numpy() for name, parameter in second.model.named_parameters()}
    for name in weights.keys() & learnt.keys() - {"conditioning.projection"}:
        np.testing.assert_array_equal(weights[name], learnt[name], err_msg=name)
    if now:
        for kind, columns in found_columns(weights, now).items():
            kept = found_columns(learnt, before).get(kind)
            np.testing.assert_array_equal(columns, 0 if kept is None else kept)
            assert kept is None or np.abs(kept).max() > 0, "learnt"
    if all(key in now for key in before):  # it begins as the other one was
        bits = [held_out_bits(training) for training in (first, second)]
        assert bits[1] == pytest.approx(bits[0], rel=1e-6)


def found_columns(weights, keys):
    """What the projection has for three numbers of a label, if any, and behind them for six mel bands, if any."""
    if not keys:
        return {}
    projection = weights["conditioning.projection"]
    split = 3 if "data.labels=subfolders" in keys else 0
    assert projection.shape == (5 * 24, split + (6 if MEL[0] in keys else 0))
    parts = {"label": projection[:, :split], "mel": projection[:, split:]}
    return {kind: part for kind, part in parts.items() if part.size}


def test_another_shape_is_a_clear_error(voices, tmp_path):
    begin(tiny(voices, *LABELS), tmp_path / "first").fit()
    for keys, text in [
        (["model.residual_channels=13"], r"'input\.weight': expected the shape \(256, 13\), found \(256, 12\), and"),
        (["model.label_channels=4"], r"'conditioning\.labels': expected the shape \(2, 4\), found \(2, 3\)"),
    ]:
        with pytest.raises(ModelError, match=rf"first does not fit this configuration: {text}"):
            begin(tiny(voices, *LABELS, *keys), tmp_path / "second", init_from=tmp_path / "first")
        assert not (tmp_path / "second").exists()


def test_mel_frames_of_another_size_are_a_clear_error(voices, tmp_path):
    begin(tiny(voices, *MEL[:-1]), tmp_path / "first").fit()
    columns = r"'conditioning\.projection \(mel columns\)': expected the shape \(120, 8\), found \(120, 6\)"
    with pytest.raises(ModelError, match=rf"first does not fit this configuration: {columns}; give the sections"):
        begin(tiny(voices, *LABELS, *MEL[:-1], "mel.n_mels=8"), tmp_path / "second", init_from=tmp_path / "first")


# --- learnt, scored, heard ---------------------------------------------------------------------------------------


def pitch_hz(clip):
    spectrum = np.abs(np.fft.rfft(clip * np.hanning(len(clip))))
    return float(np.argmax(spectrum) * RATE_HZ / len(clip))


def test_each_label_sounds_like_its_recordings(voices, tmp_path):
    """Two voices of different pitch, learnt together, are selected by label."""
    config = tiny(voices, *LABELS, "training.steps=300", "training.ema_decay=0.95")
    begin(config, tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    clips = trained.generate(1.0, count=2, labels=["anna", "carl"], temperature=0.6)
    assert pitch_hz(clips[0]) == pytest.approx(400, abs=20)
    assert pitch_hz(clips[1]) == pytest.approx(150, abs=20)
    recording = trained.load_clip(voices / "anna" / "0.wav")
    assert trained.score(recording, label="anna") < trained.score(recording, label="carl") - 0.1


def test_a_vocoder_follows_the_spectrogram(tmp_path):
    """Sines of many pitches without labels: only the frames determine the pitch."""
    folder = write_voices(tmp_path / "sines", {f"{hz}": float(hz) for hz in range(200, 900, 50)}, n_clips=2)
    keys = ["mel.n_mels=20", "mel.n_fft=256", "mel.hop_length=40", "mel.upsampling=4"]
    begin(tiny(folder, *keys, "training.steps=300", "training.ema_decay=0.95"), tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    for hz in (300, 700):
        recording = trained.load_clip(folder / str(hz) / "0.wav")
        made = trained.generate(mel=trained.mel_spectrogram(recording), temperature=0.5)
        assert made.shape == (1, len(recording))
        assert pitch_hz(made[0]) == pytest.approx(hz, abs=30)


class Notices(Observer):
    """Collects the messages of a training."""

    def __init__(self, said):
        self.said = said

    def on_notice(self, text):
        self.said.append(text)


def test_sound_follows_features(tmp_path):
    """Sines of many pitches: one column of numbers, in units of its own, determines the pitch."""
    folder = write_voices(tmp_path / "sines", {f"{hz}": float(hz) for hz in range(200, 900, 50)}, n_clips=2)
    for path in folder.rglob("*.npy"):
        np.save(path, np.full(50, float(path.parent.name)))
    begin(tiny(folder, *FEATURES, "training.steps=300", "training.ema_decay=0.95"), tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    recording = trained.load_clip(folder / "300" / "0.wav")
    for hz in (300, 700):
        asked = np.full((50, 1), float(hz))
        made = trained.generate(features=asked, temperature=0.5)
        assert made.shape == (1, 2000)
        assert pitch_hz(made[0]) == pytest.approx(hz, abs=30)
    right, wrong = (trained.score(recording, features=np.full(50, hz)) for hz in (300.0, 700.0))
    assert right < wrong - 0.1
    gain = load_checkpoint(RunFolder(tmp_path / "run").step_checkpoints()[-1]).metrics["validation"]["frames_gain"]
    assert gain > 0.1
    assert f"the right frames save {gain:.3f} bits/sample against shuffled ones" in shown(tmp_path / "run")[1]


def test_frames_that_a_model_ignores_are_reported(voices, tmp_path):
    """Noise has nothing to do with the sound: the validation, evaluation and inspection say so."""
    training, said = begin(tiny(voices, *FEATURES), tmp_path / "run"), []
    training.observers = [Notices(said)]
    training.fit()
    gain = training.progress.validation["frames_gain"]
    assert abs(gain) < 0.01
    (sentence,) = [text for text in said if "shuffled" in text]
    assert sentence.startswith(f"the right frames save {gain:.3f} bits/sample against shuffled ones: the model ignores")
    assert "the model ignores them; train longer" in shown(tmp_path / "run")[1]
    labels = begin(tiny(voices, *LABELS), tmp_path / "labels")
    labels.fit()
    assert "frames_gain" not in labels.progress.validation


@pytest.mark.parametrize("keys", [LABELS, LABELS + MEL, FEATURES], ids=["labels", "both", "features"])
def test_the_last_validation_is_what_evaluation_gives(voices, tmp_path, keys):
    training = begin(tiny(voices, *keys, "training.steps=30", "training.learning_rate=0.02"), tmp_path / "run")
    training.fit()
    trained = load(training.run.step_checkpoints()[-1], "cpu")
    clips = trained.clips.held_out()
    scores = score_clips(trained.network, clips, trained.quantizer, None, lambda n: None)
    assert total(scores).bits_per_sample == pytest.approx(training.progress.validation["validation_loss"], abs=1e-4)
    files = [voices / clip.name for clip in clips]
    said = []
    again = trained.clips.load(files, said.append)
    again = score_clips(trained.network, again, trained.quantizer, None, lambda n: None)
    assert [score.bits for score in again] == pytest.approx([score.bits for score in scores])
    if keys == FEATURES:
        return
    whole = trained.clips.load([voices], said.append)
    labels = {Path(clip.name).parent.name: clip.condition.label.tolist() for clip in whole}
    assert labels == {"anna": [1, 0], "carl": [0, 1]}


def test_a_clip_that_validation_cuts_short_is_conditioned_as_a_whole(voices, tmp_path):
    """The last frames before the cut hear what comes after it, as they do in evaluation."""
    training = begin(tiny(voices, *LABELS, *MEL), tmp_path / "run")
    whole, cut = training.task.validation_clips(None)[0], training.task.validation_clips(0.11)[0]
    assert (len(whole.classes), len(cut.classes)) == (2000, 440)
    np.testing.assert_array_equal(cut.condition.frames[:11], whole.condition.frames[:11])
    for rows, expected in zip(cut.condition.rows(0, 440), whole.condition.rows(0, 440), strict=True):
        np.testing.assert_array_equal(rows, expected)


def test_a_file_without_a_known_label_has_to_be_given_one(voices, tmp_path):
    begin(tiny(voices, *LABELS), tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    strange = tmp_path / "strange.wav"
    strange.write_bytes((voices / "anna" / "0.wav").read_bytes())
    where = rf"{strange}: expected it in a folder named as one of this model's labels, anna, carl, found it in"
    with pytest.raises(UsageError, match=rf"{where} '{tmp_path.name}'; give the label of all files instead"):
        trained.clips.load([strange], print)
    (voices / "anna" / "inside").mkdir()
    (clip,) = trained.clips.load([voices / "anna" / "inside" / ".." / "0.wav"], print)
    assert clip.condition.label.tolist() == [1, 0]
    for label, weights in (("carl", [0, 1]), ("anna=3,carl=1", [0.75, 0.25]), ({"anna": 0.5}, [1, 0])):
        (clip,) = trained.clips.load([strange], print, trained.generator.label_weights(label))
        assert clip.condition.label.tolist() == weights
    recording = trained.load_clip(strange)
    assert trained.score(recording, "anna=0.5,carl=0.5") != trained.score(recording, "anna")
    with pytest.raises(UsageError, match="label: no such label 'dora'; this model knows anna, carl"):
        trained.clips.load([strange], print, {"anna": 0.5, "dora": 0.5})
    with pytest.raises(UsageError, match="label: expected one of anna, carl, found none"):
        trained.score(recording)


@pytest.mark.parametrize(
    ("keys", "seconds", "length"), [(LABELS, 1.0, 1.0), (MEL, 0.2, 0.2), (LABELS + MEL, 9.0, 0.5)], ids=str
)
def test_auditions_are_of_the_first_labels_or_of_a_held_out_recording(
    voices, tmp_path, monkeypatch, keys, seconds, length
):
    heard = []
    original = task.Request

    def listening(*arguments, conditions):
        heard.append(conditions)
        return original(*arguments, conditions=conditions)

    monkeypatch.setattr(task, "Request", listening)
    training = begin(
        tiny(voices, *keys, "training.audition_every=10", f"training.audition_seconds={seconds}"), tmp_path / "run"
    )
    training.fit()
    assert soundfile.info(training.run.audition_file(10)).frames == round(length * RATE_HZ)
    (conditions,) = heard
    if keys == LABELS:
        assert [condition.label.tolist() for condition in conditions] == [[1, 0], [0, 1]]
    else:
        (condition,) = conditions
        held_out = [
            training.task.conditioner.of_clip(c.classes(), c.label).frames[:] for c in training.corpus.validation
        ]
        assert any(np.array_equal(condition.frames[:], frames) for frames in held_out)


def test_generating_goes_through_the_labels_or_mixes_them(voices, tmp_path):
    begin(tiny(voices, *LABELS, "training.steps=60", "training.learning_rate=0.02"), tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    said = []
    by_default = trained.generate(0.05, count=3, notice=said.append)
    assert said[0] == "label: anna, carl (the default; the model knows anna, carl)"
    in_turn = trained.generate(0.05, count=3, labels=["anna", "carl"])
    np.testing.assert_array_equal(by_default, in_turn)
    np.testing.assert_array_equal(trained.generate(0.05, labels=["anna"])[0], in_turn[0])
    for of_all in ("anna=0.5,carl=0.5", {"anna": 0.5, "carl": 0.5}):
        both = trained.generate(0.05, count=2, labels=of_all)
        np.testing.assert_array_equal(both, trained.generate(0.05, count=2, labels=[of_all]))
    mixed = trained.generate(0.05, count=2, labels=["anna=0.5,carl=0.5", {"carl": 2.0}])
    assert not np.array_equal(mixed[0], in_turn[0])
    np.testing.assert_array_equal(mixed[1], in_turn[1])
    with pytest.raises(UsageError, match="no such label 'dora'; this model knows anna, carl"):
        trained.generate(0.05, labels=["dora"])
    with pytest.raises(UsageError, match="labels: expected at most one for each clip, found 2 for 1"):
        trained.generate(0.05, labels=["anna", "carl"])


def test_frames_from_elsewhere_are_checked_and_bound_the_length(voices, tmp_path):
    begin(tiny(voices, *MEL), tmp_path / "run").fit()
    trained = load(tmp_path / "run", "cpu")
    recording = trained.load_clip(voices / "anna" / "0.wav")
    frames = trained.mel_spectrogram(recording)[:]
    np.save(tmp_path / "frames.npy", frames)
    expected = trained.generate(mel=trained.mel_spectrogram(recording))
    assert expected.shape == (1, 2000)
    np.testing.assert_array_equal(trained.generate(mel=frames), expected)
    np.testing.assert_array_equal(trained.generate(mel=trained.load_mel(tmp_path / "frames.npy")), expected)
    np.testing.assert_array_equal(trained.generate(0.1, mel=frames)[0], expected[0, :400])
    assert trained.generate(mel=trained.mel_spectrogram(recording[:1990])).shape == (1, 1990)
    assert trained.generate(mel=trained.mel_spectrogram(recording[:1990])[:].tolist()).shape == (1, 2000)
    with pytest.raises(UsageError, match=r"seconds: expected at most 0\.5 s, as the mel frames go, found 0\.6"):
        trained.generate(0.6, mel=frames)
    with pytest.raises(UsageError, match=r"mel: expected mel frames \(F, 6\), found \(6, 50\); transpose them"):
        trained.generate(mel=frames.T)
    with pytest.raises(UsageError, match=r"^mel: expected mel frames, which this model makes sound of, found none$"):
        trained.generate(0.1)


@pytest.mark.parametrize("keys", [LABELS, LABELS + MEL, FEATURES], ids=["labels", "both", "features"])
def test_minutes_are_measured_under_conditions(voices, tmp_path, keys):
    config = load_config("small", [f"data.folder={voices}", *TINY[:-4], *keys, "training.minutes=0.5"])
    training = begin(config, tmp_path / "run")
    assert training.plan.steps > 1
    assert len(task_type(training.config).read_corpus(training.config).clips) == 12


def test_memory_counts_what_conditions_add():
    sizes = []
    for keys in ([], LABELS, ["mel.n_mels=80"], ["mel.n_mels=80", "mel.upsampling=200"]):
        config = load_config("paper", [*keys, "training.threads=1"])
        sizes.append(training_bytes(config, resolve_compute(config, torch.device("cpu"))))
    assert sizes == sorted(sizes)
    assert sizes[1] < 1.01 * sizes[0]
    assert sizes[3] > 2 * sizes[0], "a row for each sample takes its room"


# --- shown -------------------------------------------------------------------------------------------------------


def shown(path):
    inspection = inspect_path(str(path))
    console = io.StringIO()
    print_tables(tables_of(inspection), console)
    return as_dict(inspection), " ".join(console.getvalue().split())


def test_inspect_and_the_plan_show_labels_and_spectrograms(voices, tmp_path):
    training = begin(tiny(voices, *LABELS, *MEL), tmp_path / "run")
    training.fit()
    facts, text = shown(tmp_path / "run")
    assert facts["config"]["data"]["label_names"] == ["anna", "carl"]
    assert facts["config"]["mel"]["n_mels"] == 6
    assert "labels 2: anna, carl" in text
    assert "6 bands, 100 frames a second of 40 samples, 4 learned steps in each" in text
    _, text = shown("speakers")
    assert "labels the sub-folders of the recordings" in text
    _, text = shown(RunFolder(tmp_path / "run").best_checkpoint)
    assert "labels 2: anna, carl" in text
    console = io.StringIO()
    run = training.run.path
    print_tables(plan_tables(training.plan, training.corpus, torch.device("cpu"), run), console)
    said = " ".join(console.getvalue().split())
    assert "labels 2: anna, carl" in said
    assert "6 bands, 100 frames a second of 40 samples, 4 learned steps in each" in said


def test_a_page_has_samples_under_conditions(voices, tmp_path):
    for keys, origin in (
        (LABELS, "Generated from silence as anna by best.safetensors"),
        (LABELS + MEL, "Generated from silence of the mel frames of "),
        (FEATURES, "Generated from silence of the features of "),
    ):
        run = tmp_path / f"run of {len(keys)}"
        begin(tiny(voices, *keys), run).fit()
        sounds, sentence = generate_samples(run, [0.7, 1.0], 0.1, lambda done, total: None)
        assert sentence.startswith(origin)
        assert [sound.waveform.shape for sound in sounds] == [(400,)] * 2
    shutil.rmtree(voices)
    sounds, sentence = generate_samples(run, [1.0], 0.1, lambda done, total: None)
    assert not sounds
    assert sentence.startswith("This model makes sound of features, and there is no recording to take them of:")
