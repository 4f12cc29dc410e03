"""What an installed copy consists of: built with the project's own backend, without a network.

Everything is built from a copy of the tree: other tests have the library of the checkout open.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "asyncnet_gpu/_kernels/host/call_list.so"
COMPILER = shutil.which(shlex.split(os.environ.get("CC") or "cc")[0])


def sources(folder: str) -> set[str]:
    """Return the files of a folder as they are in the repository: nothing that was built."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and (path.stem != "call_list" or path.suffix == ".c")
    }


def build(tree: Path, target: str, *, cc: str | None = None) -> Path:
    """Build a wheel or a source distribution of a tree, with another compiler if one is named."""
    folder = tree.parent / f"{tree.name}-{target}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "hatchling", "build", "--target", target]
    done = subprocess.run(
        [*command, "--directory", str(folder)], cwd=tree, capture_output=True, text=True,
        env={**os.environ, **({"CC": cc} if cc else {})}, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


def names_in(path: Path) -> list[str]:
    """Return the files of a wheel but for its metadata, in order."""
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def run_installed(path: Path, folder: Path, program: str) -> str:
    """Unpack a wheel and return what a program prints that imports it and nothing of the tree."""
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "site")
    file = folder / "program.py"
    file.write_text(textwrap.dedent(program))
    libraries = sysconfig.get_paths()["purelib"]
    done = subprocess.run(
        # -P: not the folder of the program; PYTHONPATH alone decides.
        [sys.executable, "-P", str(file)], capture_output=True, text=True, timeout=60,
        check=False, cwd=folder, env={"PYTHONPATH": f"{folder / 'site'}:{libraries}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of what distributions are made of, with leftovers of work in it."""
    return copied(tmp_path / "tree")


def copied(target: Path) -> Path:
    # What a compiler is writing just now may be gone a moment later.
    built = shutil.ignore_patterns("__pycache__", "results", "call_list.so", "call_list.[0-9]*")
    for folder in ("asyncnet_gpu", "benchmarks", "kernels"):
        shutil.copytree(ROOT / folder, target / folder, ignore=built)
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)
    host = target / "kernels/host"
    (host / "call_list.so").write_bytes(b"not compiled from this source")
    (host / "call_list.4711").touch()  # of a compiler that was killed
    for folder in ("kernels/host", "benchmarks/nets", "asyncnet_gpu"):
        (target / folder / "__pycache__").mkdir()
        (target / folder / "__pycache__/stale.cpython-311.pyc").touch()
    return target


@pytest.fixture(scope="module")
def wheel_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(copied(tmp_path_factory.mktemp("wheel") / "tree"), "wheel")


@pytest.fixture
def wheel(wheel_path: Path) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheel_path) as archive:
        yield archive


def test_every_module_and_every_kernel_is_in_it_and_nothing_else(wheel_path: Path) -> None:
    listed = names_in(wheel_path)
    names = set(listed)
    assert len(names) == len(listed)
    kernels = {f"asyncnet_gpu/_{name}" for name in sources("kernels")}
    assert any(name.endswith(".cu") for name in kernels)
    assert any(name.endswith(".cuh") for name in kernels)
    assert "asyncnet_gpu/_kernels/host/call_list.c" in kernels
    expected = sources("asyncnet_gpu") | kernels | ({LIBRARY} if COMPILER else set())
    assert names >= expected
    # The benchmarks travel with the command that runs them.
    for name in names - expected:
        assert name.startswith("asyncnet_gpu/_benchmarks/"), name
        assert name.endswith(".py"), name


