"""``call_list.c`` under the compiler's warnings and sanitizers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "kernels" / "host" / "call_list.c"
CC = shlex.split(os.environ.get("CC") or "cc")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*CC, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_no_compiler_warning(tmp_path: Path) -> None:
    warnings = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
    made = tmp_path / "call_list.o"
    done = compiled("-O2", "-std=c99", *warnings, "-DASYNCNET_SOURCE=0", "-c", "-o", made,
                    SOURCE)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path | str:
    """The library with sanitizers, or what the compiler says that has none."""
    folder = tmp_path_factory.mktemp("sanitized")
    trivial = folder / "trivial.c"
    trivial.write_text("int main(void) { return 0; }\n")
    done = compiled(*SANITIZE, "-o", folder / "trivial", trivial)
    if done.returncode:
        return done.stderr
    if not all(map(os.path.isabs, runtimes())):
        return f"no sanitizer to load beforehand: {runtimes()}"
    library = folder / "call_list.so"
    done = compiled("-g", "-O1", "-std=c99", *SANITIZE, "-shared", "-fPIC", "-DASYNCNET_SOURCE=0",
                    "-o", library, SOURCE)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return library


def runtimes() -> list[str]:
    names = ("libasan.so", "libubsan.so")
    return [compiled(f"-print-file-name={name}").stdout.strip() for name in names]


def watched(library: Path, *faults: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes()),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=98",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, str(Path(__file__).with_name("sanitized.py")), str(library), *faults]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=110, check=False
    )


def test_the_sanitizers_find_nothing(sanitized: Path | str) -> None:
    if isinstance(sanitized, str):
        assert re.search("sanitize|asan|ubsan", sanitized), "the compiler fails for another reason"
        return
    done = watched(sanitized)
    assert done.returncode == 0, done.stderr[-4000:]
    operators, layouts = map(int, done.stdout.split()[1:])
    assert operators > 1500
    assert layouts > 1000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("misaligned", "misaligned address"),
        ("writes on", "heap-buffer-overflow"),
    ],
)
def test_the_sanitizers_find_what_is_planted(sanitized: Path | str, fault: str, words: str) -> None:
    if isinstance(sanitized, str):
        return
    done = watched(sanitized, fault)
    assert done.returncode != 0
    assert words in done.stderr, done.stderr[-4000:]
