"""The rules of the code base that can be read off its syntax trees; nothing is imported.

Imports point one way, only the CUDA backend knows CuPy, modules and functions stay readable.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "asyncnet_gpu"
ROOT = Path(__file__).resolve().parents[2] / PACKAGE

# From the bottom up. A module imports from its own layer and from those before it; within a layer
# the imports have no cycle. A name stands for the module or for everything in the folder.
LAYERS = (
    ("errors", "forking", "limits", "specs"),
    ("ops",),
    ("blob", "net", "net_state", "barrier", "serialize"),
    ("graph",),
    ("passes",),
    ("place",),
    ("plan",),
    ("verify",),
    ("backends",),
    ("blame", "engine", "run", "profiling", "executor", "timeline", "auto"),
    ("trace", "report"),
    ("onnx", "api"),
    ("demo",),
    ("cli",),
)
TOP = ("__init__", "__main__")  # may import everything

# Methods for the user's convenience that call a step further up, when they are called.
CONVENIENCES = {
    ("net", "api"): "AsyncNet.compile",
    ("net", "onnx"): "AsyncNet.to_onnx",
    ("timeline", "trace"): "Timeline.save",
    ("timeline", "report"): "Timeline.report",
    ("executor", "report"): "Executable.report",
    ("executor", "trace"): "Executable.trace with NVTX ranges",
}

DEVICE_LIBRARIES = ("cupy", "cupyx", "cupy_backends", "nvmath")
DEVICE_FOLDER = "backends/cuda/"

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60  # without its docstring


def sources(root: Path) -> dict[str, ast.Module]:
    """Return the syntax tree of each file below `root`, by its path relative to it."""
    return {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(), str(path))
        for path in sorted(root.rglob("*.py"))
    }


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def executed(node: ast.AST, *, in_function: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Yield each node that can run, and whether it runs only when some function is called.

    What stands under ``if TYPE_CHECKING:`` never runs: it is not a dependency.
    """
    yield node, in_function
    if isinstance(node, ast.If) and is_type_checking(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    inner = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in children:
        yield from executed(child, in_function=inner)


def imports(path: str, tree: ast.Module, modules: set[str]) -> Iterator[tuple[str, int, bool]]:
    """Yield (dotted name, line, only in a function) of each import of a file, absolute.

    ``from package import name`` counts as an import of ``package.name`` where that is a module.
    A constant name given to ``import_module`` or ``__import__`` counts too.
    """
    package = (PACKAGE, *path.split("/")[:-1])
    for node, in_function in executed(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *([node.module] if node.module else [])))
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in modules else base for name in inner]
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            argument = node.args[0]
            if called in ("import_module", "__import__") and isinstance(argument, ast.Constant):
                names = [str(argument.value)]
        for name in names:
            yield name, node.lineno, in_function  # type: ignore[attr-defined]


def dotted(path: str) -> str:
    parts = [PACKAGE, *path.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(name: str) -> str:
    """Return what stands in LAYERS for a dotted name: its first part below the package."""
    return (*name.split("."), "__init__")[1]


def check_direction(trees: dict[str, ast.Module]) -> tuple[list[str], set[tuple[str, str]]]:
    """Return the imports that point up, and the conveniences that were made use of."""
    layer = {name: index for index, names in enumerate(LAYERS) for name in names}
    modules = {dotted(path) for path in trees}
    problems: list[str] = []
    used: set[tuple[str, str]] = set()
    for path, tree in trees.items():
        own = part(dotted(path)) if path != "__main__.py" else "__main__"
        if own in TOP:
            continue
        if own not in layer:
            problems.append(f"{path}: {own!r} has no layer: give it one in LAYERS")
            continue
        for name, line, in_function in imports(path, tree, modules):
            if name.split(".")[0] != PACKAGE:
                continue
            target = part(name)
            if in_function and (own, target) in CONVENIENCES:
                used.add((own, target))
            elif layer.get(target, len(LAYERS)) > layer[own]:
                problems.append(f"{path}:{line}: {own!r} imports {name}, which is further up")
    return problems, used


def check_cycles(trees: dict[str, ast.Module]) -> list[str]:
    """Return the cycles among the imports that run when a module is imported."""
    modules = {dotted(path) for path in trees}
    uses = {
        dotted(path): {
            name
            for name, _, in_function in imports(path, tree, modules)
            if not in_function and name in modules and name != dotted(path)
        }
        for path, tree in trees.items()
    }
    uses.pop(PACKAGE)  # names what is public, so it imports all

    def on_the_edge() -> list[str]:
        used = set().union(*uses.values())
        return [name for name in uses if not uses[name] & uses.keys() or name not in used]

    while edge := on_the_edge():
        for name in edge:
            del uses[name]
    return [
        f"{path}: imports in a circle through {sorted(uses[dotted(path)] & uses.keys())}"
        for path in trees
        if dotted(path) in uses
    ]


def check_device_libraries(trees: dict[str, ast.Module]) -> list[str]:
    modules = {dotted(path) for path in trees}
    return [
        f"{path}:{line}: imports {name}; only {DEVICE_FOLDER} may"
        for path, tree in trees.items()
        if not path.startswith(DEVICE_FOLDER)
        for name, line, _ in imports(path, tree, modules)
        if name.split(".")[0] in DEVICE_LIBRARIES
    ]


def check_lengths(root: Path, trees: dict[str, ast.Module]) -> list[str]:
    problems = []
    for path, tree in trees.items():
        n_lines = len((root / path).read_text().splitlines())
        if n_lines > MAX_MODULE_LINES:
            problems.append(f"{path}: {n_lines} lines, at most {MAX_MODULE_LINES}")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[0]
            n_lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                n_lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            if n_lines > MAX_FUNCTION_LINES:
                problems.append(
                    f"{path}:{node.lineno}: {node.name}() has {n_lines} lines without its "
                    f"docstring, at most {MAX_FUNCTION_LINES}"
                )
    return problems


def check_operator_files(trees: dict[str, ast.Module]) -> list[str]:
    """Return files of ops/ not named in snake_case, or whose operators are not listed in OPS."""
    problems = []
    for path, tree in trees.items():
        if not path.startswith("ops/") or path.endswith(("/__init__.py", "/base.py")):
            continue
        name = path.removeprefix("ops/").removesuffix(".py")
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
            problems.append(f"{path}: the file name is not one snake_case word in ops/")
        assigned = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        defines = any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "Op" and not in_function
            for node, in_function in executed(tree)
        )
        if defines and "OPS" not in assigned:
            problems.append(f"{path}: defines operators and has no OPS: they are never found")
    return problems


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    found = sources(ROOT)
    assert len(found) > 10, f"found only {sorted(found)} below {ROOT}"
    return found


