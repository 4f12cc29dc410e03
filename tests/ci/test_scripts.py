"""The scripts in ci/: they refuse where they must, and read the Dockerfile as Docker does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name: str) -> ModuleType:
    loader = SourceFileLoader(name.replace("-", "_"), str(ROOT / "ci" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


docker_steps = script("docker-steps")
requirements = script("requirements")


def test_gpu_checks_fail_without_a_device(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "REPORT_DIR": str(tmp_path),
    }
    ended = subprocess.run(
        ["ci/gpu"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "no CUDA device answers" in ended.stderr or "cannot be imported" in ended.stderr


@pytest.mark.parametrize("name", ["check", "gpu"])
def test_shell_scripts_parse_and_stop_at_errors(name: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "ci" / name)], check=True, timeout=10)
    assert "set -euo pipefail" in (ROOT / "ci" / name).read_text()


# -- what the image installs -----------------------------------------------------------------------


def test_requirements_of_nested_extras_are_resolved() -> None:
    project = {
        "name": "net",
        "dependencies": ["numpy"],
        "optional-dependencies": {"a": ["net[b,c]", "x>1"], "b": ["y"], "c": ["net[b]", "z"]},
    }
    assert requirements.requirements(project, ["a"]) == ["numpy", "x>1", "y", "z"]
    with pytest.raises(SystemExit, match="no extra 'd'"):
        requirements.requirements(project, ["d"])


def test_the_image_asks_for_extras_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    arguments = dict(
        rest.partition("=")[::2]
        for keyword, rest in docker_steps.instructions((ROOT / "Dockerfile").read_text())
        if keyword == "ARG"
    )
    lines = requirements.requirements(project, [*arguments["CUDA_EXTRAS"].split(","), "gpu-test"])
    assert any(line.startswith("cupy-cuda13x[ctk]") for line in lines)
    assert any(line.startswith("pytest") for line in lines)


# -- the Dockerfile --------------------------------------------------------------------------------


def test_instructions_are_joined_and_comments_dropped() -> None:
    text = "# a\nFROM x\n\nRUN one \\\n    # not this\n    && two\nUSER 1\n"
    assert list(docker_steps.instructions(text)) == [
        ("FROM", "x"),
        ("RUN", "one      && two"),
        ("USER", "1"),
    ]


@pytest.mark.parametrize(
    ("path", "out"),
    [
        (".git/config", True),
        ("build/x/y", True),
        ("asyncnet_gpu/__pycache__/net.pyc", True),
        ("tests/.pytest_cache/x", True),
        ("builder/x", False),
        ("asyncnet_gpu/build/x", False),
        (".gitignore", False),
        ("kernels/conv.cu", False),
    ],
)
def test_what_is_left_out_of_the_build(path: str, out: bool) -> None:
    patterns = ["# no pattern", ".git", "build", "**/__pycache__", "**/.*_cache"]
    assert docker_steps.ignored(path, patterns) == out


def test_an_unknown_instruction_is_refused(tmp_path: Path) -> None:
    image = docker_steps.Image(tmp_path, {})
    with pytest.raises(SystemExit, match="HEALTHCHECK is not known here"):
        image.follow("HEALTHCHECK", "CMD true")
    with pytest.raises(SystemExit, match="no stand-in is known for the base image debian:12"):
        image.follow("FROM", "debian:12")


def test_arguments_and_environment(tmp_path: Path) -> None:
    image = docker_steps.Image(tmp_path, {"TAG": "given"})
    image.follow("ARG", "TAG=default")
    image.follow("ARG", "OTHER=default")
    image.follow("ENV", "A=${TAG}-$OTHER B=2")
    assert image.environment == {"A": "given-default", "B": "2"}


def test_files_are_copied_as_docker_does(tmp_path: Path) -> None:
    image = docker_steps.Image(tmp_path, {})
    image.follow("WORKDIR", "/app")
    image.follow("COPY", "ci/requirements ci/")
    image.follow("COPY", "requirements wanted")
    image.follow("COPY", "pyproject.toml README.md ./")
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found >= {
        "app/ci/requirements",
        "app/wanted/models.txt",
        "app/pyproject.toml",
        "app/README.md",
    }
    assert os.access(tmp_path / "app/ci/requirements", os.X_OK)
    assert not any(name.endswith(".py") for name in found)
