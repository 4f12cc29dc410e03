"""External data: read from the model's folder and from nowhere else, whatever the file says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx import Limits, load_onnx
from asyncnet_gpu.onnx.external import ExternalData

VALUES = np.arange(12, dtype=np.float32)
SECRET = b"secret!!" * 16


def model_with(entries: dict[str, str], dims: tuple[int, ...] = (12,)) -> onnx.ModelProto:
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=dims)
    weights.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weights"], ["y"], name="sum")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)], [weights],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with a file outside it that nobody may read."""
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "data.bin").write_bytes(b"head" + VALUES.tobytes() + b"tail")
    (inside / "sub").mkdir()
    (inside / "sub" / "deep.bin").write_bytes(VALUES.tobytes())
    (tmp_path / "secret").write_bytes(SECRET)
    return inside


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all reads through `os.read`, which is how external data are read."""
    sizes: list[int] = []
    read = os.read

    def noted(descriptor: int, size: int) -> bytes:
        sizes.append(size)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", noted)
    return sizes


def load(folder: Path, entries: dict[str, str], **options: Any) -> Any:
    path = folder / "model.onnx"
    path.write_bytes(model_with(entries).SerializeToString())
    return load_onnx(path, **options)


def weights_of(net: Any) -> np.ndarray[Any, Any]:
    value: np.ndarray[Any, Any] = next(s.value for s in net.sources if s.name == "weights")
    return value


@pytest.mark.parametrize(
    "entries",
    [
        {"location": "data.bin", "offset": "4", "length": "48"},
        {"location": "data.bin", "offset": "4"},
        {"location": "sub/deep.bin"},
    ],
)
def test_data_in_the_folder_are_read(
    entries: dict[str, str], folder: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert np.array_equal(weights_of(load(folder, entries)), VALUES)
    assert sum(reads) == VALUES.nbytes  # not a byte beside it
    monkeypatch.chdir(folder)
    assert np.array_equal(weights_of(load_onnx("model.onnx")), VALUES)


OUTSIDE = {
    "dots": lambda f: "../secret",
    "dots within": lambda f: "sub/../../secret",
    "dots that stay": lambda f: "sub/../data.bin",
    "absolute": lambda f: str(f.parent / "secret"),
    "absolute inside": lambda f: str(f / "data.bin"),
    "backslash": lambda f: "..\\secret",
    "drive": lambda f: "C:secret",
    "address": lambda f: "file:///etc/passwd",
    "null": lambda f: "data.bin\0x",
    "empty": lambda f: "",
    "dot": lambda f: ".",
    "slash": lambda f: "/",
    "a directory": lambda f: "sub",
    "missing": lambda f: "nothing.bin",
    "missing directory": lambda f: "none/nothing.bin",
    "a file as directory": lambda f: "data.bin/x",
    "device": lambda f: "/dev/zero",
    "long": lambda f: "x" * 5000,
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_paths_that_lead_elsewhere(kind: str, folder: Path, reads: list[int]) -> None:
    where: Callable[[Path], str] = OUTSIDE[kind]
    with pytest.raises(OnnxImportError, match=r"initializer 'weights'.*external data") as caught:
        load(folder, {"location": where(folder)})
    assert not reads
    assert "secret!!" not in str(caught.value)


def test_symbolic_links(folder: Path, reads: list[int]) -> None:
    (folder / "link.bin").symlink_to(folder.parent / "secret")
    (folder / "up").symlink_to(folder.parent)
    (folder / "inside.bin").symlink_to(folder / "data.bin")
    for location in ("link.bin", "up/secret", "inside.bin"):
        with pytest.raises(OnnxImportError, match="external data"):
            load(folder, {"location": location})
    assert not reads


def test_the_folder_itself_may_be_a_link(folder: Path) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    load(folder, {"location": "sub/deep.bin"})
    assert np.array_equal(weights_of(load_onnx(link / "model.onnx")), VALUES)


def test_hard_links(folder: Path, reads: list[int]) -> None:
    os.link(folder.parent / "secret", folder / "hard.bin")
    with pytest.raises(OnnxImportError, match="hard link"):
        load(folder, {"location": "hard.bin"})
    assert not reads


def test_pipes_do_not_block(folder: Path, reads: list[int]) -> None:
    os.mkfifo(folder / "pipe.bin")
    with pytest.raises(OnnxImportError, match="kind of file"):
        load(folder, {"location": "pipe.bin"})
    assert not reads


@pytest.mark.parametrize(
    ("offset", "length", "what"),
    [
        ("9", None, "offset and length"),
        ("1000", "48", "offset and length"),
        ("-4", "48", "offset"),
        ("4", "-48", "length"),
        ("4", "47", "length"),
        ("4", "4800", "length"),
        ("4", "99999999999999999999999999", "length"),
        ("18446744073709551615", "48", "offset"),
        ("9223372036854775807", "48", "offset and length"),
        ("4.0", None, "offset"),
        ("0x4", None, "offset"),
        ("٤", None, "offset"),
        ("", None, "offset"),
    ],
)
def test_offsets_and_lengths_outside(
    offset: str, length: str | None, what: str, folder: Path, reads: list[int]
) -> None:
    entries = {"location": "data.bin", "offset": offset}
    with pytest.raises(OnnxImportError, match=f"external data: {what}"):
        load(folder, entries | ({} if length is None else {"length": length}))
    assert not reads


def test_sizes_are_checked_before_the_file_is_opened(folder: Path, reads: list[int]) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model_with({"location": "data.bin"}, (1 << 40,)).SerializeToString())
    with pytest.raises(OnnxImportError, match="max_tensor_bytes"):
        load_onnx(path)
    path.write_bytes(model_with({"location": "data.bin"}, (2**62, 2**62)).SerializeToString())
    with pytest.raises(OnnxImportError, match="max_tensor_bytes"):
        load_onnx(path)
    model = model_with({"location": "data.bin"})
    model.graph.initializer[0].dims[0] = -12
    path.write_bytes(model.SerializeToString())
    with pytest.raises(OnnxImportError, match="at least 0"):
        load_onnx(path)
    assert not reads


def test_many_tensors_over_the_same_bytes_count_each(folder: Path) -> None:
    """A small file cannot fill the memory by being read over and over."""
    with (folder / "large.bin").open("wb") as file:
        file.truncate(1 << 20)
    model = model_with({"location": "large.bin", "length": str(1 << 20)}, (1 << 18,))
    first = model.graph.initializer[0]
    for i in range(9):
        again = model.graph.initializer.add()
        again.CopyFrom(first)
        again.name = f"weights{i}"
        source = "y" if i == 0 else f"y{i - 1}"
        model.graph.node.append(helper.make_node("Add", [source, again.name], [f"y{i}"]))
    model.graph.output[0].name = "y8"
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    load_onnx(path)
    with pytest.raises(OnnxImportError, match="max_constant_bytes"):
        load_onnx(path, limits=Limits(max_constant_bytes=8 << 20))


def test_a_model_without_a_folder_has_no_external_data() -> None:
    with pytest.raises(OnnxImportError, match="no folder"):
        load_onnx(model_with({"location": "data.bin"}).SerializeToString())


def test_a_file_that_shrinks_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "read", lambda descriptor, size: b"")
    with pytest.raises(OnnxImportError, match="ended early"):
        ExternalData(str(folder)).read({"location": "data.bin"}, 48, "here")


def test_no_descriptor_is_left_open(folder: Path) -> None:
    os.mkfifo(folder / "pipe.bin")
    before = len(os.listdir("/proc/self/fd"))
    for location in ("pipe.bin", "sub/deep.bin", "none/x", "sub", "data.bin/x"):
        with contextlib.suppress(OnnxImportError):
            load(folder, {"location": location})
    assert len(os.listdir("/proc/self/fd")) == before
