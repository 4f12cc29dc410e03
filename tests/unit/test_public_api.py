"""What the public interface refuses while a net is built, and what importing it needs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag


def fill(xp: Any, *arrays: Any, out: Any) -> None:
    out[...] = 0


class Net:
    """A net with what the cases need."""

    def __init__(self) -> None:
        self.net = ag.AsyncNet("user")
        self.x = self.net.input("x", (3, 4), "float32")
        self.i = self.net.input("i", (3, 4), "int32")
        self.w = self.net.parameter("w", np.ones((5, 2), np.float32))
        self.h = self.net.relu(self.x, name="h")
        with self.net.device(1):
            self.far = self.net.relu(self.x, name="far")


#: What the user writes, the class of the error, how it begins and what it must say.
CASES: dict[str, tuple[Callable[[Net], object], type[Exception], str]] = {
    "unknown blob": (lambda n: n.net.relu("hh"), ag.NetError, r"unknown blob 'hh'.*Did you mean"),
    "unknown blob to look up": (lambda n: n.net.blob("g"), ag.NetError, "unknown blob 'g'"),
    "unknown node in after": (
        lambda n: n.net.relu(n.x, after=["nobody"]), ag.NetError,
        r"unknown node 'nobody'.*defined earlier.*a later one would close a cycle",
    ),
    "cycle through after": (
        lambda n: n.net.relu(n.x, name="a", after=["a"]), ag.NetError, "after itself.*no cycle",
    ),
    "cycle through a later node": (
        lambda n: (n.net.relu(n.x, name="a", after=["b"]), n.net.relu(n.x, name="b")),
        ag.NetError, "unknown node 'b'.*close a cycle",
    ),
    "duplicate input": (lambda n: n.net.input("x", (1,)), ag.NetError, "name 'x' is taken"),
    "duplicate parameter": (
        lambda n: n.net.parameter("w", [1.0]), ag.NetError, "name 'w' is taken",
    ),
    "duplicate constant": (
        lambda n: n.net.constant(1.0, name="w"), ag.NetError, "name 'w' is taken",
    ),
    "duplicate node": (
        lambda n: n.net.neg(n.x, name="h"), ag.NetError,
        r"node name 'h' is taken: expected a new name \(first used at",
    ),
    "duplicate output": (
        lambda n: (n.net.output(y=n.h), n.net.output(y=n.x)), ag.NetError, "'y' is declared twice",
    ),
    "wrong shape": (lambda n: n.net.matmul(n.x, n.w), ag.ShapeError, r"^\[matmul\] "),
    "shapes that do not broadcast": (
        lambda n: n.net.add(n.x, n.w), ag.ShapeError, r"\(3, 4\) and \(5, 2\)",
    ),
    "axis out of range": (
        lambda n: n.net.split(n.x, axis=2, parts=2), ag.ShapeError, "out of range",
    ),
    "negative extent": (lambda n: n.net.input("y", (-1,)), ag.ShapeError, "bad shape"),
    "number of inputs": (
        lambda n: n.net.relu(n.x, n.x), ag.ShapeError, "wrong number of inputs: expected 1, got 2",
    ),
    "unsupported dtype of an input": (
        lambda n: n.net.input("y", (3,), "complex64"), ag.ShapeError, "unsupported dtype",
    ),
    "unsupported dtype of a parameter": (
        lambda n: n.net.parameter("p", ["text"]), ag.ShapeError, "unsupported dtype",
    ),
    "unsupported dtype of an operator": (
        lambda n: n.net.sigmoid(n.i), ag.ShapeError, r"unsupported dtype: expected one of float",
    ),
    "mixed dtypes": (lambda n: n.net.add(n.x, n.i), ag.ShapeError, "dtypes differ"),
    "unsupported dtype of a call": (
        lambda n: n.net.call(fill, n.x, shape=3, dtype="object"), ag.ShapeError,
        "unsupported dtype",
    ),
    "unsupported dtype of a kernel": (
        lambda n: n.net.kernel("", "k", [n.x], out=(3, "no"), grid=1, block=1), ag.ShapeError,
        "unsupported dtype",
    ),
    "empty grid": (
        lambda n: n.net.kernel("", "k", [n.x], out=(3, "int32"), grid=0, block=1), ag.NetError,
        "bad grid or block",
    ),
    "barrier out of place": (
        lambda n: n.net.barrier(n.h, outputs=["fresh"]), ag.NetError,
        "would order nothing.*Leave outputs out",
    ),
    "barrier definition out of place": (
        lambda n: ag.AsyncBarrierOp((n.h,), outputs=("fresh",)).add_to(n.net), ag.NetError,
        "would order nothing",
    ),
    "net barrier definition out of place": (
        lambda n: ag.AsyncNetBarrierOp((n.h,), outputs=("fresh",)).add_to(n.net), ag.NetError,
        "would order nothing",
    ),
    "barrier with a blob twice": (
        lambda n: n.net.barrier(n.h, n.h), ag.NetError, "a blob is given twice",
    ),
    "barrier across devices on one": (
        lambda n: n.net.barrier(n.h, n.far, cross_device=False), ag.NetError,
        "several devices.*cross_device=True",
    ),
    "blob of another net": (
        lambda n: n.net.relu(Net().h), ag.NetError, "not a blob of this net",
    ),
    "output of another net": (
        lambda n: n.net.output(Net().h), ag.NetError, "not a blob of this net",
    ),
    "no blob": (lambda n: n.net.relu(None), ag.NetError, "not a blob of this net"),
    "update of a result": (
        lambda n: n.net.assign(n.h, n.x), ag.NetError, "cannot update 'h' in place",
    ),
    "unknown attribute": (
        lambda n: n.net.softmax(n.x, axes=1), ag.NetError, "unknown attribute axes",
    ),
    "missing attribute": (
        lambda n: n.net.reshape(n.x), ag.NetError, "attribute 'shape' is missing",
    ),
    "number of names": (
        lambda n: n.net.split(n.x, axis=1, parts=2, name=["a", "b", "c"]), ag.NetError,
        "expected 2 names, got 3",
    ),
    "device": (lambda n: n.net.device(-1), ag.NetError, "device -1"),
    "no outputs": (lambda n: n.net.compile(backend="cpu"), ag.NetError, "no outputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_errors_of_the_user_are_raised_while_building_and_name_the_line(case: str) -> None:
    act, kind, pattern = CASES[case]
    net = Net()
    with pytest.raises(kind, match=pattern) as caught:
        act(net)
    assert isinstance(caught.value, ag.AsyncNetError)
    assert isinstance(caught.value, ValueError)
    mine = [f for f in traceback.extract_tb(caught.tb) if f.filename == __file__]
    assert f"{__file__}:{mine[-1].lineno}" in str(caught.value), str(caught.value)
    # Nothing half-made is left behind: the net can be finished.
    net.net.output(last=net.net.neg(net.h))
    with net.net.compile(backend="cpu", mode="serial") as exe:
        exe.run(x=np.ones((3, 4), np.float32), i=np.ones((3, 4), np.int32))


@pytest.mark.parametrize(
    ("inputs", "kind", "pattern"),
    [
        ({}, ag.NetError, "missing i, x"),
        ({"x": 1, "i": 1, "z": 1}, ag.NetError, "unknown z"),
        ({"x": np.ones((4, 3), np.float32)}, ag.ShapeError, r"expected float32\[3, 4\], got"),
        ({"x": np.ones((3, 4))}, ag.ShapeError, r"got float64\[3, 4\]"),
        ({"x": "text"}, ag.ShapeError, "input"),
        ({"x": object()}, ag.ShapeError, "input"),
    ],
)
@pytest.mark.parametrize("how", ["run", "submit"])
def test_wrong_inputs_are_refused_before_anything_runs(
    how: str, inputs: dict[str, Any], kind: type[Exception], pattern: str
) -> None:
    net = Net()
    started: list[int] = []

    def note(xp: Any, a: Any, out: Any) -> None:
        started.append(1)
        out[...] = a

    net.net.output(net.net.call(note, net.x, shape=(3, 4), dtype="float32", name="y"))
    net.net.output(net.net.neg(net.i, name="z"))
    with net.net.compile(backend="cpu", mode="serial") as exe:
        full = {"i": np.ones((3, 4), np.int32), **inputs} if inputs else {}
        with pytest.raises(kind, match=pattern) as caught:
            getattr(exe, how)(full)
        if kind is ag.ShapeError:
            assert "input 'x': float32[3, 4]" in "".join(caught.value.__notes__)
        assert not started


PROMISED = {
    "AsyncNet": "input parameter constant output barrier device call kernel compile to_dict",
    "Executable": "run submit plan mode backend why close trace get_parameter set_parameter",
    "Run": "result done cancel exception add_done_callback",
    "AsyncNetBarrier": "wait reached of",
}


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there_and_documented(name: str) -> None:
    cls = getattr(ag, name)
    assert inspect.getdoc(cls)
    for member in PROMISED[name].split():
        if member == "backend":
            assert "backend" in inspect.getdoc(cls)
            continue
        assert inspect.getdoc(inspect.getattr_static(cls, member)), f"{name}.{member}"


def test_everything_in_all_exists() -> None:
    assert {"AsyncNet", "AsyncBarrierOp", "AsyncNetBarrierOp", "AsyncNetBarrier"} <= set(ag.__all__)
    for name in ag.__all__:
        assert hasattr(ag, name)


def test_importing_and_running_on_the_cpu_needs_no_cuda_library(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys

            class Refuse:
                def find_spec(self, name, path=None, target=None):
                    if name.split(".")[0] in ("cupy", "cupyx", "cupy_backends", "nvmath", "cuda"):
                        raise ImportError(f"{name} is not installed")

            sys.meta_path.insert(0, Refuse())
            import numpy as np
            import asyncnet_gpu as ag

            net = ag.AsyncNet()
            x = net.input("x", (3,), "float32")
            net.output(net.relu(x, name="y"))
            with net.compile() as exe:  # "auto": nothing but the CPU is left
                assert exe.backend == "cpu", exe.backend
                print(exe.run(x=np.ones(3, np.float32))["y"])
            try:
                net.compile(backend="cuda")
            except ag.DeviceError as error:
                print(error)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[2], env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "[1. 1. 1.]" in done.stdout
    assert "cuda" in done.stdout.lower()
