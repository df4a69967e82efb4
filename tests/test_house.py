"""The rules of the house that no reader should have to check by eye."""

import ast
import importlib.metadata
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ["passes", "converter", "targets", "runtime", "validate", "sdconv"]
"""From the ground up: a room imports its own floor and those before it."""
VIEWS = ROOT / "sdconv" / "page" / "views"
"""Gradio's components: all that they are. `gradio_app.py` alone imports them."""
HEAVY = {"torch", "diffusers", "transformers", "onnxruntime", "gradio", "tpu_mlir", "onnxscript"}


def sources(floor: str) -> Iterator[Path]:
    yield from (ROOT / floor).rglob("*.py")


def imports(path: Path, *, module_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if module_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_no_import_points_upward(floor: str) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"gradio_app", "examples", "benchmarks"}
    start_the_page = {ROOT / "sdconv" / "ui.py"}  # its whole work
    upward = {
        str(path): imports(path) & above for path in sources(floor) if path not in start_the_page
    }
    assert {path: names for path, names in upward.items() if names} == {}


@pytest.mark.parametrize("floor", FLOORS)
def test_nothing_heavy_is_imported_at_module_level(floor: str) -> None:
    found = {
        str(path): imports(path, module_level_only=True) & HEAVY
        for path in sources(floor)
        if "inside" not in path.parts  # runs in the vendor's own environment
        and not path.is_relative_to(VIEWS)
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_no_room_imports_the_views() -> None:
    views = str(VIEWS.relative_to(ROOT)).replace(os.sep, ".")
    others = [p for floor in FLOORS for p in sources(floor) if not p.is_relative_to(VIEWS)]
    assert [str(path) for path in others if views in path.read_text()] == []


def test_every_module_imports_without_any_vendor_toolchain() -> None:
    modules = [
        info.name
        for floor in FLOORS
        for info in pkgutil.walk_packages([str(ROOT / floor)], f"{floor}.")
        if ".inside" not in info.name and not info.name.startswith("sdconv.page.views")
    ]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    code += "print(*sorted(set(sys.modules) & {'torch', 'diffusers', 'gradio', 'tpu_mlir'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_starts_in_half_a_second() -> None:
    """Of processor time, which is what it takes on an idle machine."""
    command = [sys.executable, "-m", "sdconv", "--help"]
    subprocess.run(command, capture_output=True, check=True)  # compiles and caches
    seconds = []
    for _ in range(5):
        before = os.times()
        said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        after = os.times()
        spent = after.children_user - before.children_user
        seconds.append(spent + after.children_system - before.children_system)
    assert "Usage: sdconv" in said
    assert min(seconds) < 0.5


def test_no_other_distribution_claims_our_package_names() -> None:
    owners = importlib.metadata.packages_distributions()
    # An editable install lists no packages; then nobody may own the name.
    claimed = {name: set(owners.get(name, [])) - {"sdconv"} for name in [*FLOORS, "gradio_app"]}
    assert {name: others for name, others in claimed.items() if others} == {}


def test_functions_are_at_most_eighty_lines() -> None:
    long = []
    for path in (p for floor in FLOORS for p in sources(floor)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                if lines > 80:
                    long.append((str(path), node.name, lines))
    assert long == []
