import difflib
import re
import string
from pathlib import Path

import pytest

from mixtures import MIXTURE_KINDS
from wavegen.audio.waveform import Preparation, build_preparation
from wavegen.config import (
    DEFAULT_PRESET,
    MOVED_KEYS,
    Config,
    apply_overrides,
    differences,
    load_config,
    override,
    parse_config,
    parse_frozen,
    preset_names,
    presets_folder,
    validate,
)
from wavegen.config.schema import ModelConfig
from wavegen.config.yaml_source import parse_yaml
from wavegen.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    ModelError,
    TrainingError,
    UsageError,
    WavegenError,
)

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
DUMPED = {section: list(values) for section, values in Config().model_dump().items()}
KEYS = {**DUMPED, "model": list(ModelConfig.model_fields)}


def read(text, *overrides):
    return validate(apply_overrides(parse_yaml(text, "my.yaml"), overrides))


def problems(text, *overrides):
    with pytest.raises(ConfigError) as caught:
        read(text, *overrides)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


# --- what is wrong, where, what was expected, what was found -----------------------------------------------------


def test_every_problem_is_reported_at_once_in_the_documents_order():
    text = """\
# a comment moves the lines
model:
  dilation_cycle: ten
  residual_channels: 0
  input: spectrogram
trainign:
  steps: 5
audio:
  sample_rate_hz: 16000.5
  trim_db: [20]
data:
  validation: 0.7
"""
    assert problems(text) == [
        "my.yaml:3: model.dilation_cycle: expected a whole number from 1 to 20 "
        "or a list of 1 or more, each a whole number, 1 or more, up to 1048576, found 'ten'",
        "my.yaml:4: model.residual_channels: expected a whole number from 1 to 4096, found 0",
        "my.yaml:5: model.input: expected one of embedding, one_hot, scalar, found 'spectrogram'",
        "my.yaml:6: trainign: unknown key; did you mean 'training'?",
        "my.yaml:9: audio.sample_rate_hz: expected a whole number from 1000 to 192000, found 16000.5",
        "my.yaml:10: audio.trim_db: expected a number above 0 and at most 120 or null, found [20]",
        "my.yaml:12: data.validation: expected a number from 0 to 0.5 or text, found 0.7",
    ]


@pytest.mark.parametrize(
    ("line", "expected", "found"),
    [
        ("model.kind: transformer", "one of wavenet, stack", "'transformer'"),
        ("model.cycles: two", "a whole number from 1 to 20", "'two'"),
        ("model.cycles: 2.0", "a whole number from 1 to 20", "2.0"),
        ("model.cycles: true", "a whole number from 1 to 20", "true"),
        ("model.cycles: null", "a whole number from 1 to 20", "null"),
        ("model.cycles: {a: 1}", "a whole number from 1 to 20", "{'a': 1}"),
        ("model.kernel_size: 1", "a whole number from 2 to 64", "1"),
        ("quantization.classes: 65537", "a whole number from 2 to 65536", "65537"),
        ("training.learning_rate: 1e400", "a number above 0 and at most 1", "inf"),
        ("training.ema_decay: 1.0", "a number 0 or more and below 1", "1.0"),
        ("training.gradient_clip: .nan", "a number above 0 or null", "nan"),
        ("training.threads: many", "auto or a whole number from 1 to 1024", "'many'"),
        ("training.steps: -3", "a whole number, 1 or more, up to 1000000000 or null", "-3"),
    ],
)
def test_the_error_of_a_wrong_value_has_the_expected_and_the_found_one(line, expected, found):
    key, value = line.split(": ", 1)
    section, name = key.split(".")
    assert problems(f"{section}:\n  {name}: {value}\n") == [f"my.yaml:2: {key}: expected {expected}, found {found}"]


def test_a_section_that_is_taken_for_a_key_is_named():
    (problem,) = problems("model:\n  output: laplace\n")
    assert problem == "my.yaml:2: model.output: unknown key; 'output' is a section, of kind, components, error, horizon"


