"""Matrix products: `matmul` under NumPy's batch rules and `gemm` as in BLAS.

On the CPU the product goes to BLAS through ``numpy.matmul`` straight into the planned output; on
CUDA to cuBLAS, or to ``matmul.cu`` where that is missing. float16 is summed in float32 everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    NUMBERS,
    Arrays,
    Attrs,
    Cost,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.ops.strided import CUDA_NUMBERS, launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, broadcast, spec

MAX_BATCH_AXES = 6
_TILE = 64
_SIDE = 16
_LARGEST_GRID = 65535

#: The struct `MatmulLayout` of ``matmul.cu``: strides in elements.
MATMUL_LAYOUT = np.dtype(
    [(name, np.int64) for name in ("m", "n", "k", "batch")]
    + [(name, np.int64, (MAX_BATCH_AXES,)) for name in ("batch_shape", "a_batch", "b_batch")]
    + [(name, np.int64) for name in ("a_row", "a_col", "b_row", "b_col", "c_row", "c_col")]
    + [("alpha", np.float64), ("beta", np.float64), ("batch_ndim", np.int32), ("has_c", np.int32)],
    align=True,
)


def as_matrices(a: Any, b: Any, out: Any) -> tuple[Any, Any, Any]:
    """Give vectors the axis that NumPy's rules add, so that all three have at least two axes."""
    if b.ndim == 1:
        b, out = b[:, None], out[..., None]
    if a.ndim == 1:
        a, out = a[None, :], out[..., None, :]
    return a, b, out


def flat_product(a: Any, b: Any, out: Any) -> tuple[Any, Any, Any]:
    """Turn a batch of products with one matrix into a single product where the layout allows it."""
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and a.size and out.size:
        a, out = a.reshape(-1, a.shape[-1]), out.reshape(-1, out.shape[-1])
    return a, b, out


def bind_product(xp: Any, a: Any, b: Any, out: Any, scratch: Arrays) -> Launch:
    """Return a launch of ``out = a @ b``; for float16 `scratch` holds a, b and out as float32."""
    if not out.size:
        return nothing
    product = flat_product(*as_matrices(a, b, out))
    if not scratch:
        return partial(xp.matmul, product[0], product[1], out=product[2])
    wide_a, wide_b, wide_out = scratch
    wide = flat_product(*as_matrices(wide_a, wide_b, wide_out))
    return launch_all(
        [
            partial(xp.copyto, wide_a, a),
            partial(xp.copyto, wide_b, b),
            partial(xp.matmul, wide[0], wide[1], out=wide[2]),
            partial(xp.copyto, out, wide_out, casting="same_kind"),
        ]
    )


def _wide(specs: Specs, device_kind: str) -> Specs:
    # NumPy has no BLAS for float16 (180 times slower than float32, measured); CuPy does.
    if device_kind != "cpu" or specs[0].dtype != np.float16:
        return ()
    return tuple([spec(s.shape, "float32") for s in specs])


# -- matmul ----------------------------------------------------------------------------------


def _infer_matmul(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where="matmul")
    a, b = ins
    if a.ndim == 0 or b.ndim == 0:
        fail("matmul", "an operand is a scalar", expected="at least one axis",
             got=f"{a.shape} and {b.shape}", remedy="Use net.mul.")  # fmt: skip
    k = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if a.shape[-1] != k:
        fail("matmul", "inner extents differ", expected=f"(..., m, {k}) @ (..., {k}, n)",
             got=f"{a.shape} @ {b.shape}", remedy="Transpose one of them.")  # fmt: skip
    batch = broadcast([a.shape[:-2], b.shape[:-2]], where="matmul")
    rows = a.shape[-2:-1] if a.ndim > 1 else ()
    columns = b.shape[-1:] if b.ndim > 1 else ()
    return (TensorSpec((*batch, *rows, *columns), dtype),)


