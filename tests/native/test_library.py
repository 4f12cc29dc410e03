"""The compiled library: found, refused, missing, switched off."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from asyncnet_gpu.backends.cpu.native import library as module
from asyncnet_gpu.backends.cpu.native.calls import native
from asyncnet_gpu.backends.cpu.native.library import SWITCH, library, missing

FILES = ("call_list.c", "call_list.so", "build.py")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder in which the library is looked for: a copy of the one in use."""
    assert library() is not None
    source = next(f for f in module._FOLDERS if (f / "call_list.so").is_file())
    for name in FILES:
        shutil.copy2(source / name, tmp_path)
    monkeypatch.setattr(module, "_FOLDERS", (tmp_path,))
    module._load.cache_clear()
    yield tmp_path
    module._load.cache_clear()


def negate() -> tuple[partial[object], np.ndarray]:
    out = np.zeros(3)
    return partial(np.negative, np.ones(3), out=out), out


def test_found_and_called(folder: Path) -> None:
    call, out = negate()
    launch = native(call)
    assert launch is not call
    launch()
    assert out.tolist() == [-1, -1, -1]
    assert missing() == ""
    assert library() is library()


def test_of_another_source(folder: Path) -> None:
    with (folder / "call_list.c").open("a") as file:
        file.write("/* changed since */\n")
    with pytest.warns(RuntimeWarning, match=r"^\[cpu\] call_list\.so is out of date: ") as seen:
        assert library() is None
    assert len(seen) == 1
    message = str(seen[0].message)
    assert f"python {folder / 'build.py'}" in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert library() is None, "said once"
        assert missing() == message
        call, _ = negate()
        assert native(call) is call


def test_not_there(folder: Path) -> None:
    (folder / "call_list.so").unlink()
    assert library() is None
    assert "not compiled" in missing()
    assert "C compiler" in missing()
    call, _ = negate()
    assert native(call) is call


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF"])
def test_not_to_be_loaded(folder: Path, content: bytes) -> None:
    path = folder / "call_list.so"
    path.unlink()  # not written over: another process may have the file open
    path.write_bytes(content)
    assert library() is None
    assert str(path) in missing()


def test_without_its_source(folder: Path) -> None:
    (folder / "call_list.c").unlink()
    assert library() is None
    assert "call_list.c" in missing()


def test_another_library_of_that_name(folder: Path) -> None:
    import numpy._core._multiarray_umath as umath

    path = folder / "call_list.so"
    path.unlink()
    shutil.copy2(umath.__file__, path)
    assert library() is None
    assert f"{path} cannot be loaded" in missing()


def test_switched_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    assert SWITCH == "ASYNCNET_NATIVE"
    assert library() is None
    assert missing() == "ASYNCNET_NATIVE=0"
    call, _ = negate()
    assert native(call) is call
    monkeypatch.setenv(SWITCH, "1")
    assert library() is not None
    assert missing() == ""