def test_16_bits_are_linear_classes_of_a_mixture_from_a_scalar():
    text = "quantization:\n  classes: 65536\n  kind: linear\noutput:\n  kind: {}\nmodel:\n  input: {}\n"
    for kind in MIXTURE_KINDS:
        assert read(text.format(kind, "scalar")).output.components == 10
    assert problems("quantization:\n  kind: mu_law\n  classes: 65536\nmodel:\n  input: embedding\n") == [
        "my.yaml:2: quantization.kind: expected linear with 65536 classes, found 'mu_law', whose steps near silence "
        "would be finer than recordings are",
        "my.yaml:3: quantization.classes: expected 4096 at most with output.kind softmax, found 65536; for more "
        f"classes set output.kind to {' or '.join(MIXTURE_KINDS)}",
        "my.yaml:5: model.input: expected scalar with 65536 classes, found 'embedding'",
    ]
    assert len(problems("quantization:\n  classes: 65536\n")) == 3  # of keys with their defaults too
    (problem,) = problems(text.format("gaussian_mixture", "one_hot"))
    assert problem.startswith("my.yaml:7: model.input: expected scalar with 65536 classes, found 'one_hot'")
    (problem,) = problems("output:\n  components: 0\n")
    assert problem == "my.yaml:2: output.components: expected a whole number from 1 to 100, found 0"


def test_a_list_with_one_wrong_item_is_one_problem():
    (problem,) = problems("model:\n  dilation_cycle: [1, 2, x, -4, 0]\n")
    assert problem.startswith("my.yaml:2: model.dilation_cycle: expected ")
    assert problem.endswith("found [1, 2, 'x', -4, 0]")


def test_a_long_value_is_shortened_in_the_error():
    (problem,) = problems("model:\n  input: " + "x" * 10_000)
    assert len(problem) < 200


def test_a_section_with_all_keys_commented_out_is_empty():
    assert read("model:\n#  cycles: 3\n") == Config()


@pytest.mark.parametrize("value", ["5", "text", "[1]"])
def test_a_section_that_is_no_section(value):
    (problem,) = problems(f"audio:\n  level: keep\nmodel: {value}\n")
    assert problem.startswith("my.yaml:3: model: expected a section of keys, found ")


def test_a_key_given_twice_hides_no_other_problem():
    assert problems("model:\n  cycles: 2\n  cycles: 3\n  imput: scalar\n") == [
        "my.yaml:3: model.cycles: this key was already given; remove one",
        "my.yaml:4: model.imput: unknown key; did you mean 'input'?",
    ]


