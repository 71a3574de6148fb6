"""Imports only go down the list of layers. Read from the source, so that nothing is imported to find out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Top to bottom. A name stands for a module and for everything below it when it is a package.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("pixelfast", "pixelfast.__main__", "pixelfast.cli"),
    (
        "pixelfast.training",
        "pixelfast.data",
        "pixelfast.checkpoints",
        "pixelfast.shipped",
        "pixelfast.grid",
        "pixelfast.bench",
        "pixelfast.jobs",
    ),
    ("pixelfast.models",),
    (
        "pixelfast.sampler",
        "pixelfast.self_check",
        "pixelfast.statistics",
        "pixelfast.naive",
        "pixelfast.requests",
        "pixelfast.stages",
        "pixelfast.completion",
        "pixelfast.code_completion",
        "pixelfast.bars",
        "pixelfast.describe",
        "pixelfast.limit",
        "pixelfast.machine",
    ),
    ("pixelfast.backends",),
    (
        "pixelfast.precision",
        "pixelfast.program",
        "pixelfast.lower",
        "pixelfast.schedule",
        "pixelfast.loops",
        "pixelfast.split",
        "pixelfast.readiness",
        "pixelfast.simplify",
        "pixelfast.prologue",
        "pixelfast.rules",
        "pixelfast.builder",
        "pixelfast.provenance",
        "pixelfast.causality",
        "pixelfast.receptive_field",
        "pixelfast.problem",
        "pixelfast.inputs",
        "pixelfast.replay",
        "pixelfast.trace",
    ),
    ("pixelfast.likelihoods",),
    ("pixelfast.ops",),
    ("pixelfast.stage",),
    ("pixelfast.kernels", "pixelfast._C", "pixelfast.ir", "pixelfast.rng", "pixelfast.errors"),
)

# What a module may import beyond "its own layer and below" can also be narrower.
ONLY: dict[str, tuple[str, ...]] = {
    "pixelfast.models": (
        "pixelfast.models",
        "pixelfast.likelihoods",
        "pixelfast.ops",
        "pixelfast.stage",
        "pixelfast.errors",
    ),
    "pixelfast.kernels": ("pixelfast.kernels",),
}


def within(module: str, name: str) -> bool:
    """Whether a module is `name` or lies in it. The surface `pixelfast` is one file, not the package."""
    return module == name or (name != "pixelfast" and module.startswith(name + "."))


def layer(module: str) -> int | None:
    """Index into LAYERS, counted from the top."""
    return next((i for i, names in enumerate(LAYERS) for name in names if within(module, name)), None)


def sources(root: Path) -> dict[str, Path]:
    """Module name -> file, for the package and for kernels/."""
    found = {}
    for folder, package in ((root / "pixelfast", "pixelfast"), (root / "kernels", "pixelfast.kernels")):
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, modules: set[str]) -> set[str]:
    """Modules of this package that a file imports, anywhere in it, `from package import module` resolved."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                submodule = whole in modules or (base == "pixelfast" and layer(whole) is not None)
                found.add(whole if submodule else base)
    return {name for name in found if name.split(".")[0] in ("pixelfast", "kernels")}


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """One cycle of the import graph, as a path that ends where it began."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        for target in sorted(graph.get(name, ())):
            if found := visit(target, [*path, name]):
                return found
        done.add(name)
        return None

    return next((found for name in sorted(graph) if (found := visit(name, []))), None)


def violations(root: Path) -> list[str]:
    """Every broken rule under a checkout, one line each."""
    modules = sources(root)
    problems = []
    graph = {}
    for module, path in modules.items():
        here = layer(module)
        if here is None:
            problems.append(f"{module} is in no layer: add it to LAYERS")
            continue
        graph[module] = imports(module, path, set(modules)) - {module}
        for target in sorted(graph[module]):
            if target == "kernels" or target.startswith("kernels."):
                problems.append(f"{module} imports {target}: write pixelfast.kernels")
                continue
            there = layer(target)
            if there is None:
                problems.append(f"{module} imports {target}, which is in no layer")
            elif there < here:
                problems.append(f"{module} imports {target}, which is above it")
            for name, allowed in ONLY.items():
                if within(module, name) and not any(within(target, other) for other in allowed):
                    problems.append(f"{module} imports {target}: {name} may only import {', '.join(allowed)}")
    if found := cycle(graph):
        problems.append("import cycle: " + " -> ".join(found))
    return problems


def test_imports_only_go_down() -> None:
    assert len(sources(REPOSITORY)) > 2
    assert violations(REPOSITORY) == []


def test_kernels_package_is_empty() -> None:
    """Importing pixelfast.kernels must not import a GPU compiler."""
    assert (REPOSITORY / "kernels" / "__init__.py").read_text() == ""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"pixelfast/errors.py": "import pixelfast.sampler"},
            "pixelfast.errors imports pixelfast.sampler, which is above",
        ),
        (
            {"pixelfast/rng.py": "from pixelfast import load"},
            "pixelfast.rng imports pixelfast, which is above it",
        ),
        (
            {"pixelfast/ir.py": "def f():\n    from .trace import record"},
            "pixelfast.ir imports pixelfast.trace",
        ),
        ({"pixelfast/likelihoods/base.py": "from ..program import Program"}, "imports pixelfast.program"),
        (
            {"pixelfast/backends/cpu/x.py": "from ... import naive"},
            "imports pixelfast.naive, which is above it",
        ),
        (
            {"pixelfast/models/a.py": "from pixelfast.sampler import compile"},
            "pixelfast.models may only import",
        ),
        (
            {"kernels/gate.py": "from pixelfast.errors import BackendError"},
            "pixelfast.kernels may only import",
        ),
        ({"pixelfast/ops/a.py": "from kernels.gate import gate"}, "write pixelfast.kernels"),
        ({"pixelfast/helpers.py": ""}, "pixelfast.helpers is in no layer"),
        (
            {
                "pixelfast/trace.py": "from pixelfast import schedule",
                "pixelfast/schedule.py": "from pixelfast.trace import record",
            },
            "import cycle: pixelfast.schedule -> pixelfast.trace -> pixelfast.schedule",
        ),
    ],
)
def test_planted_violation_is_caught(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert any(expected in problem for problem in violations(tmp_path)), violations(tmp_path)


def test_allowed_imports_pass(tmp_path: Path) -> None:
    (tmp_path / "pixelfast" / "likelihoods").mkdir(parents=True)
    (tmp_path / "pixelfast" / "likelihoods" / "__init__.py").write_text("from .base import Likelihood\n")
    (tmp_path / "pixelfast" / "likelihoods" / "base.py").write_text(
        "import torch\nfrom pixelfast.errors import ShapeError\n"
    )
    (tmp_path / "pixelfast" / "sampler.py").write_text(
        "from pixelfast import rng\nfrom pixelfast.likelihoods import Likelihood\n"
    )
    assert violations(tmp_path) == []
