"""Tensors kept in files beside the model: opened by us, from the model's folder and nowhere else.

A location is a relative path inside the folder. Each part is opened relative to the one before and
without following links, so that nothing can be exchanged between a check and its use; the file
must be a regular one with a single name, and offset and length must lie inside it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NoReturn, final

from asyncnet_gpu.errors import OnnxImportError, message


def _refuse(where: str, what: str, expected: object, got: object) -> NoReturn:
    raise OnnxImportError(
        message(where, f"external data: {what}", expected=expected, got=repr(got),
                remedy="Keep the data in a plain file beside the model, as exporters do.")
    )  # fmt: skip


def _parts(location: str, where: str) -> tuple[str, ...]:
    """Split a location into names that cannot lead out of the folder."""
    wanted = "a relative path inside the model's folder"
    path = PurePosixPath(location)
    bad = {"..", "."}
    if not location or "\\" in location or "\0" in location or ":" in location:
        _refuse(where, "location", wanted, location)
    if path.is_absolute() or bad.intersection(location.split("/")) or not path.parts:
        _refuse(where, "location", wanted, location)
    return path.parts


def _number(entries: Mapping[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        _refuse(where, key, "a number of bytes", text)
    return int(text)


@final
class ExternalData:
    """Reader of external data for one model.

    Parameters
    ----------
    folder
        Folder of the model file; None for a model given as bytes, which has none.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def read(self, entries: Mapping[str, str], nbytes: int, where: str) -> bytes:
        """Return the bytes of a tensor.

        Parameters
        ----------
        entries
            ``location``, ``offset`` and ``length`` as the file gives them.
        nbytes
            What shape and dtype need; a length given must be that.
        """
        if self._folder is None:
            _refuse(where, "no folder", "a model loaded from a path", "bytes")
        parts = _parts(entries.get("location", ""), where)
        offset = _number(entries, "offset", 0, where)
        length = _number(entries, "length", nbytes, where)
        if length != nbytes:
            _refuse(where, "length", f"{nbytes} bytes", length)
        descriptor = self._open(parts, where)
        try:
            self._check(os.fstat(descriptor), offset + length, where)
            return _read_exactly(descriptor, offset, length, where)
        finally:
            os.close(descriptor)

    def _open(self, parts: tuple[str, ...], where: str) -> int:
        """Open a file below the folder without following any link on the way."""
        assert self._folder is not None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        # A pipe would block the open for ever.
        flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            if os.open not in os.supports_dir_fd:
                return self._open_by_path(parts, flags, where)
            here = os.open(self._folder or ".", os.O_RDONLY)
            try:
                for name in parts[:-1]:
                    inner = os.open(name, flags | os.O_DIRECTORY, dir_fd=here)
                    os.close(here)
                    here = inner
                return os.open(parts[-1], flags, dir_fd=here)
            finally:
                os.close(here)
        except OSError as error:
            _refuse(where, "cannot open", "/".join(parts), error.strerror)

    def _open_by_path(self, parts: tuple[str, ...], flags: int, where: str) -> int:
        """Do the same where directories cannot be opened (Windows)."""
        folder = os.path.realpath(self._folder or ".")
        path = os.path.join(folder, *parts)
        if os.path.realpath(path) != path:
            _refuse(where, "a link on the way", path, os.path.realpath(path))
        return os.open(path, flags)

    def _check(self, status: os.stat_result, end: int, where: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            _refuse(where, "kind of file", "a regular file", stat.filemode(status.st_mode))
        if status.st_nlink > 1:
            # A hard link made by whoever unpacked the model could name any file of the disk.
            _refuse(where, "hard link", "a file with one name", status.st_nlink)
        if end > status.st_size:
            _refuse(where, "offset and length", f"inside {status.st_size} bytes", end)


def _read_exactly(descriptor: int, offset: int, length: int, where: str) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    chunks = []
    left = length
    while left:
        chunk = os.read(descriptor, min(left, 1 << 28))
        if not chunk:
            _refuse(where, "file ended early", f"{length} bytes", length - left)
        chunks.append(chunk)
        left -= len(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