# --- the nearest known key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in KEYS.items() for key in keys])
def test_a_key_with_a_letter_missing_is_recognized(section, key):
    typo = key[: len(key) // 2] + key[len(key) // 2 + 1 :]
    assert problems(f"{section}:\n  {typo}: 1\n") == [
        f"my.yaml:2: {section}.{typo}: unknown key; did you mean '{key}'?"
    ]


@pytest.mark.parametrize("section", KEYS)
def test_a_section_with_a_letter_missing_is_recognized(section):
    typo = section[:1] + section[2:]
    assert problems(f"{typo}:\n  x: 1\n") == [f"my.yaml:1: {typo}: unknown key; did you mean '{section}'?"]


@pytest.mark.parametrize("place", [None, *KEYS])
def test_the_error_of_a_misplaced_key_names_its_section(place):
    misled = []
    for key in sorted({key for keys in KEYS.values() for key in keys} - set(KEYS.get(place, ()))):
        if (place, key) in MOVED_KEYS:  # was there, and is read
            continue
        (problem,) = problems(f"{place}:\n  {key}: 1\n" if place else f"{key}: 1\n")
        homes = [section for section in KEYS if key in KEYS[section]]
        if not any(f"did you mean '{key}' of the section '{home}'?" in problem for home in homes):
            misled.append(problem)
    assert not misled


def test_the_error_of_an_unknown_key_lists_the_known_ones():
    assert problems("output:\n  zzzzzz: 1\n") == [
        "my.yaml:2: output.zzzzzz: unknown key; known here: kind, components, error, horizon"
    ]


# --- overrides ---------------------------------------------------------------------------------------------------


def test_overrides_replace_single_values():
    config = read(
        "model:\n  cycles: 3\n  kernel_size: 3\n",
        "model.cycles=5",
        "model.dilation_cycle=[1, 3]",
        "training.learning_rate=1e-3",
        "audio.trim_db=null",
        "data.folder=my recordings=old",
        "model.cycles=6",
    )
    assert config.model.cycles == 6
    assert config.model.kernel_size == 3
    assert config.model.dilations == [1, 3] * 6
    assert config.training.learning_rate == 0.001
    assert config.audio.trim_db is None
    assert config.data.folder == "my recordings=old"


def test_paths_of_recordings_are_relative_to_the_file_that_names_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "conf").mkdir()
    text = tmp_path / "conf" / "my.yaml"
    for given, expected in (
        ("rec", "conf/rec"),
        ("../rec", "conf/../rec"),
        ("/a/rec", "/a/rec"),
        ("~/rec", "home/rec"),
        ("[a.wav, ~/b, /c]", ["conf/a.wav", "home/b", "/c"]),
    ):
        text.write_text(f"data: {{folder: {given}}}\n")
        paths = [str(tmp_path / each) for each in ([expected] if isinstance(expected, str) else expected)]
        assert load_config(text).data.sources == paths
    monkeypatch.chdir(tmp_path)
    config = load_config(text, ["data.folder=here"])
    assert config.data.folder == str(tmp_path / "here")
    assert override(config, ["data.folder=~/there"]).data.folder == str(tmp_path / "home" / "there")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config("~/conf/my.yaml") == load_config(text)


def test_a_wrong_override_is_located_at_the_override_and_hides_nothing():
    found = problems("model:\n  cycles: 0\n  input: scalar\n", "model.input=tensor", "model.head_chanels=4")
    assert found == [
        "my.yaml:2: model.cycles: expected a whole number from 1 to 20, found 0",
        "--set model.input=tensor: model.input: expected one of embedding, one_hot, scalar, found 'tensor'",
        "--set model.head_chanels=4: model.head_chanels: unknown key; did you mean 'head_channels'?",
    ]


def test_an_override_reaches_into_a_section_with_all_keys_commented_out():
    assert read("model:\n#  cycles: 3\n", "model.cycles=4").model.cycles == 4
    (problem,) = problems("model:\n#  cycles: 3\n", "model.cycels=4")
    assert problem.startswith("--set model.cycels=4: model.cycels: unknown key")


@pytest.mark.parametrize("value", ["[wavenet]", "{wavenet: 1}"])
def test_a_kind_that_is_no_name_is_a_problem_like_others(value):
    (problem,) = problems("", f"model.kind={value}")
    assert problem.startswith(f"--set model.kind={value}: model.kind: expected one of wavenet, stack")


@pytest.mark.parametrize("override", ["", "model", "cycles=3", "model.cycles", "model.=3", ".cycles=3", "a.b.c=1"])
def test_an_override_that_is_no_override(override):
    assert problems("", override) == [
        f"--set {override}: expected section.key=value, such as model.residual_channels=64"
    ]


def test_several_wrong_overrides_are_reported_at_once():
    assert len(problems("", "cycles=3", "model.cycles", "model.cycles=[1, 2")) == 3


@pytest.mark.parametrize("value", ["[1, 2", "{a: 1", "*x", "!!python/name:os.system", "'a", "a: b: c", "[" * 5000])
def test_an_override_that_is_no_yaml(value):
    (problem,) = problems("", f"model.cycles={value}")
    assert problem.startswith(f"--set model.cycles={value}: ") or problem.startswith(f"--set model.cycles={value}:1: ")


