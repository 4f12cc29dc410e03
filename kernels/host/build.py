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
from typing import Any

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "call_list.c"
LIBRARY = FOLDER / "call_list.so"


def compile_library() -> str:
    """Compile the library; return why it could not be done, or "" if it was."""
    LIBRARY.unlink(missing_ok=True)
    if os.name != "posix" or sys.maxsize < 2**32:
        return "needs a 64-bit POSIX system"
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    # Under another name first: a process that has the old file open keeps it whole.
    made = LIBRARY.with_suffix(f".{os.getpid()}")
    command = [
        *shlex.split(os.environ.get("CC", "cc")), "-O3", "-std=c99", "-shared", "-fPIC",
        f"-DASYNCNET_SOURCE={digest}", "-o", str(made), str(SOURCE),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            return f"{shlex.join(command)}: {done.stderr.strip()}"
        made.replace(LIBRARY)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        made.unlink(missing_ok=True)
    return ""


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a command
    pass
else:

    class CallListHook(BuildHookInterface):  # type: ignore[type-arg]
        """Compiles before a wheel is packed or the package is installed in place."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Compile; the wheel is then of this platform, though of any Python."""
            problem = compile_library()
            if problem:
                self.app.display_warning(f"no call_list.so, the CPU backend is slower: {problem}")
                return
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"


if __name__ == "__main__":
    sys.exit(compile_library() or None)
