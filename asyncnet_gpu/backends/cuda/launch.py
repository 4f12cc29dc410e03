"""Kernels: source, compilation, and launches whose arguments are packed once.

A bound launch is ``cupy.cuda.driver.launchKernel`` with everything filled in. The driver reads the
arguments from a buffer of ours at the time of the call, so a launch that reads an input of the
caller is repeated with another array by writing one word of that buffer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from cupy.cuda import driver
from cupy.cuda.compiler import CompileException

from asyncnet_gpu.backends.cuda.device import OnDevice
from asyncnet_gpu.errors import InternalError, NetError, message
from asyncnet_gpu.ops.base import KernelLaunch

#: Kernels with more dynamic shared memory must ask for it (CUDA C++ Programming Guide, 16.8).
_SHARED_WITHOUT_ASKING = 48 * 1024
_ARGUMENT_ALIGNMENT = 16
_PACKAGE = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=1)
def kernel_folder() -> Path:
    """Return the folder of the ``.cu`` files: in an installed package, or in a checkout."""
    for folder in (_PACKAGE / "_kernels", _PACKAGE.parent / "kernels"):
        if folder.is_dir():
            return folder
    raise InternalError(
        message("cuda", "kernels are missing", expected=f"{_PACKAGE / '_kernels'}", got="no folder",
                remedy="Install the package again.")
    )  # fmt: skip


@cache
def kernel_source(name: str) -> str:
    """Return the CUDA C++ of a file in ``kernels/`` by its name."""
    return (kernel_folder() / name).read_text(encoding="utf-8")


@cache
def header_version() -> str:
    """Return a macro that says which headers a kernel includes.

    CuPy keeps compiled code on disk by source and options: with other headers and the same file it
    would load what was compiled from the old ones.
    """
    headers = sorted(kernel_folder().glob("*.cuh"))
    digest = hashlib.sha256(b"\0".join([path.read_bytes() for path in headers]))
    return f"-DASYNCNET_HEADERS=0x{digest.hexdigest()[:15]}"


@dataclass(frozen=True, slots=True)
class Packed:
    """A launch with its arguments in place.

    Attributes
    ----------
    call
        Launches; takes nothing.
    words
        The argument buffer, as 64-bit words.
    pointers
        Index in `words` and array of each argument that is an address.
    """

    call: Callable[[], object]
    words: np.ndarray[Any, Any]
    pointers: tuple[tuple[int, Any], ...]


@lru_cache(maxsize=4096)
def load_function(file: str, source: str, entry: str, device: int) -> Any:
    """Compile and load one kernel on one device; kept for the life of the process.

    Raises
    ------
    NetError
        If the user's own source does not compile or lacks the entry; the compiler's text is in it.
    InternalError
        The same for a file of ours.
    """
    code = source or kernel_source(file)
    # A name with C linkage is found as it is; everything else is mangled and has to be asked for.
    plain = "<" not in entry and re.search(r'extern\s*"C"', code) is not None
    module = cupy.RawModule(
        code=code,
        options=("--std=c++17", f"-I{kernel_folder()}", header_version()),
        name_expressions=None if plain else (entry,),
    )
    try:
        with OnDevice(device):
            kernel = module.get_function(entry)
            kernel.kernel.ptr  # noqa: B018 - compiles and loads
    except (CompileException, driver.CUDADriverError) as error:
        kind = NetError if source else InternalError
        raise kind(
            message(
                f"kernel {entry!r}", f"{file or 'the source given'} does not compile",
                expected="CUDA C++ that defines the entry", got=str(error).strip(),
                remedy='Correct it; an entry is a name with extern "C" or a C++ name expression.',
            )
        ) from error  # fmt: skip
    return kernel


def pack(launch: KernelLaunch, device: int, stream: int) -> Packed | None:
    """Bind a launch to a device and a stream; None when its grid is empty."""
    if 0 in launch.grid:
        return None
    kernel = load_function(launch.file, launch.source, launch.entry, device)
    if launch.shared_bytes > _SHARED_WITHOUT_ASKING:
        with OnDevice(device):
            kernel.max_dynamic_shared_size_bytes = launch.shared_bytes
    words, starts, pointers = _pack_arguments(launch)
    table = np.array([words.ctypes.data + start for start in starts] or [0], np.uint64)
    with OnDevice(device):
        function = kernel.kernel
    call = partial(
        driver.launchKernel, function.ptr, *launch.grid, *launch.block, launch.shared_bytes,
        stream, table.ctypes.data, 0,
    )  # fmt: skip
    # The call holds addresses only. Not by a subclass of partial: its calls would be slower.
    call.__dict__["keep"] = (kernel, function, words, table)
    return Packed(call, words, pointers)


def _pack_arguments(
    launch: KernelLaunch,
) -> tuple[np.ndarray[Any, Any], list[int], tuple[tuple[int, Any], ...]]:
    parts: list[bytes] = []
    starts: list[int] = []
    pointers: list[tuple[int, Any]] = []
    top = 0
    for position, arg in enumerate(launch.args):
        if isinstance(arg, cupy.ndarray):
            pointers.append((top // 8, arg))
            data = int(arg.data.ptr).to_bytes(8, "little")
        elif isinstance(arg, np.generic) or (isinstance(arg, np.ndarray) and arg.ndim == 0):
            data = arg.tobytes()
        else:
            raise _bad_argument(launch, position, arg)
        starts.append(top)
        padded = -(-len(data) // _ARGUMENT_ALIGNMENT) * _ARGUMENT_ALIGNMENT
        parts.append(data.ljust(padded, b"\0"))
        top += padded
    words = np.zeros(top // 8 + 2, np.uint64)
    # Structs are aligned like the widest member, at most 16 bytes; NumPy promises that much.
    words.view(np.uint8)[:top] = np.frombuffer(b"".join(parts), np.uint8)
    return words, starts, tuple(pointers)


def _bad_argument(launch: KernelLaunch, position: int, arg: object) -> NetError:
    return NetError(
        message(
            f"kernel {launch.entry!r}", f"argument {position}",
            expected="a blob or a NumPy scalar", got=f"{type(arg).__name__} {arg!r}",
            remedy="Say how wide it is: np.int32(n), np.float32(x).",
        )
    )  # fmt: skip


def run_in_order(calls: Sequence[Callable[[], object]], keep: object = None) -> None:
    """Run several calls as one; `keep` lives as long as whoever holds the arguments."""
    for call in calls:
        call()