def _bind_matmul(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return bind_product(xp, ins[0], ins[1], outs[0], scratch)


def _scratch_matmul(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return _wide((*ins, *outs), device_kind)


def _reference_matmul(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    a, b = (np.asarray(x, np.float64 if x.dtype.kind == "f" else None) for x in ins)
    rows, columns = a.ndim > 1, b.ndim > 1
    a, b = (a if rows else a[None]), (b if columns else b[:, None])
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, batch + a.shape[-2:])
    b = np.broadcast_to(b, batch + b.shape[-2:])
    out = np.zeros((*batch, a.shape[-2], b.shape[-1]), a.dtype)
    for i in range(out.shape[-2]):
        for j in range(out.shape[-1]):
            out[..., i, j] = (a[..., i, :] * b[..., :, j]).sum(-1)
    out = out if columns else out[..., 0]
    return (out if rows else out[..., 0, :] if columns else out[..., 0],)


def _cost_matmul(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    moved = sum(s.nbytes for s in (*ins, *outs))
    return Cost(2.0 * outs[0].size * ins[0].shape[-1], float(moved))


def product_launch(
    a: Any, b: Any, out: Any, c: Any = None, *, alpha: float = 1.0, beta: float = 1.0
) -> KernelLaunch | None:
    """Return the launch of ``matmul.cu`` for operands of at least two axes.

    `c` broadcasts to (m, n). None with more batch axes than the kernel takes.
    """
    batch = out.shape[:-2]
    if len(batch) > MAX_BATCH_AXES:
        return None
    item = out.dtype.itemsize
    layout = np.zeros((), MATMUL_LAYOUT)
    layout["m"], layout["n"], layout["k"] = out.shape[-2], out.shape[-1], a.shape[-1]
    layout["batch"] = int(np.prod(batch, dtype=np.int64))
    layout["batch_ndim"] = len(batch)
    layout["alpha"], layout["beta"], layout["has_c"] = alpha, beta, int(c is not None)
    for i, extent in enumerate(batch):
        layout["batch_shape"][i] = extent
    for field, array in (("a", a), ("b", b)):
        skipped = len(batch) - (array.ndim - 2)
        for i in range(array.ndim - 2):
            stride = 0 if array.shape[i] == 1 else array.strides[i] // item
            layout[f"{field}_batch"][skipped + i] = stride
        layout[f"{field}_row"], layout[f"{field}_col"] = (s // item for s in array.strides[-2:])
    if c is not None:
        strides = [0 if e == 1 else s // item for e, s in zip(c.shape, c.strides, strict=True)]
        layout["c_row"], layout["c_col"] = [0] * (2 - c.ndim) + strides
    grid = (
        -(-out.shape[-1] // _TILE), -(-out.shape[-2] // _TILE),
        min(int(layout["batch"]), _LARGEST_GRID),
    )  # fmt: skip
    if grid[1] > _LARGEST_GRID:
        return None
    return KernelLaunch(
        file="matmul.cu",
        entry=f"matmul<{CUDA_NUMBERS[out.dtype.name]}>",
        grid=grid,
        block=(_SIDE, _SIDE, 1),
        args=(a, b, a if c is None else c, out, layout),
        product=(a, b, out) if c is None and alpha == 1 else None,
    )


def _kernel_matmul(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    if not outs[0].size:
        return ()
    launch = product_launch(*flat_product(*as_matrices(ins[0], ins[1], outs[0])))
    return None if launch is None else (launch,)


# -- gemm ------------------------------------------------------------------------------------


def _oriented(ins: Arrays, attrs: Attrs) -> tuple[Any, Any]:
    a, b = ins[0], ins[1]
    return (a.T if attrs["trans_a"] else a), (b.T if attrs["trans_b"] else b)


def _infer_gemm(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where="gemm")
    for name, operand in zip("ab", ins, strict=False):
        if operand.ndim != 2:
            fail("gemm", f"{name} has {operand.ndim} axes", expected="a matrix", got=operand.shape,
                 remedy="Use net.matmul for batches and vectors.")  # fmt: skip
    for name in ("alpha", "beta"):
        if dtype.kind != "f" and float(attrs[name]) != int(attrs[name]):
            fail("gemm", f"{name}={attrs[name]}", expected=f"a whole number for {dtype.name}",
                 got=attrs[name], remedy="Cast the matrices to float32.")  # fmt: skip
    m, k = ins[0].shape[::-1] if attrs["trans_a"] else ins[0].shape
    k_b, n = ins[1].shape[::-1] if attrs["trans_b"] else ins[1].shape
    if k != k_b:
        fail("gemm", "inner extents differ", expected="op(a) (m, k) and op(b) (k, n)",
             got=f"{(m, k)} and {(k_b, n)}", remedy="Set trans_a or trans_b.")  # fmt: skip
    if len(ins) > 2:
        common = broadcast([ins[2].shape, (m, n)], where="gemm")
        if common != (m, n):
            fail("gemm", "c does not broadcast to the product", expected=(m, n),
                 got=ins[2].shape, remedy="Reshape c to (n,), (m, 1) or (m, n).")  # fmt: skip
    return (TensorSpec((m, n), dtype),)


def _scratch_gemm(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    specs = _wide((*ins[:2], *outs), device_kind)
    if len(ins) > 2 and attrs["beta"] not in (0, 1) and device_kind == "cpu":
        scaled = TensorSpec(ins[2].shape, specs[2].dtype if specs else ins[2].dtype)
        return (*specs, scaled)
    return specs


def _bind_gemm(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (out,) = outs
    if not out.size:
        return nothing
    a, b = _oriented(ins, attrs)
    alpha, beta = attrs["alpha"], attrs["beta"]
    wide = len(scratch) >= 3
    total = scratch[2] if wide else out
    kind = total.dtype.type
    steps: list[Launch] = []
    if wide:
        steps += [partial(xp.copyto, scratch[0], ins[0]), partial(xp.copyto, scratch[1], ins[1])]
        a, b = _oriented(scratch, attrs)
    steps.append(partial(xp.matmul, a, b, out=total))
    if alpha != 1:
        steps.append(partial(xp.multiply, total, kind(alpha), out=total))
    if len(ins) > 2 and beta == 1:
        steps.append(partial(xp.add, total, ins[2], out=total))
    elif len(ins) > 2 and beta != 0:
        scaled = scratch[-1] if scratch else xp.empty(ins[2].shape, total.dtype)
        steps.append(partial(xp.multiply, ins[2], kind(beta), out=scaled))
        steps.append(partial(xp.add, total, scaled, out=total))
    if wide:
        steps.append(partial(xp.copyto, out, total, casting="same_kind"))
    return launch_all(steps)


def _kernel_gemm(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    if not outs[0].size:
        return ()
    c = ins[2] if len(ins) > 2 and attrs["beta"] != 0 else None
    alpha, beta = float(attrs["alpha"]), float(attrs["beta"])
    launch = product_launch(*_oriented(ins, attrs), outs[0], c, alpha=alpha, beta=beta)
    return None if launch is None else (launch,)


def _reference_gemm(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    a, b = (np.asarray(x, np.float64) for x in ins[:2])
    a, b = (a.T if attrs["trans_a"] else a), (b.T if attrs["trans_b"] else b)
    out = np.zeros((a.shape[0], b.shape[1]))
    for i, j in np.ndindex(out.shape):
        out[i, j] = attrs["alpha"] * (a[i] * b[:, j]).sum()
    if len(ins) > 2:
        out += attrs["beta"] * np.broadcast_to(np.asarray(ins[2], np.float64), out.shape)
    return (out,)


def _cost_gemm(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    k = ins[0].shape[0 if attrs["trans_a"] else 1]
    moved = sum(s.nbytes for s in (*ins, *outs))
    return Cost(2.0 * outs[0].size * k + 2.0 * outs[0].size, float(moved))


_F16 = spec((5, 33), "float16")
# A sum of k products of standard normals has size sqrt(k); its error at most k roundings of that.
_CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
_HALF_CLOSE: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-2}

OPS = (
    Op(
        name="matmul",
        kind="MatMul",
        doc="""Multiply matrices: ``out[..., i, j] = sum_k a[..., i, k] * b[..., k, j]``.

        Parameters
        ----------
        a: (..., m, k) or (k,)
        b: (..., k, n) or (k,), same dtype
            Leading axes broadcast; a vector is a row on the left and a column on the right, whose
            axis is dropped from the result, as in ``numpy.matmul``.

        Returns
        -------
        (..., m, n), same dtype. float16 is summed in float32; integers wrap around.

        Raises
        ------
        ShapeError
            If the inner extents or the dtypes differ or the leading axes do not broadcast.
        """,
        n_inputs=(2, 2),
        infer=_infer_matmul,
        bind=_bind_matmul,
        kernel=_kernel_matmul,
        reference=_reference_matmul,
        scratch=_scratch_matmul,
        cost=_cost_matmul,
        dtypes=NUMBERS,
        onnx={"MatMul": OnnxMapping()},
        cases=(
            OpCase("square", (f32(8, 8), f32(8, 8)), **_CLOSE),
            OpCase("edges_of_tiles", (f32(65, 17), f32(17, 66)), **_CLOSE),
            OpCase("batch", (f32(3, 4, 5), f32(3, 5, 6)), **_CLOSE),
            OpCase("batch_by_matrix", (f32(2, 3, 4, 5), f32(5, 6)), **_CLOSE),
            OpCase("matrix_by_batch", (f32(4, 5), f32(3, 5, 2)), **_CLOSE),
            OpCase("batches_broadcast", (f32(3, 1, 4, 5), f32(2, 5, 2)), **_CLOSE),
            OpCase("vector_left", (f32(5), f32(3, 5, 2)), **_CLOSE),
            OpCase("vector_right", (f32(3, 4, 5), f32(5)), **_CLOSE),
            OpCase("dot", (f32(7), f32(7)), **_CLOSE),
            OpCase("double", (spec((6, 7), "float64"), spec((7, 3), "float64")),
                   rtol=1e-12, atol=1e-12),
            OpCase("half", (_F16, spec((33, 4), "float16")), **_HALF_CLOSE),
            OpCase("int64", (spec((3, 4), "int64"), spec((4, 2), "int64")), rtol=0, atol=0),
            OpCase("int32", (spec((3, 4), "int32"), spec((4, 2), "int32")), rtol=0, atol=0),
            OpCase("no_terms", (f32(3, 0), f32(0, 2)), rtol=0, atol=0),
            OpCase("no_rows", (f32(0, 3), f32(3, 2)), rtol=0, atol=0),
            OpCase("large", (f32(256, 300), f32(300, 200)), rtol=1e-4, atol=1e-4, perf=True),
        ),
    ),
    Op(
        name="gemm",
        kind="Gemm",
        doc="""General product: ``alpha * op(a) @ op(b) + beta * c``, as in BLAS (level 3).

        Parameters
        ----------
        a: (m, k), or (k, m) with `trans_a`
        b: (k, n), or (n, k) with `trans_b`, same dtype
        c: broadcasts to (m, n), same dtype, optional
        alpha, beta
            Factors; whole numbers when the dtype is an integer.
        trans_a, trans_b
            True takes the matrix transposed.

        Returns
        -------
        (m, n), same dtype. float16 is summed in float32.
        """,
        n_inputs=(2, 3),
        attrs={"alpha": 1.0, "beta": 1.0, "trans_a": False, "trans_b": False},
        infer=_infer_gemm,
        bind=_bind_gemm,
        kernel=_kernel_gemm,
        reference=_reference_gemm,
        scratch=_scratch_gemm,
        cost=_cost_gemm,
        dtypes=NUMBERS,
        cases=(
            OpCase("plain", (f32(4, 5), f32(5, 6)), **_CLOSE),
            OpCase("row_bias", (f32(4, 5), f32(6, 5), f32(6)), {"trans_b": True}, **_CLOSE),
            OpCase("column_bias", (f32(5, 4), f32(5, 6), f32(4, 1)),
                   {"trans_a": True, "alpha": 0.5, "beta": -2.0}, **_CLOSE),
            OpCase("scalar_bias", (f32(4, 5), f32(5, 6), f32()), {"beta": 0.25}, **_CLOSE),
            OpCase("ignored_bias", (f32(4, 5), f32(5, 6), f32(4, 6)), {"beta": 0.0}, **_CLOSE),
            OpCase("both_transposed", (f32(70, 3), f32(65, 70)),
                   {"trans_a": True, "trans_b": True}, rtol=1e-4, atol=1e-4),
            OpCase("half", (_F16, spec((33, 4), "float16"), spec((4,), "float16")),
                   {"alpha": 0.5, "beta": 2.0}, **_HALF_CLOSE),
            OpCase("int32", (spec((3, 4), "int32"), spec((4, 2), "int32"), spec((2,), "int32")),
                   {"alpha": 2, "beta": -3}, rtol=0, atol=0),
            OpCase("layer", (f32(64, 256), f32(128, 256), f32(128)), {"trans_b": True},
                   rtol=1e-4, atol=1e-4, perf=True),
        ),
    ),
)  # fmt: skip