@pytest.mark.parametrize(
    ("text", "override", "steps", "minutes"),
    [
        ("training: {steps: 100}", "training.minutes=5", None, 5),
        ("training: {minutes: 10}", "training.steps=50", 50, None),
        ("training: {minutes: 10}", "training.minutes=5", None, 5),
        ("", "training.minutes=0.5", None, 0.5),
        ("", "training.batch_size=4", 20000, None),
        ("training: {steps: 100}", "training.minutes=null", 100, None),
        ("training: {minutes: 10}", "training.steps=null", None, 10),
    ],
)
def test_an_overridden_length_replaces_the_documents_other_one(text, override, steps, minutes):
    training = read(text, override).training
    assert (training.steps, training.minutes) == (steps, minutes)


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("training: {steps: 100, minutes: 5}", []),
        ("training: {steps: 100, minutes: 5}", ["training.batch_size=4"]),
        ("", ["training.steps=100", "training.minutes=5"]),
        ("", ["training.minutes=5", "training.steps=100"]),
        ("training: {minutes: 9}", ["training.minutes=5", "training.steps=100"]),
        ("training: {steps: 9, minutes: 9}", ["training.steps=100", "training.minutes=5"]),
    ],
)
def test_steps_and_minutes_can_both_be_given(text, overrides):
    training = read(text, *overrides).training
    assert (training.steps, training.minutes) == (100, 5)


# --- keys that came later ----------------------------------------------------------------------------------------


def test_recordings_are_prepared_unless_configured_otherwise():
    audio = read("").audio
    assert (audio.remove_dc, audio.trim_db, audio.pause_seconds, audio.level, audio.max_gain_db) == (
        *(True, 40.0, 0.3),
        *("peak", 30.0),
    )
    assert (read("").data.following, read("").data.beginnings, read("").data.quiet_weight) == (0.75, 0.1, 0.4)
    assert load_config("small").audio == audio
    off = "audio: {remove_dc: false, trim_db: null, pause_seconds: null, level: keep, max_gain_db: null}"
    assert build_preparation(read(off)) == Preparation(16000)
    assert build_preparation(read("")) == Preparation(16000, True, 40.0, 0.3, "peak", 30.0)


def test_clips_with_features_are_never_cut_and_keys_that_do_not_fit_them_are_named():
    assert build_preparation(read("features: {columns: auto}")) == Preparation(16000, True, None, None, "peak", 30.0)
    assert read("{}").frames is None
    assert read("features: {columns: 3, hop: 100}").frames.width == 3
    for text, expected in [
        ("features: {columns: 2}\nmel: {n_mels: 8}", "features.columns: expected null with mel.n_mels 8: a model has"),
        ("features: {columns: 2, mean: [1.0]}", "features.mean: expected a number for each of 2 columns, found 1"),
        ("features: {columns: 2, scale: [1.0, 0.0]}", "features.scale: expected auto or a list of 1 or more"),
        (
            "features: {columns: 2}\nmodel: {kind: stack, layers: [{kind: gru, channels: 4}]}",
            "features.columns: expected",
        ),
        ("features: {hop: 0}", "features.hop: expected auto or a whole number"),
    ]:
        assert expected in " ".join(problems(text)), problems(text)


def test_clips_with_mel_spectrograms_are_never_cut():
    assert build_preparation(read("mel: {n_mels: 80}")) == Preparation(16000, True, None, None, "peak", 30.0)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("audio.pause_seconds", "0"),
        ("audio.max_gain_db", "-1"),
        ("audio.remove_dc", "maybe"),
        ("audio.level", "loud"),
        ("data.following", "1"),
        ("data.following", "-0.1"),
        ("data.beginnings", "1.5"),
        ("data.quiet_weight", "0"),
        ("data.quiet_weight", "1.5"),
    ],
)
def test_preparation_and_following_have_ranges(keys, value):
    (problem,) = problems("", f"{keys}={value}")
    assert problem.startswith(f"--set {keys}={value}: {keys}: expected ")