def report(problems: list[str]) -> str:
    return "\n  ".join([f"{len(problems)} problems", *problems])


def test_imports_point_one_way(trees: dict[str, ast.Module]) -> None:
    problems, used = check_direction(trees)
    assert not problems, report(problems)
    assert used == set(CONVENIENCES), "CONVENIENCES names an import that is gone"


def test_no_import_cycle(trees: dict[str, ast.Module]) -> None:
    problems = check_cycles(trees)
    assert not problems, report(problems)


def test_only_the_cuda_backend_imports_device_libraries(trees: dict[str, ast.Module]) -> None:
    problems = check_device_libraries(trees)
    assert not problems, report(problems)


def test_modules_and_functions_are_short(trees: dict[str, ast.Module]) -> None:
    problems = check_lengths(ROOT, trees)
    assert not problems, report(problems)


def test_operator_files_are_found_by_name(trees: dict[str, ast.Module]) -> None:
    assert any(path.startswith("ops/") for path in trees)
    problems = check_operator_files(trees)
    assert not problems, report(problems)


PLANTED = {
    "import upwards": ("graph.py", "from asyncnet_gpu.plan import types"),
    "import upwards, relative": ("graph.py", "from . import api"),
    "import upwards, two folders deep": ("ops/add.py", "from ..backends import base"),
    "import upwards in a function": ("specs.py", "def f():\n    import asyncnet_gpu.cli"),
    "import upwards, by name": ("plan/x.py", "import_module('asyncnet_gpu.executor')"),
    "convenience at import time": ("net.py", "from asyncnet_gpu import api"),
    "import of the whole package": ("graph.py", "import asyncnet_gpu"),
    "module without a layer": ("novel.py", ""),
    "cycle in a layer": ("net.py", "from asyncnet_gpu.blob import Blob"),
    "device library": ("ops/add.py", "import numpy, cupy"),
    "device library in a function": ("backends/cpu/x.py", "def f():\n    from nvmath import b"),
    "device library by name": ("auto.py", "import importlib\nimportlib.import_module('cupy.cuda')"),
    "long module": ("report.py", "x = 1\n" * (MAX_MODULE_LINES + 1)),
    "long function": ("report.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    "operator file in CamelCase": ("ops/MatMul.py", "OPS = ()"),
    "operators that are not listed": ("ops/add.py", "ADD = Op(name='add')"),
}
CLEAN = {
    "blob.py": """
        from typing import TYPE_CHECKING
        import asyncnet_gpu.net
        if TYPE_CHECKING:
            from asyncnet_gpu.executor import Executable
    """,
    "net.py": "def compile():\n    from asyncnet_gpu.api import compile",
    "ops/base.py": "class Op: ...",
    "ops/shared.py": "def make(name):\n    return Op(name=name)",
    "ops/mat_mul.py": "from .base import Op\nOPS = (Op(),)",
    "plan/types.py": "def f():\n    '''Do it.\n" + "\n" * 80 + "    '''",
    "api.py": "from asyncnet_gpu import net, backends",
    "backends/__init__.py": "",
    "backends/cuda/launch.py": "import cupy\nfrom nvmath.bindings import cublas",
    "cli.py": "from . import api",
}


def plant(root: Path, files: dict[str, str]) -> list[str]:
    """Write a small package and return everything that is wrong with it."""
    files = {"__init__.py": "", "__main__.py": "import asyncnet_gpu.cli", **files}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(textwrap.dedent(text))
    trees = sources(root)
    return [
        *check_direction(trees)[0],
        *check_cycles(trees),
        *check_device_libraries(trees),
        *check_lengths(root, trees),
        *check_operator_files(trees),
    ]


def test_a_clean_package_passes(tmp_path: Path) -> None:
    assert plant(tmp_path, CLEAN) == []


@pytest.mark.parametrize("violation", PLANTED)
def test_each_planted_violation_is_found(violation: str, tmp_path: Path) -> None:
    path, text = PLANTED[violation]
    problems = plant(tmp_path, {**CLEAN, path: text})
    assert any(problem.startswith(path) for problem in problems), report(problems)
