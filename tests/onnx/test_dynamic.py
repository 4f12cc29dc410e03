"""Free dimensions: a bounded cache of plans by signature, from one thread and from several."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from helpers.onnx_models import textual
from onnx import parser

from asyncnet_gpu.errors import AsyncNetError, NetError, OnnxImportError, ShapeError
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import Limits, OnnxNet, load_onnx

ROWS = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[N,3] x) => (y, count) {
    shape = Shape <start = 0, end = 1> (x)
    count = Identity (shape)
    tail = Constant <value = int64[1] {-1}> ()
    target = Concat <axis = 0> (tail)
    flat = Reshape (x, target)
    y = Softmax <axis = 0> (flat)
}"""

#: The shape of the result is the value of an input.
TARGET = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[2,6] x, int64[2] target) => (y) { y = Reshape (x, target) }"""

#: `k` decides shapes only where `way` takes the first branch.
SOMETIMES = """
<ir_version: 9, opset_import: ["" : 18]>
agraph (float[6] x, int64[1] k, bool way) => (y) {
    y = If (way) <
        then_branch = t () => (a) { a, places = TopK (x, k) },
        else_branch = e () => (b) { c = Cast <to = 1> (k)  b = Add (x, c) }
    >
}"""


def net_of(text: str, **options: Any) -> Any:
    return load_onnx(parser.parse_model(text).SerializeToString(), **options)


def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    e = np.exp(x - x.max())
    return e / e.sum()


def rows(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32)


def test_each_shape_has_a_plan_and_the_oldest_goes() -> None:
    net = net_of(ROWS)
    assert isinstance(net, OnnxNet)
    assert net.inputs["x"] == (np.dtype("float32"), ("N", 3))
    with net.compile(backend="cpu", mode="serial", max_plans=2) as exe:
        made: dict[int, Any] = {}
        for n in (1, 2, 1, 3, 1, 2):  # 2 is the one unused for longest when 3 comes
            outputs = exe.run(x=rows(n))
            np.testing.assert_allclose(outputs["y"], softmax(rows(n).reshape(-1)), rtol=1e-5)
            assert outputs["count"].tolist() == [n]
            assert exe.n_plans <= 2
            plan = exe.plan_for(x=rows(n))
            if n == 1:
                assert made.setdefault(1, plan) is plan
            elif n in made:
                assert made[n] is not plan
            else:
                made[n] = plan
        with pytest.raises(AsyncNetError, match="closed"):  # fell out, and was freed
            made[3].close() or made[3].run(x=rows(3))


def test_a_bound_shape_is_an_ordinary_net() -> None:
    net = net_of(ROWS, shapes={"x": (4, 3)})
    assert isinstance(net, AsyncNet)
    # All shape arithmetic is gone: what is left reads the input.
    assert [d.op.name for d in net.definitions] == ["reshape", "softmax"]
    with net.compile(backend="cpu") as fixed, net_of(ROWS).compile(backend="cpu") as free:
        one, other = fixed.run(x=rows(4)), free.run(x=rows(4))
    assert np.array_equal(one["y"], other["y"])


def test_values_that_decide_shapes_are_part_of_the_signature() -> None:
    net = net_of(TARGET)
    assert isinstance(net, OnnxNet)
    assert net.bound == {"target"}
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    target = np.array([3, 4])
    with net.compile(backend="cpu") as exe:
        assert exe.run(x=x, target=target)["y"].shape == (3, 4)
        target[:] = (12, 1)  # the caller's array is no part of the plan
        assert exe.run(x=x, target=target)["y"].shape == (12, 1)
        assert exe.run(x=x, target=np.array([3, 4]))["y"].shape == (3, 4)
        assert exe.n_plans == 2
        with pytest.raises(OnnxImportError, match="Reshape"):
            exe.run(x=x, target=np.array([5, 5]))
        with pytest.raises(ShapeError, match="int64"):
            exe.run(x=x, target=np.array([3, 4], np.int32))
        assert exe.n_plans == 2  # a refused signature leaves nothing behind
    assert isinstance(net_of(TARGET, values={"target": [4, 3]}), AsyncNet)


def test_what_is_bound_may_grow_while_older_plans_are_in_use() -> None:
    net = net_of(SOMETIMES)
    assert isinstance(net, OnnxNet)
    x, k = np.arange(6, dtype=np.float32), np.array([2])
    with net.compile(backend="cpu") as exe:
        plain = exe.run(x=x, k=k, way=np.array(False))["y"]
        np.testing.assert_array_equal(plain, x + 2)
        assert net.bound == {"way"}
        assert exe.run(x=x, k=k, way=np.array(True))["y"].tolist() == [5, 4]
        assert net.bound == {"way", "k"}
        np.testing.assert_array_equal(exe.run(x=x, k=k, way=np.array(False))["y"], plain)


def test_a_large_value_is_never_bound() -> None:
    net = net_of(TARGET, limits=Limits(max_bound_bytes=8))
    with net.compile(backend="cpu") as exe, pytest.raises(OnnxImportError, match="at most 8 bytes"):
        exe.run(x=np.zeros((2, 6), np.float32), target=np.array([3, 4]))


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 2, 3)])
def test_shapes_that_the_model_does_not_take(shape: tuple[int, ...]) -> None:
    x = rows(2).reshape(shape)
    with net_of(ROWS).compile(backend="cpu") as exe, pytest.raises(ShapeError, match="input 'x'"):
        exe.run(x=x)


def test_names_and_options_are_checked() -> None:
    net = net_of(ROWS)
    with net.compile(backend="cpu") as exe:
        with pytest.raises(NetError, match="inputs do not fit"):
            exe.run(z=rows(2))
        with pytest.raises(NetError, match="inputs do not fit"):
            exe.run()
    with pytest.raises(AsyncNetError, match="closed"):
        exe.run(x=rows(2))
    with pytest.raises(NetError, match="max_plans"):
        net.compile(max_plans=0)
    with pytest.raises(NetError, match="no input 'z'"):
        net_of(ROWS, shapes={"z": (1,)})
    with pytest.raises(ShapeError, match="input 'x'"):
        net_of(ROWS, shapes={"x": (1, 4)})


def test_threads_share_plans_and_evict_each_others() -> None:
    net = net_of(ROWS)
    wanted = {n: softmax(rows(n).reshape(-1)) for n in range(1, 6)}
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for n in rng.integers(1, 6, 25):
                if rng.random() < 0.5:
                    outputs = exe.run(x=rows(n))
                else:
                    outputs = exe.submit(x=rows(n)).result(timeout_s=30)
                np.testing.assert_allclose(outputs["y"], wanted[n], rtol=1e-5)
        except BaseException as error:
            problems.append(error)

    with net.compile(backend="cpu", mode="serial", max_plans=2) as exe:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert exe.n_plans == 2
    assert not problems, problems


def test_a_condition_on_shapes_is_resolved_for_each_signature() -> None:
    net = load_onnx(textual()["if_of_a_shape"])
    x = {n: rows(n) for n in (2, 3)}
    with net.compile(backend="cpu") as exe:
        np.testing.assert_array_equal(exe.run(x=x[2])["y"], 2 * x[2])
        np.testing.assert_array_equal(exe.run(x=x[3])["y"], -x[3])
    chosen = load_onnx(textual()["if_of_a_shape"], shapes={"x": (2, 3)})
    assert [d.op.name for d in chosen.definitions] == ["add"]