def test_the_temperature_is_below_1_where_quiet_windows_were_seen_less_often():
    assert read("").temperature == 0.99
    assert read("data: {quiet_weight: 1.0}").temperature == read("mel: {n_mels: 80}").temperature == 1
    assert load_config("music").temperature == 1


def test_a_frozen_configuration_without_newer_keys_means_what_training_did_before():
    config = parse_frozen("audio: {sample_rate_hz: 8000}\nmodel: {cycles: 1}\n", "old")
    assert build_preparation(config) == Preparation(8000)
    assert (config.data.following, config.data.beginnings, config.data.quiet_weight) == (0, 0, 1)
    newer = parse_frozen("data: {following: 0.75, beginnings: 0.1}", "old").data
    assert (newer.beginnings, newer.quiet_weight) == (0.1, 1)
    assert config.temperature == 1
    assert parse_frozen("", "old").audio.level == "keep"


def test_a_frozen_configuration_keeps_the_values_that_it_has():
    old = "audio: {trim_db: 60.0, level: rms}\ndata: {labels: subfolders}\n"
    config = parse_frozen(old, "old")
    assert build_preparation(config) == Preparation(16000, trim_db=60.0, level="rms")
    assert config.data.labels == "subfolders"
    for each in (read(""), read("audio: {level: keep}\ndata: {following: 0.1}")):
        assert parse_frozen(each.to_yaml(), "new") == each


def test_a_frozen_configuration_is_validated():
    with pytest.raises(ConfigError, match=r"old:1: audio\.level: expected .*, found 'loud'"):
        parse_frozen("audio: {level: loud}", "old")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "n_mels: 80, hop_length: 200, upsampling: 7",
            "my.yaml:1: mel.upsampling: expected a divisor of mel.hop_length 200, found 7",
        ),
        (
            "n_mels: 80, hop_length: 2000, n_fft: 1024",
            "my.yaml:1: mel.hop_length: expected at most mel.n_fft, 1024, found 2000",
        ),
        (
            "n_mels: 80, f_max: 9000",
            "my.yaml:1: mel.f_max: expected half of audio.sample_rate_hz, 8000, or less, found 9000.0",
        ),
        (
            "n_mels: 80, f_min: 8000",
            "my.yaml:1: mel.f_min: expected less than the highest frequency, 8000, found 8000.0",
        ),
    ],
)
def test_spectrograms_that_cannot_be_are_refused(lines, expected):
    assert problems(f"mel: {{{lines}}}") == [expected]
    assert read(f"mel: {{{lines.replace('n_mels: 80', 'n_mels: null')}}}"), "nothing is wrong with what is not used"


def test_frames_have_a_middle():
    (problem,) = problems("mel: {n_mels: 80, n_fft: 1023}")
    assert problem.startswith("my.yaml:1: mel.n_fft: expected an even number more than mel.hop_length, 200")


def test_each_label_is_named_once():
    (problem,) = problems("data: {labels: subfolders, label_names: [b, a, b]}")
    assert problem == "my.yaml:1: data.label_names: expected each name once, found 'b' again"


def test_what_was_frozen_fills_what_is_open():
    frozen = read("", "training.threads=3", "data.label_names=[b, a]", "data.folder=here")
    given = read("", "training.threads=auto", "data.folder=auto")
    filled = given.as_frozen(frozen)
    assert (filled.training.threads, filled.data.label_names, filled.data.folder) == (3, ["b", "a"], "auto")
    assert read("", "data.label_names=[c]").as_frozen(frozen).data.label_names == ["c"]


# --- round trips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.dilation_cycle=[1, 2, 5]", "data.validation=held_out.txt", "training.minutes=2.5"),
        ("training.learning_rate=1e-7", "training.gradient_clip=null", "audio.trim_db=30"),
        ("training.gradient_clip=.inf", "training.threads=3", "training.seed=9223372036854775807"),
        *((f'data.folder="{name}"',) for name in ("caf\\u00e9", "\\U0001F3B5 songs", "on", "1e-3", "a: b #c", "~")),
    ],
    ids=str,
)
def test_a_configuration_written_and_read_again_is_the_same(overrides, tmp_path):
    config = read("", *overrides)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert validate(parse_yaml(path)) == config  # load_config makes a relative path of recordings absolute


