"""The YAML configuration: its schema, presets, overrides, and errors that name file, line, key and remedy."""

from wavegen.config.loading import (
    DEFAULT_PRESET,
    LONG_EVENTS_OVERRIDES,
    LONG_EVENTS_PRESET,
    Config,
    all_preset_names,
    differences,
    json_schema,
    load_config,
    override,
    parse_config,
    parse_frozen,
    preset_names,
    preset_summaries,
    preset_text,
    presets_folder,
)

__all__ = [
    "DEFAULT_PRESET",
    "LONG_EVENTS_OVERRIDES",
    "LONG_EVENTS_PRESET",
    "Config",
    "all_preset_names",
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
]
