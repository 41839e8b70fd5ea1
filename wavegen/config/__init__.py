"""The YAML configuration: its schema, presets, overrides, and errors that name file, line, key and remedy."""

from wavegen.config.loading import (
    Config,
    apply_overrides,
    differences,
    json_schema,
    load_config,
    override,
    parse_config,
    parse_frozen,
    validate,
)
from wavegen.config.schema import DataConfig, LayerConfig, ModelConfig, TrainingConfig
from wavegen.config.yaml_source import DEFAULT_PRESET, preset_names, preset_summaries, preset_text, presets_folder

__all__ = [
    "DEFAULT_PRESET",
    "Config",
    "DataConfig",
    "LayerConfig",
    "ModelConfig",
    "TrainingConfig",
    "apply_overrides",
    "differences",
    "json_schema",
    "load_config",
    "override",
    "parse_config",
    "parse_frozen",
    "preset_names",
    "preset_summaries",
    "preset_text",
    "presets_folder",
    "validate",
]
