"""Caps: what a small file may ask for is refused by number, before anything is allocated."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, parser

from asyncnet_gpu.errors import OnnxImportError
from asyncnet_gpu.onnx import Limits, load_onnx
from asyncnet_gpu.onnx.limits import Budget

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
HUGE = 1 << 40


def model(text: str) -> bytes:
    made: ModelProto = parser.parse_model(f"{HEAD}\n{text}")
    return made.SerializeToString()


def refused(data: bytes | ModelProto, match: str, **limits: Any) -> str:
    """Load a file that must be refused with little memory; return the message."""
    tracemalloc.start()
    try:
        with pytest.raises(OnnxImportError, match=match) as caught:
            load_onnx(data, limits=Limits(**limits))
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    return str(caught.value)


GROWING = {
    "ConstantOfShape": f"n = Constant <value = int64[1] {{{HUGE}}}> () big = ConstantOfShape (n)",
    "ConstantOfShape product": f"n = Constant <value = int64[3] {{{HUGE}, {HUGE}, {HUGE}}}> ()"
    " big = ConstantOfShape (n)",
    "Expand": f"n = Constant <value = int64[2] {{{HUGE}, 4}}> () big = Expand (x, n)",
    "Tile": f"n = Constant <value = int64[1] {{{HUGE}}}> () big = Tile (x, n)",
    "Pad": f"n = Constant <value = int64[2] {{{HUGE}, 0}}> () big = Pad (x, n)",
    "Range": f"a = Constant <value = int64 {{0}}> () n = Constant <value = int64 {{{HUGE}}}> ()"
    " s = Constant <value = int64 {1}> () r = Range (a, n, s) big = Cast <to = 1> (r)",
    "OneHot": f"n = Constant <value = int64 {{{HUGE}}}> () i = Cast <to = 7> (x)"
    " v = Constant <value = float[2] {0, 1}> () big = OneHot (i, n, v)",
    "Resize": "e = Constant <value = float[0] {}> () s = Constant <value = float[1] {1e12}> ()"
    " big = Resize (x, e, s)",
    "MatMul": "a = Constant <value = int64[2] {2000000, 1}> ()"
    " ones = ConstantOfShape (a) big = Gemm <transB = 1> (ones, ones)",
    "Conv": "a = Constant <value = int64[3] {1, 1, 4}> () y = Reshape (x, a)"
    " w = Constant <value = float[1,1,1] {1}> ()"
    f" big = Conv <pads = [{HUGE}, {HUGE}], strides = [{HUGE}]> (y, w)",
    "ConvTranspose": "a = Constant <value = int64[3] {1, 1, 4}> () y = Reshape (x, a)"
    " w = Constant <value = float[1,1,1] {1}> ()"
    " big = ConvTranspose <strides = [2000000000]> (y, w)",
    "Concat": "n = Constant <value = int64[1] {500000000}> () a = ConstantOfShape (n)"
    " big = Concat <axis = 0> (a, a, a, a, x)",
    "Einsum": "n = Constant <value = int64[1] {2000000}> () a = ConstantOfShape (n)"
    ' big = Einsum <equation = "i,j->ij"> (a, a)',
}


@pytest.mark.parametrize("kind", GROWING)
def test_results_over_the_limit(kind: str) -> None:
    text = f"agraph (float[4] x) => (big) {{ {GROWING[kind]} }}"
    said = refused(model(text), kind.split()[0] if kind != "MatMul" else "Gemm")
    assert said.startswith("[onnx node")


def test_an_overflowing_product_is_no_small_number() -> None:
    """2**32 * 2**32 is 0 in 64 bits."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(2**32, 2**32))
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [],
        [helper.make_empty_tensor_value_info("y")], [tensor],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert "max_tensor_bytes" in refused(made, "initializer 'w'")
    made.graph.initializer[0].dims[:] = [2**32, 2**32, 0]
    refused(made, "initializer 'w'")  # an extent of 0 hides nothing: strides come of the others
    made.graph.initializer[0].dims[:] = [1] * 33
    refused(made, "at most 32 extents")


def test_inputs_over_the_limit() -> None:
    refused(model(f"agraph (float[{HUGE}] x) => (y) {{ y = Relu (x) }}"), "input 'x'")


def test_number_of_nodes() -> None:
    chain = "".join(f"v{i + 1} = Relu (v{i})\n" for i in range(50))
    data = model(f"agraph (float[4] v0) => (v50) {{ {chain} }}")
    assert "Limits(max_nodes=...)" in refused(data, "number of nodes", max_nodes=40)
    load_onnx(data, limits=Limits(max_nodes=200))


def test_nodes_multiplied_by_functions() -> None:
    """Ten functions of ten calls each would be 10**10 nodes."""
    levels = 10
    functions = "\n".join(
        f'<domain: "own", opset_import: ["" : 18, "own" : 1]>\n'
        f"f{i} (a) => (v10) {{ v0 = Identity (a) "
        + " ".join(f"v{k + 1} = {'Relu' if i == 0 else f'own.f{i - 1}'} (v{k})" for k in range(10))
        + " }"
        for i in range(levels)
    )
    head = '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>'
    text = f"{head} agraph (float[4] x) => (y) {{ y = own.f{levels - 1} (x) }}\n{functions}"
    refused(parser.parse_model(text), "number of nodes", max_nodes=500)


def test_functions_that_call_themselves() -> None:
    head = '<ir_version: 9, opset_import: ["" : 18, "own" : 1]>'
    text = f"""{head} agraph (float[4] x) => (y) {{ y = own.ping (x) }}
        <domain: "own", opset_import: ["" : 18, "own" : 1]> ping (a) => (b) {{ b = own.pong (a) }}
        <domain: "own", opset_import: ["" : 18, "own" : 1]> pong (a) => (b) {{ b = own.ping (a) }}
    """
    assert "max_depth" in refused(parser.parse_model(text), "nesting")


