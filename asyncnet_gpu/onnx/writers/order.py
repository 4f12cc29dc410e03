"""Reductions, order along an axis, indices, sums of products, norms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from asyncnet_gpu.onnx.export import Writer
from asyncnet_gpu.ops.checks import as_ints


def _reduce(w: Writer) -> None:
    axes, keep = w.attrs["axes"], {"keepdims": int(w.attrs["keepdims"])}
    if axes is None:
        w.node(w.definition.op.kind, w.inputs, w.outputs, **keep)
        return
    axes = as_ints(axes, "axes", where=w.definition.op.name)
    # No axis at all would otherwise mean all of them.
    none = {} if axes else {"noop_with_empty_axes": 1}
    w.node(w.definition.op.kind, [*w.inputs, w.ints(axes, "axes")], w.outputs, **keep, **none)


def _arg(w: Writer) -> None:
    w.node(w.definition.op.kind, w.inputs, w.outputs, axis=w.attrs["axis"],
           keepdims=int(w.attrs["keepdims"]),
           select_last_index=int(w.attrs["select_last_index"]))  # fmt: skip


def _cumulative(op_type: str) -> Callable[[Writer], None]:
    def write(w: Writer) -> None:
        axis = w.constant(np.asarray(w.attrs["axis"], np.int64), "axis")
        w.node(op_type, [*w.inputs, axis], w.outputs, exclusive=int(w.attrs["exclusive"]),
               reverse=int(w.attrs["reverse"]))  # fmt: skip

    return write


def _one_hot(w: Writer) -> None:
    depth = w.constant(np.asarray(w.attrs["depth"], np.int64), "depth")
    values = np.asarray([w.attrs["off"], w.attrs["on"]]).astype(w.outs[0].dtype)
    w.node("OneHot", [*w.inputs, depth, w.constant(values, "values")], w.outputs,
           axis=w.attrs["axis"])  # fmt: skip


def _top_k(w: Writer) -> None:
    w.node("TopK", [*w.inputs, w.ints([w.attrs["k"]], "k")], w.outputs, axis=w.attrs["axis"],
           largest=int(w.attrs["largest"]), sorted=1)  # fmt: skip


def _triangle(w: Writer) -> None:
    rows, columns = w.ins[0].shape[-2:]
    # Any integer may be given, but ONNX takes int64; farther diagonals keep no more and no less.
    nearest = max(-rows, min(w.attrs["k"], columns))
    k = w.constant(np.asarray(nearest, np.int64), "k")
    w.node("Trilu", [*w.inputs, k], w.outputs, upper=int(w.attrs["upper"]))


def _gemm(w: Writer) -> None:
    w.node("Gemm", w.inputs, w.outputs, alpha=float(w.attrs["alpha"]), beta=float(w.attrs["beta"]),
           transA=int(w.attrs["trans_a"]), transB=int(w.attrs["trans_b"]))  # fmt: skip


def _indexed(op_type: str, *names: str) -> Callable[[Writer], None]:
    """ONNX counts in int64 where ours takes int32 as well."""

    def write(w: Writer) -> None:
        x, indices, *rest = w.inputs
        if w.ins[1].dtype != np.int64:
            indices = w.step("Cast", [indices], np.int64, to=w.element_type(np.int64))
        w.node(op_type, [x, indices, *rest], w.outputs, **{n: w.attrs[n] for n in names})

    return write


def _norm(op_type: str) -> Callable[[Writer], None]:
    return lambda w: w.node(op_type, w.inputs, w.outputs, axis=w.attrs["axis"],
                            epsilon=float(w.attrs["epsilon"]))  # fmt: skip


WRITERS = {
    "argmax": _arg,
    "argmin": _arg,
    "batch_norm": lambda w: w.node(
        "BatchNormalization", w.inputs, w.outputs, epsilon=float(w.attrs["epsilon"])
    ),
    "cumprod": _cumulative("CumProd"),
    "cumsum": _cumulative("CumSum"),
    "einsum": lambda w: w.node("Einsum", w.inputs, w.outputs, equation=w.attrs["equation"]),
    "gather_nd": _indexed("GatherND", "batch_dims"),
    "gemm": _gemm,
    "layer_norm": _norm("LayerNormalization"),
    "one_hot": _one_hot,
    "rms_norm": _norm("RMSNormalization"),
    "scatter_nd": _indexed("ScatterND", "reduction"),
    "top_k": _top_k,
    "triangle": _triangle,
    **{
        f"reduce_{name}": _reduce
        for name in (
            "l1", "l2", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square"
        )
    },
}  # fmt: skip
