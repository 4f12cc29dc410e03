"""Named dimensions: one number in all inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.staged_models import NOTHING_BOUND, counting
from onnx import TensorProto, helper, parser

from asyncnet_gpu.errors import ShapeError
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import OnnxNet, load_onnx
from asyncnet_gpu.onnx.dims import check_shared, shared_names

#: Nothing in it would object to different numbers of rows.
TWO = """
<ir_version: 9, opset_import: ["" : 18]>
two (float[batch,4] ids, float[batch,width] mask) => (y, z) { y = Relu (ids)  z = Relu (mask) }"""


def zeros(*shape: int) -> np.ndarray[Any, Any]:
    return np.zeros(shape, np.float32)


def load(text: str, **options: Any) -> Any:
    return load_onnx(parser.parse_model(text), **options)


@pytest.mark.parametrize("how", ["run", "submit", "plan_for", "trace", "report"])
def test_inputs_that_disagree(how: str) -> None:
    with load(TWO).compile(backend="cpu") as exe:
        assert exe.run(ids=zeros(3, 4), mask=zeros(3, 9))["z"].shape == (3, 9)
        with pytest.raises(ShapeError) as caught:
            made = getattr(exe, how)(ids=zeros(3, 4), mask=zeros(5, 9))
            made.__enter__()  # of trace
        text = str(caught.value)
        assert "dimension 'batch' of the model is one number in all its inputs" in text
        assert "expected 3 as in axis 0 of input 'ids', got 5 in axis 0 of input 'mask'" in text
        assert exe.n_plans == 1


def test_shapes_that_contradict_one_another() -> None:
    fixed = load(TWO, shapes={"ids": (3, 4), "mask": (3, 9)})
    assert isinstance(fixed, AsyncNet)
    with pytest.raises(ShapeError, match=r"load_onnx.*'batch'.*3 as in axis 0 of input 'ids'"):
        load(TWO, shapes={"ids": (3, 4), "mask": (2, 9)})
    with pytest.raises(ShapeError, match=r"2 in axis 0 of input 'mask'"):
        load(TWO, shapes={"mask": (2, 9)}, values={"ids": zeros(3, 4)})


@pytest.mark.parametrize("bound", [{"shapes": {"ids": (3, 4)}}, {"values": {"ids": zeros(3, 4)}}])
def test_what_is_bound_when_loading_holds_for_the_runs(bound: dict[str, Any]) -> None:
    net = load(TWO, **bound)
    assert isinstance(net, OnnxNet)
    given = {"ids": zeros(3, 4)} if "shapes" in bound else {}
    with net.compile(backend="cpu") as exe:
        assert exe.run(given, mask=zeros(3, 2))["z"].shape == (3, 2)
        with pytest.raises(ShapeError, match=r"'batch'.*got 4 in axis 0 of input 'mask'"):
            exe.run(given, mask=zeros(4, 2))
    with pytest.raises(ShapeError, match="'batch'"):
        net.bind({**({"ids": (3, 4)} if given else {}), "mask": (4, 2)})


def test_the_same_name_twice_in_one_input() -> None:
    square = '<ir_version: 9, opset_import: ["" : 18]> sq (float[n,n] x) => (y) { y = Relu (x) }'
    with load(square).compile(backend="cpu") as exe:
        exe.run(x=zeros(3, 3))
        with pytest.raises(ShapeError, match=r"3 as in axis 0 of input 'x', got 2 in axis 1"):
            exe.run(x=zeros(3, 2))


@pytest.mark.parametrize("how", ["run", "submit"])
def test_in_stages(how: str) -> None:
    model = counting()
    model.graph.input.append(helper.make_tensor_value_info("late", TensorProto.FLOAT, ["n"]))
    model.graph.node.append(helper.make_node("Relu", ["late"], ["out"]))
    model.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, None))
    given = {"x": zeros(20, 8), "limit": np.float32(1)}
    with load_onnx(model, limits=NOTHING_BOUND).compile(backend="cpu") as exe:
        assert exe.run(given, late=zeros(20))["out"].shape == (20,)
        assert len(exe.stages) == 2
        with pytest.raises(ShapeError, match=r"'n'.*got 19 in axis 0 of input 'late'"):
            getattr(exe, how)(given, late=zeros(19))


def test_names_that_say_nothing_and_other_ranks_are_left_alone() -> None:
    extents = {"a": ("?", "n"), "b": ("?", None), "c": None, "d": ("n", 4), "e": ("m",)}
    places = shared_names(extents)
    assert places == (("n", "a", 1), ("n", "d", 0))
    check_shared("run", places, {"a": (1,), "d": (3, 4)})  # its rank is what is wrong with a
    check_shared("run", places, {"d": (3, 4)})
    check_shared("run", places, {"a": (1, 3), "b": (2, 2), "c": (5,), "d": (3, 4), "e": (7,)})


def test_elements_of_a_sequence_may_differ() -> None:
    rows = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(
        [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=0)], "g",
        [helper.make_value_info("s", helper.make_sequence_type_proto(rows))],
        [helper.make_value_info("y", rows)],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    with load_onnx(made).compile(backend="cpu") as exe:
        assert exe.run(s=[zeros(1, 2), zeros(4, 2)])["y"].shape == (5, 2)
