"""Models that take or give sequences, optional values and strings."""

import threading

import numpy as np
import pytest
from helpers.forks import in_child
from onnx import TensorProto, helper

from asyncnet_gpu.errors import NetError, OnnxImportError
from asyncnet_gpu.onnx import StructuredNet, load_onnx
from asyncnet_gpu.onnx.ports import text_array, text_bytes
from asyncnet_gpu.onnx.structured import MAX_LAYOUTS

FLOAT = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
TEXT = helper.make_tensor_type_proto(TensorProto.STRING, ["n"])
SEQUENCE = helper.make_sequence_type_proto(FLOAT)


def load(nodes, inputs, outputs, opset=23):
    def infos(types):
        return [helper.make_value_info(name, type_) for name, type_ in types.items()]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return load_onnx(made)


def join():
    return load([helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)],
                {"s": SEQUENCE}, {"y": FLOAT})  # fmt: skip


def rows(*counts):
    return [np.full((n, 2), i, np.float32) for i, n in enumerate(counts)]


def test_a_sequence_of_any_length_goes_in():
    net = join()
    assert isinstance(net, StructuredNet)
    with net.compile(backend="cpu") as exe:
        for parts in (rows(1), rows(2, 3), rows(3, 2), rows(1, 1, 1)):
            assert np.array_equal(exe.run(s=parts)["y"], np.concatenate(parts))
        assert exe.n_layouts == 3


def test_a_forked_child_runs_it_whoever_held_its_lock():
    wanted = np.concatenate(rows(2, 3))

    def child():
        assert np.array_equal(exe.run(s=rows(2, 3))["y"], wanted)
        assert np.array_equal(exe.submit(s=rows(2, 3)).result(20)["y"], wanted)

    with join().compile(backend="cpu") as exe:
        child()
        with exe._lock:
            in_child(child)
        child()


def test_a_sequence_comes_out():
    net = load([helper.make_node("SplitToSequence", ["x"], ["s"], axis=0, keepdims=1)],
               {"x": FLOAT}, {"s": SEQUENCE})  # fmt: skip
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    with net.compile(backend="cpu") as exe:
        made = exe.run(x=x)["s"]
        assert isinstance(made, list)
        assert np.array_equal(np.stack(made), x[:, None])
        assert exe.run(x=x[:0])["s"] == []


def test_layouts_are_forgotten_beyond_a_bound():
    with join().compile(backend="cpu") as exe:
        for n in range(1, MAX_LAYOUTS + 4):
            exe.run(s=rows(*[1] * n))
        assert exe.n_layouts == MAX_LAYOUTS
        assert exe.run(s=rows(1))["y"].shape == (1, 2)


def test_optional_values_may_be_missing():
    optional = helper.make_optional_type_proto(FLOAT)
    known = helper.make_tensor_type_proto(TensorProto.BOOL, [])
    net = load([helper.make_node("OptionalHasElement", ["o"], ["there"]),
                helper.make_node("Identity", ["o"], ["y"])],
               {"o": optional}, {"there": known, "y": optional})  # fmt: skip
    with net.compile(backend="cpu") as exe:
        assert exe.run(o=None) == exe.run() == {"there": np.False_, "y": None}
        (x,) = rows(3)
        made = exe.run(o=x)
        assert made["there"]
        assert np.array_equal(made["y"], x)


def test_texts_go_in_and_come_out():
    net = load([helper.make_node("StringConcat", ["a", "b"], ["y"])],
               {"a": TEXT, "b": TEXT}, {"y": TEXT})  # fmt: skip
    with net.compile(backend="cpu") as exe:
        for a in (["x", "ü"], ["", "\0"]):
            made = exe.run(a=np.array(a, object), b=np.array(["1", "2"]))["y"]
            assert made.tolist() == [a[0] + "1", a[1] + "2"]


@pytest.mark.parametrize("texts", [[], [["a", "b"]], "scalar"])
def test_texts_survive_as_bytes(texts):
    array = np.array(texts, object)
    made = text_array(text_bytes(array))
    assert made.shape == array.shape
    assert made.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [({"s": np.zeros((1, 2), "f4")}, "a list"), ({"s": [None]}, "an array"), ({}, "s"),
     ({"s": rows(1), "t": 1}, "s")],
)  # fmt: skip
def test_other_kinds_of_values_are_refused(inputs, expected):
    with join().compile(backend="cpu") as exe, pytest.raises(NetError, match=expected):
        exe.run(inputs)


def test_a_result_of_another_kind_is_refused():
    net = load([helper.make_node("Identity", ["s"], ["y"])], {"s": SEQUENCE}, {"y": FLOAT})
    with net.compile(backend="cpu") as exe, pytest.raises(OnnxImportError, match="output 'y'"):
        exe.run(s=rows(1))


def test_threads_run_different_layouts_at_once():
    wrong = []
    with join().compile(backend="cpu", mode="serial") as exe:

        def work(n):
            for k in range(12):
                parts = rows(*[1] * (1 + (n + k) % (MAX_LAYOUTS + 2)))
                if not np.array_equal(exe.run(s=parts)["y"], np.concatenate(parts)):
                    wrong.append((n, k))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert not any(thread.is_alive() for thread in threads)