def nested(depth: int) -> ModelProto:
    """Branches inside one another."""
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["r"])], "g", [],
        [helper.make_empty_tensor_value_info("r")],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "g", [],
        [helper.make_empty_tensor_value_info("n")],
    )  # fmt: skip
    for level in range(depth):
        name = f"y{level}"
        node = helper.make_node("If", ["c"], [name], then_branch=inner, else_branch=other)
        inner = helper.make_graph([node], "g", [], [helper.make_empty_tensor_value_info(name)])
    for name, kind, shape in (("x", TensorProto.FLOAT, [4]), ("c", TensorProto.BOOL, [])):
        inner.input.append(helper.make_tensor_value_info(name, kind, shape))
    made: ModelProto = helper.make_model(
        inner, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    return made


def field(number: int, data: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    length, size = b"", len(data)
    while size > 127:
        length += bytes([size % 128 + 128])
        size //= 128
    return bytes([number * 8 + 2]) + length + bytes([size]) + data


def test_nesting() -> None:
    load_onnx(nested(25))
    assert "max_depth" in refused(nested(25), "nesting", max_depth=20)
    # Far deeper than protobuf itself reads: the parser must not run out of stack.
    inner = b""
    for _ in range(5000):
        branch = field(1, b"then_branch") + field(6, inner) + b"\xa0\x01\x05"
        inner = field(1, field(4, b"If") + field(5, branch))
    refused(field(7, inner), "not an ONNX model")


def loop(count: int) -> bytes:
    return model(f"""agraph (float[4] x) => (y) {{
        n = Constant <value = int64 {{{count}}}> ()
        t = Constant <value = bool {{1}}> ()
        y = Loop (n, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) {{
            d = Identity (c)
            r = Add (s, s)
        }}>
    }}""")


def test_loop_counts() -> None:
    assert "passes" in refused(loop(10**12), r"onnx node 'y' \(Loop\)")
    assert "passes" in refused(loop(2**62), r"onnx node 'y' \(Loop\)")
    load_onnx(loop(10**5))  # one node, that repeats a nested net
    unrolled = load_onnx(loop(10))
    assert len(unrolled.definitions) == 10
    endless = model("""agraph (float[4] x) => (y) {
        t = Constant <value = bool {1}> ()
        y = Loop (, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) {
            d = Constant <value = bool {1}> ()
            r = Add (s, s)
        }>
    }""")
    assert "max_loop_count" in refused(endless, r"onnx node 'y' \(Loop\)", max_loop_count=50)


def test_all_constants_together() -> None:
    parts = "".join(f"c{i} = ConstantOfShape (n)\n" for i in range(20))
    sums = "".join(f"s{i + 1} = Add (s{i}, c{i})\n" for i in range(20))
    data = model(f"""agraph (float[1] s0) => (s20) {{
        n = Constant <value = int64[1] {{200000}}> ()
        {parts}
        {sums}
    }}""")
    refused(data, "bytes of all constants", max_constant_bytes=10 * 200_000 * 4)


def test_texts_that_double() -> None:
    head = '<ir_version: 10, opset_import: ["" : 20]>'
    chain = "".join(f"t{i + 1} = StringConcat (t{i}, t{i})\n" for i in range(60))
    text = f"""{head} agraph (float[4] x) => (y) {{
        t0 = Constant <value_strings = ["more"]> ()
        {chain}
        same = Equal (t60, t60)
        c = Cast <to = 1> (same)
        y = Add (x, c)
    }}"""
    refused(
        parser.parse_model(text), "StringConcat.*max_constant_bytes", max_constant_bytes=1 << 20
    )


def test_size_of_the_file(tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model("agraph (float[4] x) => (y) { y = Relu (x) }"))
    load_onnx(path)
    with pytest.raises(OnnxImportError, match="file over the limit"):
        load_onnx(path, limits=Limits(max_file_bytes=20))
    with path.open("wb") as file:
        file.truncate(1 << 33)  # a hole: nothing on the disk
    refused_early = Limits(max_file_bytes=1 << 20)
    with pytest.raises(OnnxImportError, match="file over the limit"):
        load_onnx(path, limits=refused_early)


def test_constants_too_large_to_fold_stay_nodes() -> None:
    data = model("""agraph (float[1] x) => (y) {
        n = Constant <value = int64[1] {100000}> ()
        c = ConstantOfShape (n)
        e = Exp (c)
        y = Add (x, e)
    }""")
    assert [d.op.name for d in load_onnx(data).definitions] == ["add"]
    later = load_onnx(data, limits=Limits(max_fold_bytes=1000))
    assert "exp" in [d.op.name for d in later.definitions]


def test_a_model_that_gives_nothing() -> None:
    made = parser.parse_model(f"{HEAD} agraph (float[4] x) => (y) {{ y = Relu (x) }}")
    del made.graph.output[:]
    refused(made, "no outputs")
    refused(b"", "no graph")


def test_budget_counts_in_integers_without_bounds() -> None:
    budget = Budget(Limits(max_tensor_bytes=100))
    assert budget.tensor((5, 5), 4, "here") == 100
    for shape in ((26, 1, 1), (2**63, 2**63), (0, 2**63)):
        with pytest.raises(OnnxImportError, match="max_tensor_bytes"):
            budget.tensor(shape, 4, "here")
    assert np.prod([2**32, 2**32], dtype=np.int64) == 0  # what a careless product says
