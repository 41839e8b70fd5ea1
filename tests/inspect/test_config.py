"""Configurations and presets."""

import pytest
import torch

from inspections import inspected
from wavegen.config import load_config, preset_names, preset_text
from wavegen.errors import ConfigError
from wavegen.inspect import inspect_path
from wavegen.model.building import build_model


def test_config_file_is_resolved_and_built(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        "audio: {sample_rate_hz: 8000}\n"
        "model: {cycles: 2, dilation_cycle: [1, 2, 4], kernel_size: 3, residual_channels: 8}\n"
        "training: {steps: 9000, batch_size: 4, window_targets: 1000}\n"
    )
    facts, text = inspected(file, "config")
    config = load_config(file)
    model = build_model(config)
    assert facts["config"] == config.model_dump()
    network = facts["network"]
    assert network["parameters"] == model.n_parameters
    assert network["multiply_adds_per_sample"] == model.multiply_adds
    assert [layer["dilation"] for layer in network["layers"]] == [1, 2, 4, 1, 2, 4]
    assert network["receptive_field_samples"] == 1 + 2 * 2 * 7
    assert network["receptive_field_ms"] == pytest.approx(29 / 8)
    training = facts["training"]
    assert training["targets_per_step"] == 4000
    assert training["audio_seconds_per_step"] == 0.5
    assert training["audio_hours_in_all"] == pytest.approx(1.25)
    assert training["memory_bytes"] > 4 * 5 * model.n_parameters
    for shown in (
        "Differs from the preset small audio.sample_rate_hz 16000 -> 8000 model.dilation_cycle 9 -> [1, 2, 4]",
        "model.dilation_cycle [1, 2, 4]",
        "audio.trim_db 40.0",
        f"{model.n_parameters:,}",
        "29 samples (3.6 ms)",
        "4,000 targets, 0.50 s of audio",
        "9,000 steps, 1:15 h of audio",
    ):
        assert shown in " ".join(text.split())


def test_a_config_is_compared_with_the_preset_that_it_is_nearest_to(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(preset_text("music"))
    facts, text = inspected(file, "config")
    assert (facts["preset"], facts["differences"]) == ("music", [])
    assert "Differs from the preset music no key" in " ".join(text.split())
    file.write_text(preset_text("music").replace("\ndata:\n", "\ndata:\n  folder: /voices\n"))
    facts, _ = inspected(file, "config")
    assert (facts["preset"], facts["differences"]) == ("music", ["data.folder: None -> /voices"])
    facts, text = inspected("music", "config")
    assert facts["preset"] is None
    assert "Differs" not in text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "kind wavenet, 18 blocks, 32 residual channels parameters"),
        ("bias: false, activation: relu", "residual channels, ReLU without a gate, no biases parameters"),
        (
            "activation: tanh, weight_norm: true, dropout: 0.05",
            "residual channels, tanh without a gate, weight norm, dropout 0.05 parameters",
        ),
    ],
)
def test_inspecting_a_config_shows_how_its_blocks_differ_from_the_papers(tmp_path, keys, words):
    path = tmp_path / "forms.yaml"
    path.write_text(f"model: {{{keys}}}")
    assert words in " ".join(inspected(path, "config")[1].split())


def test_config_with_minutes_does_not_know_its_steps(tmp_path):
    file = tmp_path / "my.yml"
    file.write_text("training: {minutes: 10}\n")
    facts, text = inspected(file, "config")
    assert facts["training"]["audio_hours_in_all"] is None
    assert facts["config"]["training"]["minutes"] == 10
    assert "10 min; the steps are measured at the start" in text


def test_a_configuration_for_cpus_is_inspected_on_a_machine_with_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    file = tmp_path / "my.yaml"
    file.write_text("training: {backend: fused}\n")
    assert inspected(file, "config")[0]["training"]["windows"] == 8


def test_every_preset_is_inspected_by_its_name(tmp_path, monkeypatch):
    """But for demo, which is the shipped model's name too."""
    monkeypatch.chdir(tmp_path)
    assert preset_names()
    for name in set(preset_names()) - {"demo"}:
        facts, text = inspected(name, "config")
        assert facts["path"] == name
        assert text.startswith(f"{name}\n")


def test_wrong_config_gives_its_errors(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("model: {cylces: 2}\n")
    with pytest.raises(ConfigError, match="did you mean 'cycles'"):
        inspect_path(str(file))