def test_it_says_that_it_is_typed_and_brings_the_command(wheel: zipfile.ZipFile) -> None:
    assert "asyncnet_gpu/py.typed" in wheel.namelist()
    (entry_points,) = (n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert "asyncnet = asyncnet_gpu.cli:main" in wheel.read(entry_points).decode()
    (metadata,) = (n for n in wheel.namelist() if n.endswith("METADATA"))
    text = wheel.read(metadata).decode()
    assert "Requires-Dist: numpy>=2.1\n" in text  # np.reshape(copy=...)
    assert "Provides-Extra: cuda13x" in text
    assert any(n.endswith("licenses/LICENSE") for n in wheel.namelist())


def test_the_installed_copy_finds_its_kernels_and_runs_a_net(
    wheel_path: Path, tmp_path: Path
) -> None:
    program = """
        import pathlib

        import numpy as np

        import asyncnet_gpu as ag
        from asyncnet_gpu.backends.cpu.native import library

        package = pathlib.Path(ag.__file__).parent
        assert package.parent.name == "site", package
        assert (package / "_kernels" / "elementwise.cu").is_file()
        net = ag.AsyncNet("wheel")
        x = net.input("x", (4, 4), "float32")
        net.output(net.softmax(net.matmul(x, x), name="y"))
        with net.compile(backend="cpu", mode="streams") as exe:
            print(exe.run(x=np.eye(4, dtype=np.float32))["y"].shape)
        print(library.missing() or "native")
        print(str(package / "_kernels/host/call_list.so") in open("/proc/self/maps").read())
        """
    shape, how, mapped = run_installed(wheel_path, tmp_path, program).splitlines()
    assert shape == "(4, 4)"
    assert (how == "native") == bool(COMPILER), how
    if sys.platform == "linux":
        assert mapped == str(bool(COMPILER))


def test_a_wheel_with_the_library_is_for_this_platform_and_any_python(wheel_path: Path) -> None:
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    tag = f"py3-none-{machine}" if COMPILER else "py3-none-any"
    assert wheel_path.name.endswith(f"-{tag}.whl")


def test_without_a_compiler_the_wheel_is_for_every_platform_and_runs(
    tree: Path, tmp_path: Path
) -> None:
    path = build(tree, "wheel", cc="no-such-compiler")
    assert path.name.endswith("-py3-none-any.whl")
    names = names_in(path)
    assert LIBRARY not in names
    assert "asyncnet_gpu/_kernels/host/call_list.c" in names
    assert not any("4711" in name or name.endswith(".pyc") for name in names)
    program = """
        import numpy as np

        import asyncnet_gpu as ag
        from asyncnet_gpu.cli import devices

        net = ag.AsyncNet("wheel")
        net.output(net.tanh(net.input("x", (4,), "float32"), name="y"))
        with net.compile(backend="cpu", mode="streams") as exe:
            print(exe.run(x=np.zeros(4, np.float32))["y"])
        print(devices.cpu_view()["native_problem"])
        """
    result, why = run_installed(path, tmp_path, program).splitlines()
    assert result == "[0. 0. 0. 0.]"
    assert "call_list.so was not compiled" in why


# -- the source distribution -----------------------------------------------------------------------


def test_the_source_distribution_builds_the_same_wheel(
    tree: Path, wheel_path: Path, tmp_path: Path
) -> None:
    for folder in ("tests", "docs"):
        (tree / folder).mkdir()
        (tree / folder / "page.md").touch()
    made = build(tree, "sdist")
    with tarfile.open(made) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", str(made)], cwd=tmp_path / "unpacked", check=True, timeout=60)
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/page.md", "docs/page.md"} <= names
    assert sources("asyncnet_gpu") | sources("kernels") <= names
    assert {name for name in names if "call_list" in name} == {"kernels/host/call_list.c"}
    assert not any(name.endswith(".pyc") for name in names)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    again = build(unpacked, "wheel")
    assert again.name == wheel_path.name
    assert sorted(names_in(again)) == sorted(names_in(wheel_path))


# -- the library in place --------------------------------------------------------------------------


def compile_in(tree: Path, cc: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(tree / "kernels/host/build.py")], capture_output=True, text=True,
        env={**os.environ, **({"CC": cc} if cc else {})}, timeout=60, check=False,
    )  # fmt: skip


def test_a_library_of_another_source_goes_when_it_cannot_be_compiled(tree: Path) -> None:
    ended = compile_in(tree, cc="no-such-compiler")
    assert ended.returncode == 1
    assert ended.stderr == (
        "call_list.so was not compiled, short launches on the CPU take longer: "
        "there is no C compiler 'no-such-compiler'\n"
    )
    assert not (tree / "kernels/host/call_list.so").exists()
    assert compile_in(tree, cc="false").stderr.endswith("false ends with status 1\n")


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_a_library_of_this_source_stays_where_the_compiler_is_gone(tree: Path) -> None:
    library = tree / "kernels/host/call_list.so"
    ended = compile_in(tree)
    assert (ended.returncode, ended.stderr) == (0, "")
    made = library.read_bytes()
    assert compile_in(tree, cc="no-such-compiler").returncode == 0
    assert library.read_bytes() == made
    with (tree / "kernels/host/call_list.c").open("a") as file:
        file.write("/* another */\n")
    assert compile_in(tree, cc="no-such-compiler").returncode == 1
    assert not library.exists()


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_what_the_compiler_says_is_shown(tree: Path) -> None:
    (tree / "kernels/host/call_list.c").write_text("#include <no_such_header.h>\n")
    assert "no_such_header.h" in compile_in(tree).stderr
