"""cuDNN's real front end takes the calls we make: by name and type, without cuDNN or a GPU."""

from __future__ import annotations

import cudnn  # requirements/cudnn.txt
import pytest

from asyncnet_gpu.backends.cuda.dnn_graph import DATA_TYPES, ConvKey, describe, unwanted


def key(dtype: str, *, bias: bool) -> ConvKey:
    return ConvKey(
        dtype=dtype,
        x=((2, 8, 10, 12), (960, 120, 12, 1)),
        w=((6, 4, 3, 3), (36, 9, 3, 1)),
        out=((2, 6, 5, 12), (360, 60, 12, 1)),
        bias=bias, begin=(1, 1), end=(0, 1), strides=(2, 1), dilations=(1, 1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DATA_TYPES)
@pytest.mark.parametrize("bias", [False, True])
def test_description(dtype: str, bias: bool) -> None:
    graph, tensors = describe(cudnn, key(dtype, bias=bias), None)
    assert set(tensors) == {"x", "w", "out"} | ({"bias"} if bias else set())
    assert [node.node_type.name for node in graph._nodes] == ["CONV_FPROP", "POINTWISE"][: 1 + bias]
    convolution = graph._nodes[0]
    assert convolution.params["pre_padding"] == [1, 1]
    assert convolution.params["post_padding"] == [0, 1]
    assert convolution.params["stride"] == [2, 1]
    assert list(tensors["out"].dim) == [2, 6, 5, 12]
    assert list(tensors["out"].stride) == [360, 60, 12, 1]


@pytest.mark.parametrize("dtype", DATA_TYPES)
def test_notes(dtype: str) -> None:
    notes = unwanted(cudnn, dtype)
    assert cudnn.numerical_note.NONDETERMINISTIC in notes
    assert (cudnn.numerical_note.DOWN_CONVERT_INPUTS in notes) == (dtype == "float32")


def test_methods_of_a_graph() -> None:
    for name in (
        "validate", "build_operation_graph", "create_execution_plans", "deselect_numeric_notes",
        "deselect_workspace_greater_than", "check_support", "build_plans", "get_workspace_size",
        "execute",
    ):  # fmt: skip
        assert callable(getattr(cudnn.pygraph, name))
    assert {"A", "FALLBACK"} <= set(dir(cudnn.heur_mode))
    for name in ("create_handle", "set_stream", "destroy_handle", "backend_version"):
        assert callable(getattr(cudnn, name))