def test_the_written_configuration_lists_every_key():
    assert {section: list(values) for section, values in parse_yaml(Config().to_yaml()).tree.items()} == DUMPED


def test_an_empty_document_is_the_default_configuration():
    assert read("") == Config() == read("# nothing but words\n")
    assert Config().training.steps == 20000


def test_with_values_changes_a_copy_and_checks_it():
    config = Config()
    changed = config.with_values("training", steps=5, precision="float32")
    assert differences(config, changed) == [
        "training.steps: 20000 -> 5",
        "training.precision: auto -> float32",
    ]
    with pytest.raises(ConfigError, match=r"the configuration: training\.steps: expected a whole number.*found -5"):
        config.with_values("training", steps=-5)


@pytest.mark.parametrize(("cycle", "dilations"), [(4, [1, 2, 4, 8] * 2), ([1, 3, 3], [1, 3, 3, 1, 3, 3])])
def test_the_dilation_cycle_repeats(cycle, dilations):
    assert read(f"model: {{cycles: 2, dilation_cycle: {cycle}}}").model.dilations == dilations


# --- presets and files -------------------------------------------------------------------------------------------


def test_the_presets_are_the_shipped_files():
    assert preset_names() == [path.stem for path in SHIPPED]
    assert DEFAULT_PRESET in preset_names()
    assert load_config() == load_config(presets_folder() / f"{DEFAULT_PRESET}.yaml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_builds(path):
    from wavegen.model.building import build_model

    config = load_config(path)
    listed = {section: set(keys) for section, keys in parse_yaml(path).tree.items()}
    assert all(keys <= set(KEYS[section]) for section, keys in listed.items())
    model = build_model(config)
    if config.model.kind == "wavenet":
        assert model.receptive_field == 1 + (config.model.kernel_size - 1) * sum(config.model.dilations)
    assert parse_config(config.to_yaml(), "again") == config


def test_an_unknown_preset_suggests_the_nearest(tmp_path, monkeypatch):
    for name in ("small", "paper", "demo"):
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr("wavegen.config.presets_folder", lambda: tmp_path)
    with pytest.raises(UsageError) as caught:
        load_config("papr")
    assert str(caught.value) == ("papr: no such file, and no such preset (demo, paper, small); did you mean 'paper'?")
    with pytest.raises(UsageError, match=r"no such preset \(demo, paper, small\)$"):
        load_config("configs/elsewhere/zzz.yaml")


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(UsageError, match=r": expected a YAML file or a preset, found a folder$"):
        load_config(tmp_path)


def test_a_file_is_named_in_its_errors(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("model:\n  cycels: 3\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}:2: model.cycels: unknown key"):
        load_config(path)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (WavegenError, 1),
        (AudioError, 1),
        (DataError, 1),
        (CheckpointError, 1),
        (ModelError, 1),
        (TrainingError, 1),
        (UsageError, 2),
        (ConfigError, 2),
    ],
)
def test_exit_codes(kind, exit_code):
    error = kind(["a problem"]) if kind is ConfigError else kind("a problem")
    assert isinstance(error, WavegenError)
    assert error.exit_code == exit_code
    assert str(error) == "a problem"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"key_{i}: 1\n" for i in range(2_000)),
        "model:\n" + "".join(f"  key_{i}: 1\n" for i in range(2_000)),
        "model:\n" + "".join(f"  {a}{b}{c}annels: 1\n" for a in string.ascii_lowercase for b in "ach" for c in "ch"),
        "model:\n  dilation_cycle: [" + "x," * 5_000 + "]\n",
        "training:\n  steps: " + "9" * 200_000,
    ],
    ids=["sections", "keys", "near misses", "list items", "digits"],
)
def test_a_document_full_of_mistakes_is_answered_in_few_lines_and_comparisons(text, monkeypatch):
    """A search for the nearest key is what takes long."""
    find, searches = difflib.get_close_matches, []

    def count(*arguments, **options):
        searches.append(arguments)
        return find(*arguments, **options)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    found = problems(text)
    assert len(found) <= 50
    assert max(map(len, found)) < 400
    assert len(searches) <= 2 * len(found)


