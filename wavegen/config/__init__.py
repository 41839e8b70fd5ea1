"""The YAML configuration: its schema, presets, overrides, and errors that name file, line, key and remedy."""

from wavegen.config.loading import Config, differences, json_schema, load_config, override, parse_config, parse_frozen
from wavegen.config.schema import LayerConfig, TrainingConfig
from wavegen.config.yaml_source import DEFAULT_PRESET, preset_summaries, preset_text

__all__ = [
    "DEFAULT_PRESET",
    "Config",
    "LayerConfig",
    "TrainingConfig",
    "differences",
    "json_schema",
    "load_config",
    "override",
    "parse_config",
    "parse_frozen",
    "preset_summaries",
    "preset_text",
]
