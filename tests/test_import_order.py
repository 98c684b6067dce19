"""The rooms of the house in import order, no cycles, and what is not loaded until it is needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "scaler"
ROOMS = (
    "scaler",
    "scaler.errors",
    "scaler.reader",
    "scaler.files",
    "scaler.locks",
    "scaler.catalog",
    "scaler.graph",
    "scaler.cost",
    "scaler.models",
    "scaler.published",
    "scaler.hardware",
    "scaler.host",
    "scaler.devices",
    "scaler.latency",
    "scaler.accuracy",
    "scaler.space",
    "scaler.space_values",
    "scaler.space_file",
    "scaler.search",
    "scaler.report",
    "scaler.scaling",
    "scaler.export",
    "scaler.runtimes",
    "scaler.profiling",
    "scaler.data",
    "scaler.evaluation",
    "scaler.deploy",
    "scaler.training",
    "scaler.training.recipe",
    "scaler.training.network",
    "scaler.training.losses",
    "scaler.training.pretrained",
    "scaler.training.loop",
    "scaler.training.runs",
    "scaler.cli",
    "scaler.__main__",
)
"""docs/architecture.md: a room imports only from rooms before it."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(name: str) -> Iterator[str]:
    """Modules of ours that a module imports, anywhere in it: in functions and for types too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in MODULES:
                    yield full
                elif node.module in MODULES:
                    yield node.module


EDGES = {name: set(imports(name)) for name in MODULES}


def room(module: str) -> str:
    return max((r for r in ROOMS if module == r or module.startswith(f"{r}.")), key=len)


def test_the_walk_finds_imports_in_functions_and_for_types():
    assert "scaler.latency.build" in EDGES["scaler.cli.tables"]
    assert "scaler.latency.validation" in EDGES["scaler.cli.tables"]
    assert sum(map(len, EDGES.values())) > 150


def test_every_module_lies_in_a_room_of_the_list():
    assert {name for name in MODULES if room(name) == "scaler"} == {"scaler"}
    assert {room(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_from_rooms_before_it(name: str):
    here = ROOMS.index(room(name))
    assert [other for other in sorted(EDGES[name]) if ROOMS.index(room(other)) > here] == []


def test_no_module_is_imported_in_a_circle():
    state: dict[str, str] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert state.get(name) != "open", " -> ".join((*path[path.index(name) :], name))
        if name in state:
            return
        state[name] = "open"
        for other in sorted(EDGES[name] - {name}):
            visit(other, (*path, name))
        state[name] = "done"

    for name in MODULES:
        visit(name, ())


def test_only_the_study_knows_optuna_and_only_the_fits_know_scipy():
    outside: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {n.partition(".")[0] for n in names} & {"optuna", "scipy", "torch", "tensorrt", "onnxruntime"}:
                outside.setdefault(top, set()).add(name)
    assert all(name.startswith("scaler.search.") for name in outside["optuna"])
    assert outside["scipy"] == {
        "scaler.accuracy.fitting",
        "scaler.accuracy.fitting_laws",
        "scaler.latency.calibration",
        "scaler.latency.kernel_fit",
        "scaler.profiling.baselines",
    }
    assert all(name.startswith("scaler.training") for name in outside["torch"])
    assert all(name.startswith("scaler.runtimes.") for name in outside["tensorrt"])
    assert all(
        name.startswith(("scaler.runtimes.", "scaler.export.int8")) or name == "scaler.evaluation.onnx_detector"
        for name in outside["onnxruntime"]
    )


HEAVY = {"torch", "onnxruntime", "tensorrt"}
DATA = {"numpy", "optuna", "scipy", "pandas", "matplotlib", "plotly"}


def loaded(*arguments: str) -> set[str]:
    """Top-level packages that a fresh interpreter loads, by its own account."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 20
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_importing_scaler_loads_nothing_of_weight():
    packages = loaded("-c", "import scaler")
    assert "scaler" in packages
    assert packages.isdisjoint(HEAVY | DATA)


def test_help_loads_nothing_of_weight():
    packages = loaded("-m", "scaler", "--help")
    assert "typer" in packages
    assert packages.isdisjoint(HEAVY | DATA)


@pytest.mark.parametrize(
    "command",
    [
        "search",
        "show",
        "devices",
        "spaces",
        "tables",
        "plot",
        "doctor",
        "profile",
        "verify",
        "scale",
        "accuracy",
        "train",
        "evaluate",
        "predict",
        "export",
        "import",
        "run",
        "data",
        "weights",
    ],
)
def test_the_help_of_a_command_loads_nothing_of_weight(command: str):
    assert loaded("-m", "scaler", command, "--help").isdisjoint(HEAVY | DATA)


def test_the_help_of_the_published_plot_loads_nothing_of_weight():
    assert loaded("-m", "scaler", "accuracy", "plot", "--help").isdisjoint(HEAVY | DATA)


def test_the_search_loads_numpy_but_nothing_that_fits_draws_or_trains():
    packages = loaded("-c", "import scaler.search.run")
    assert "numpy" in packages
    assert packages.isdisjoint(HEAVY | {"scipy", "pandas", "matplotlib", "plotly"})
