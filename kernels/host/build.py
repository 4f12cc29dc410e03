"""Compile ``call_list.c`` beside its source: a hook of the build, and a command.

The library needs no header of Python or NumPy, so one file serves every version of both. Without a
C compiler nothing is compiled, and the CPU backend calls NumPy from Python instead.

    python kernels/host/build.py
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "call_list.c"
LIBRARY = FOLDER / "call_list.so"


def compile_library(library: Path = LIBRARY) -> str:
    """Compile the library; return why there is none of this source, or "" if there is.

    Where it cannot be compiled, one of this very source stays and one of another is removed.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    problem = _compile(library, digest)
    if problem and library.is_file():
        if digest.encode() in library.read_bytes():  # what asyncnet_source() returns
            return ""
        library.unlink(missing_ok=True)
    return problem


def _compile(library: Path, digest: str) -> str:
    if os.name != "posix" or sys.maxsize < 2**32:
        return "needs a 64-bit POSIX system"
    # Under another name first: a process that has the old file open keeps it whole.
    made = library.with_suffix(f".{os.getpid()}")
    command = [
        *shlex.split(os.environ.get("CC") or "cc"), "-O3", "-std=c99", "-shared", "-fPIC",
        f"-DASYNCNET_SOURCE={digest}", "-o", str(made), str(SOURCE),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            return f"{command[0]} ends with status {done.returncode}\n{done.stderr}".strip()
        made.replace(library)
    except FileNotFoundError:
        return f"there is no C compiler {command[0]!r}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        made.unlink(missing_ok=True)
    return ""


def _notice(problem: str) -> str:
    return f"call_list.so was not compiled, short launches on the CPU take longer: {problem}"


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a command
    pass
else:

    class CallListHook(BuildHookInterface):  # type: ignore[type-arg]
        """Compiles before a wheel is packed or the package is installed in place."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile; a wheel is then of this platform, though of any Python."""
            if version == "editable":
                self._say(compile_library())
                return
            # Not beside the source: no other build's library can get into the wheel, and whoever
            # uses the one there keeps it.
            self._folder = TemporaryDirectory()
            library = Path(self._folder.name) / LIBRARY.name
            problem = compile_library(library)
            self._say(problem)
            if not problem:
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{platform}"
                packed = f"asyncnet_gpu/_kernels/host/{LIBRARY.name}"
                build_data["force_include"][str(library)] = packed

        def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
            """Remove what was packed."""
            if version != "editable":
                self._folder.cleanup()

        def _say(self, problem: str) -> None:
            if problem:
                self.app.display_warning(_notice(problem))


if __name__ == "__main__":
    trouble = compile_library()
    sys.exit(_notice(trouble) if trouble else None)
