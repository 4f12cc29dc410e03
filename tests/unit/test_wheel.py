"""What an installed copy consists of: built with the project's own backend, without a network."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_every_module_and_every_kernel_is_in_it_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {n for n in wheel.namelist() if ".dist-info/" not in n}
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "asyncnet_gpu").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    kernels = {f"asyncnet_gpu/_kernels/{path.name}" for path in (ROOT / "kernels").iterdir()}
    assert any(name.endswith(".cu") for name in kernels)
    assert any(name.endswith(".cuh") for name in kernels)
    assert names >= modules | kernels
    # The benchmarks travel with the command that runs them.
    for name in names - modules - kernels:
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
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path / "site")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import pathlib

            import numpy as np

            import asyncnet_gpu as ag

            package = pathlib.Path(ag.__file__).parent
            assert package.parent.name == "site", package
            assert (package / "_kernels" / "elementwise.cu").is_file()
            net = ag.AsyncNet("wheel")
            x = net.input("x", (4, 4), "float32")
            net.output(net.softmax(net.matmul(x, x), name="y"))
            with net.compile(backend="cpu", mode="streams") as exe:
                print(exe.run(x=np.eye(4, dtype=np.float32))["y"].shape)
            """
        )
    )
    libraries = sysconfig.get_paths()["purelib"]
    path = f"{tmp_path / 'site'}:{libraries}"
    done = subprocess.run(
        # -P: not the folder of the program; PYTHONPATH alone decides.
        [sys.executable, "-P", str(program)], capture_output=True, text=True, timeout=60,
        check=False, cwd=tmp_path, env={"PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(4, 4)\n"


def test_the_source_distribution_builds_the_same_kernels(tmp_path: Path) -> None:
    import tarfile

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for folder in ("kernels", "asyncnet_gpu", "tests"):
        assert any(name.startswith(f"{folder}/") for name in names)
    assert {f"kernels/{p.name}" for p in (ROOT / "kernels").iterdir()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