# --- kinds of model ----------------------------------------------------------------------------------------------


def test_a_configuration_has_the_keys_of_its_kind_alone():
    config = read("model: {kind: stack, layers: [{kind: gru, channels: 7}]}")
    assert config.to_yaml().split("model:\n")[1].split("output:")[0] == (
        "  kind: stack\n  input: embedding\n  embedding_channels: 32\n  layers:\n  - kind: gru\n    channels: 7\n"
        "  context: 512\n  output_layer: true\n"
    )
    assert parse_config(config.to_yaml(), "again") == config


@pytest.mark.parametrize(
    ("kind", "key", "owners"),
    [
        ("stack", "layers: [{kind: max_pool}]\n  cycles: 2", "wavenet"),
        ("wavenet", "context: 7", "stack"),
        ("wavenet", "layers: []", "stack"),
    ],
)
def test_a_key_of_another_kind_is_refused(kind, key, owners):
    name, line = key.split("\n  ")[-1].split(":")[0], 3 + key.count("\n")
    assert problems(f"model:\n  kind: {kind}\n  {key}\n") == [
        f"my.yaml:{line}: model.{name}: this is no key of model.kind {kind}, but of {owners}; remove it"
    ]


def test_another_kind_by_set_leaves_the_keys_of_the_old_one_behind():
    config = load_config("paper", ["model.kind=stack", "model.layers=[{kind: lstm, channels: 4}]", "model.context=9"])
    assert (config.model.kind, config.model.context) == ("stack", 9)
    assert "cycles" not in config.model_dump()["model"]


def test_recurrent_networks_in_the_keys_of_earlier_versions_are_stacks():
    found = read(
        "model:\n  kind: lstm\n  recurrent_channels: 6\n  recurrent_layers: 2\n  context: 9\n  input: scalar\n"
    )
    layers = "[{kind: lstm, channels: 6}, {kind: lstm, channels: 6}]"
    assert found == read(f"model: {{kind: stack, layers: {layers}, context: 9, input: scalar}}")
    assert load_config("rnn", ["model.kind=lstm"]).model.layers[0].kind == "lstm"
    assert load_config("small", ["model.kind=gru", "model.recurrent_channels=3"]).model.layers[0].channels == 3


@pytest.mark.parametrize("key", ["layers: [{kind: max_pool}]", "recurrent_layers: two", "recurrent_layers: 0"])
def test_what_no_earlier_version_had_is_refused_with_the_line_to_write(key):
    assert problems(f"model:\n  kind: gru\n  {key}\n") == [
        "my.yaml:2: model.kind: expected wavenet or stack, found 'gru'; write kind: stack and layers: [{kind: gru, "
        "channels: 256}]"
    ]


def test_the_width_of_a_recurrent_network_of_an_earlier_version_is_checked_as_a_layers():
    (problem,) = problems("model: {kind: gru, recurrent_channels: 0}")
    assert problem.startswith("my.yaml:1: model.layers.0.channels: expected a whole number from 1 to 8192")


def test_steps_that_fill_a_state_need_a_layer_that_has_one():
    (problem,) = problems("model:\n  kind: stack\n  layers: [{kind: max_pool}]\n  context: 9\n")
    assert problem == "my.yaml:4: model.context: expected a layer of kind rnn, gru, lstm with it, found none; remove it"


def test_the_keys_that_kinds_differ_in_are_differences():
    lines = differences(
        load_config("small"), load_config("small", ["model.kind=stack", "model.layers=[{kind: max_pool}]"])
    )
    assert "model.kind: wavenet -> stack" in lines
    assert "model.embedding_channels: not there -> 32" in lines


