"""The house rules: which part may use which, and that importing a part stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wavegen"
PROGRAMS = Path(__file__).parent / "programs"

# What each part may import, besides itself, errors and text. Nothing uses cli.
ALLOWED = {
    "errors": set(),
    "config": set(),
    "device": set(),
    "text": set(),
    "output_file": set(),
    "vectors": set(),
    "audio": {"config", "output_file"},
    "data": {"output_file", "config", "device", "audio"},
    "model": {"config", "vectors"},
    "sampling": {"config", "device", "vectors", "audio", "data", "model"},
    "evaluation": {"config", "device", "audio", "data", "model"},
    "series": {"output_file", "config", "audio", "data", "model", "sampling", "evaluation"},
    "runs": {"output_file", "config", "model", "sampling", "evaluation"},
    "training": {"runs", "series", "config", "device", "audio", "data", "model", "sampling", "evaluation"},
    "inspect": {"runs", "series", "config", "device", "audio", "data", "model", "evaluation", "training"},
    "report": {"inspect", "output_file", "runs", "series", "trained"}
    | {"config", "device", "audio", "data", "model", "evaluation", "training", "__version__"},
    "bench": {"config", "vectors", "device", "model", "sampling", "training"},
    "trained": {"runs", "series", "config", "device", "audio", "data", "model", "sampling", "evaluation", "training"},
    "cli": {
        "audio",
        "inspect",
        "output_file",
        "bench",
        "config",
        "device",
        "data",
        "sampling",
        "series",
        "evaluation",
        "training",
        "report",
        "runs",
        "trained",
    },
    "__main__": {"cli"},
    "__init__": {"config", "trained"},
}
LIGHT = ("wavegen", "wavegen.cli", "wavegen.errors")


def imports(module):
    """The parts of wavegen that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "wavegen" and len(parts) > 1:
                yield parts[1]


def part_of(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def import_alone(*names):
    """Import modules in this order in a new interpreter."""
    subprocess.run([sys.executable, str(PROGRAMS / "import_modules.py"), *names], check=True)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_dependencies_point_one_way(module):
    part = part_of(module)
    assert set(imports(module)) - {part, "errors", "text"} <= ALLOWED[part]


def test_no_module_imports_itself_in_a_circle():
    names = [".".join(path.with_suffix("").relative_to(PACKAGE.parent).parts) for path in MODULES]
    for first in LIGHT:
        import_alone(first)
    import_alone(*names[::-1])