CONV, POOL, DENSE = "{kind: conv, channels: 6, name: a}", "{kind: max_pool}", "{kind: dense, channels: 4}"


@pytest.mark.parametrize(
    ("layers", "lines"),
    [
        ((CONV, POOL, DENSE), []),
        ((CONV, POOL, "{kind: dense, channels: 5}"), [f"model.layers.2: {DENSE} -> {{kind: dense, channels: 5}}"]),
        ((CONV, DENSE), [f"model.layers.1: {POOL} -> not there"]),
        ((CONV, POOL, "{kind: add, source: a}", DENSE), ["model.layers.2: not there -> {kind: add, source: a}"]),
    ],
)
def test_of_a_stack_the_layers_that_differ_are_differences(layers, lines):
    def stack(*those):
        return load_config("small", ["model.kind=stack", f"model.layers=[{', '.join(those)}]"])

    assert differences(stack(CONV, POOL, DENSE), stack(*layers)) == lines


def test_a_stack_has_layers():
    assert problems("model:\n  kind: stack\n") == [
        "my.yaml:1: model.layers: expected one layer or more with model.kind stack, found none; see dense-skips"
    ]


@pytest.mark.parametrize("text", ["data: {labels: subfolders}", "mel: {n_mels: 80}"])
def test_other_kinds_take_no_conditions(text):
    (problem,) = problems(f"model: {{kind: stack, layers: [{{kind: max_pool}}]}}\n{text}\n")
    assert "with model.kind stack, which takes no conditions, found" in problem


@pytest.mark.parametrize("text", ["backend: fused", "activation_checkpointing: true"])
def test_what_is_made_for_wavenets_is_refused_elsewhere(text):
    (problem,) = problems(f"model: {{kind: stack, layers: [{{kind: max_pool}}]}}\ntraining: {{{text}}}\n")
    assert problem.startswith("my.yaml:2: training.")
    assert "with model.kind stack" in problem


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ("{kind: conv}", "channels: expected a whole number, as conv needs, found none"),
        (
            "{kind: conve, channels: 3}",
            "kind: expected one of conv, dense, rnn, gru, lstm, average_pool, max_pool, concatenate, add, ",
        ),
        ("{kind: conv, channels: 3, dilatoin: 2}", "dilatoin: unknown key; did you mean 'dilation'?"),
        ("{kind: conv, channels: 0}", "channels: expected a whole number from 1 to 8192 or null, found 0"),
        ("{kind: dense, channels: 3, dilation: 2}", "dilation: dense has no such key; remove it"),
        ("{kind: max_pool, activation: relu}", "activation: max_pool has no such key; remove it"),
        ("{kind: conv, channels: 3, source: a}", "source: conv has no such key; remove it"),
        ("{kind: lstm}", "channels: expected a whole number, as lstm needs, found none"),
        ("{kind: gru, channels: 3, activation: relu}", "activation: gru has no such key; remove it"),
        ("{kind: rnn, channels: 3, dilation: 2}", "dilation: rnn has no such key; remove it"),
        ("{kind: gru, channels: 3, layer_norm: true}", "layer_norm: gru has no such key; remove it"),
        ("{kind: add, source: b}", "source: expected the name of a layer below (input, a), found 'b'"),
        ("{kind: concatenate}", "source: expected the name of a layer below (input, a), found none"),
        ("{kind: add, source: input}", "source: expected a layer of 6 channels, as the layer below has, found 'input'"),
        ("{kind: dense, channels: 3, name: a}", "name: expected another name than those below, found 'a' again"),
    ],
)
def test_a_wrong_layer_is_named_with_its_line(layer, problem):
    text = f"model:\n  kind: stack\n  layers:\n    - {{kind: conv, channels: 6, name: a}}\n    - {layer}\n"
    (found,) = problems(text)
    assert found.startswith(f"my.yaml:5: model.layers.1.{problem}")
