"""Elements picked by index: gather, gather_elements, gather_nd, one_hot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    REQUIRED,
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
)
from asyncnet_gpu.ops.checks import as_int, fail
from asyncnet_gpu.ops.indexing import (
    INDEX_DTYPES,
    check_index_dtype,
    contiguous,
    element_strides,
    flat_along_axis,
    flat_of_tuples,
    index_launch,
    range_checks,
)
from asyncnet_gpu.ops.strided import CARRIERS, MAX_AXES, launch_all, nothing
from asyncnet_gpu.specs import TensorSpec, as_dtype, normal_axis, spec


def _axis(x: Any, attrs: Attrs, *, where: str) -> int:
    return normal_axis(as_int(attrs["axis"], "axis", where=where), len(x.shape), where=where)


def _flat_scratch(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return (TensorSpec(ins[1].shape, np.dtype(np.int64)),)


def _pick(xp: Any, x: Any, places: Any, axis: int, out: Any) -> Launch:
    """Return ``out = x.take(places, axis)`` for places that are known to be in range."""
    if xp is not np:
        return partial(xp.take, x, places, axis, out)
    if x.flags.c_contiguous:
        # Any mode but "raise" writes straight into the output; "wrap" also counts from the end.
        return partial(np.take, x, places, axis, out, "wrap")
    where = (slice(None),) * axis + (places,)

    def launch() -> None:
        np.copyto(out, x[where])  # numpy.take would first copy the whole of a strided array

    return launch


# -- gather ----------------------------------------------------------------------------------


def _infer_gather(ins: Specs, attrs: Attrs) -> Specs:
    x, indices = ins
    check_index_dtype(indices, where="gather")
    axis = _axis(x, attrs, where="gather")
    return (TensorSpec((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype),)


def _bind_gather(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, indices), (out,) = ins, outs
    axis = _axis(x, attrs, where="gather")
    checks = range_checks(xp, indices, x.shape[axis], where="gather")
    return launch_all([*checks, _pick(xp, x, indices, axis, out)] if out.size else checks)


def _kernel_gather(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x, indices), (out,) = ins, outs
    if not out.size:
        return ()
    if not contiguous(x, indices):
        return None
    axis = _axis(x, attrs, where="gather")

    def fill(layout: Any) -> None:
        layout["outer"], layout["extent"] = math.prod(x.shape[:axis]), x.shape[axis]
        layout["count"], layout["inner"] = indices.size, math.prod(x.shape[axis + 1 :])

    element = CARRIERS[x.dtype.itemsize]
    return (index_launch("gather", element, indices, (x, indices, out), out.size, fill),)


def _reference_gather(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, indices = ins
    axis = attrs["axis"] % x.ndim
    out = np.empty((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    for place in np.ndindex(indices.shape):
        out[(slice(None),) * axis + place] = x[(slice(None),) * axis + (indices[place],)]
    return (out,)


# -- gather_elements -------------------------------------------------------------------------


def _infer_elements(ins: Specs, attrs: Attrs) -> Specs:
    x, indices = ins
    check_index_dtype(indices, where="gather_elements")
    axis = _axis(x, attrs, where="gather_elements")
    if indices.ndim != x.ndim or any(
        i != axis and have > room
        for i, (have, room) in enumerate(zip(indices.shape, x.shape, strict=True))
    ):
        fail("gather_elements", "shape of the indices",
             expected=f"{x.ndim} axes, none but axis {axis} longer than in {x.shape}",
             got=indices.shape, remedy="Use net.gather for whole slices.")  # fmt: skip
    return (TensorSpec(indices.shape, x.dtype),)


def _bind_elements(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, indices), (out,), (flat,) = ins, outs, scratch
    if not out.size:
        return nothing
    axis = _axis(x, attrs, where="gather_elements")
    steps: list[Launch] = []
    if not x.flags.c_contiguous:
        packed = xp.empty(x.shape, x.dtype)
        steps.append(partial(xp.copyto, packed, x))
        x = packed
    steps += flat_along_axis(xp, indices, x.shape, axis, flat, where="gather_elements")
    return launch_all([*steps, _pick(xp, x.reshape(-1), flat, 0, out)])


def _kernel_elements(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x, indices), (out,) = ins, outs
    if not out.size:
        return ()
    if not contiguous(indices) or x.ndim > MAX_AXES:
        return None
    axis, item = _axis(x, attrs, where="gather_elements"), x.dtype.itemsize

    def fill(layout: Any) -> None:
        layout["count"], layout["extent"], layout["axis"] = out.size, x.shape[axis], axis
        layout["ndim"] = x.ndim
        layout["shape"][: x.ndim] = indices.shape
        layout["stride"][: x.ndim] = [s // item for s in x.strides]

    args = (x, indices, out)
    element = CARRIERS[item]
    return (index_launch("gather_elements", element, indices, args, out.size, fill),)


def _reference_elements(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, indices = ins
    axis = attrs["axis"] % x.ndim
    out = np.empty(indices.shape, x.dtype)
    for place in np.ndindex(indices.shape):
        out[place] = x[(*place[:axis], indices[place], *place[axis + 1 :])]
    return (out,)


# -- gather_nd -------------------------------------------------------------------------------


def _batch(x: Any, indices: Any, attrs: Attrs) -> int:
    batch = as_int(attrs["batch_dims"], "batch_dims", where="gather_nd")
    n, k = len(x.shape), indices.shape[-1] if indices.shape else 0
    if not 0 <= batch < min(n, len(indices.shape)) or not 1 <= k <= n - batch:
        fail("gather_nd", "indices do not fit", expected=f"(..., k) with k in 1..{n - batch}",
             got=f"{indices.shape}, batch_dims={batch}",
             remedy="The last axis of the indices names axes of x.")  # fmt: skip
    if x.shape[:batch] != indices.shape[:batch]:
        fail("gather_nd", "batch axes differ", expected=x.shape[:batch],
             got=indices.shape[:batch], remedy="Lower batch_dims.")  # fmt: skip
    return batch


def _infer_nd(ins: Specs, attrs: Attrs) -> Specs:
    x, indices = ins
    check_index_dtype(indices, where="gather_nd")
    batch = _batch(x, indices, attrs)
    return (TensorSpec((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]), x.dtype),)


def _scratch_nd(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    flat = TensorSpec(ins[1].shape[:-1], np.dtype(np.int64))
    return (flat, flat)


def _bind_nd(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, indices), (out,), (flat, one) = ins, outs, scratch
    if not out.size:
        return nothing
    batch, k = _batch(x, indices, attrs), indices.shape[-1]
    steps: list[Launch] = []
    if not x.flags.c_contiguous:
        packed = xp.empty(x.shape, x.dtype)
        steps.append(partial(xp.copyto, packed, x))
        x = packed
    extents = x.shape[batch : batch + k]
    steps += flat_of_tuples(xp, indices, extents, flat, one, where="gather_nd")
    n_batch, rows = math.prod(x.shape[:batch]), math.prod(extents)
    if batch:
        first = (xp.arange(n_batch, dtype=np.int64) * rows).reshape(x.shape[:batch])
        steps.append(partial(xp.add, flat, first[(..., *(None,) * (flat.ndim - batch))], flat))
    inner = math.prod(x.shape[batch + k :])
    source = x.reshape(n_batch * rows, inner)
    return launch_all([*steps, _pick(xp, source, flat.reshape(-1), 0, out.reshape(-1, inner))])


def _kernel_nd(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (x, indices), (out,) = ins, outs
    if not out.size:
        return ()
    batch, k = _batch(x, indices, attrs), indices.shape[-1]
    if not contiguous(x, indices) or k > MAX_AXES:
        return None

    def fill(layout: Any) -> None:
        layout["outer"], layout["extent"] = math.prod(x.shape[:batch]), math.prod(x.shape[batch:])
        layout["count"] = math.prod(indices.shape[batch:-1])
        layout["inner"], layout["ndim"] = math.prod(x.shape[batch + k :]), k
        layout["shape"][:k] = x.shape[batch : batch + k]
        layout["stride"][:k] = element_strides(x.shape)[batch : batch + k]

    args = (x, indices, out)
    element = CARRIERS[x.dtype.itemsize]
    return (index_launch("gather_nd", element, indices, args, out.size, fill),)


def _reference_nd(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, indices = ins
    batch = attrs["batch_dims"]
    out = np.empty((*indices.shape[:-1], *x.shape[batch + indices.shape[-1] :]), x.dtype)
    for place in np.ndindex(indices.shape[:-1]):
        out[place] = x[(*place[:batch], *indices[place])]
    return (out,)


# -- one_hot ---------------------------------------------------------------------------------


def _hot_axis(indices: Any, attrs: Attrs) -> int:
    axis = as_int(attrs["axis"], "axis", where="one_hot")
    return normal_axis(axis, len(indices.shape) + 1, where="one_hot")


def _infer_hot(ins: Specs, attrs: Attrs) -> Specs:
    depth = as_int(attrs["depth"], "depth", where="one_hot")
    if depth < 0:
        fail("one_hot", f"depth={depth}", expected="at least 0", got=depth,
             remedy="Give the number of classes.")  # fmt: skip
    axis, shape = _hot_axis(ins[0], attrs), ins[0].shape
    dtype = as_dtype(attrs["dtype"], where="one_hot")
    return (TensorSpec((*shape[:axis], depth, *shape[axis:]), dtype),)


def _scratch_hot(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    mask = TensorSpec(outs[0].shape, np.dtype(np.bool_))
    return (mask, mask)


def _bind_hot(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (indices,), (out,), (hot, also) = ins, outs, scratch
    if not out.size:
        return nothing
    axis, depth = _hot_axis(indices, attrs), out.shape[_hot_axis(indices, attrs)]
    spread = indices[(slice(None),) * axis + (None,)]
    classes = xp.arange(depth, dtype=indices.dtype)
    classes = classes[(slice(None),) + (None,) * (out.ndim - axis - 1)]
    return launch_all(
        [
            partial(xp.equal, spread, classes, hot),
            partial(xp.equal, spread, classes - depth, also),
            partial(xp.logical_or, hot, also, hot),
            partial(out.fill, out.dtype.type(attrs["off"])),
            partial(xp.copyto, out, out.dtype.type(attrs["on"]), where=hot),
        ]
    )


def _kernel_hot(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    (indices,), (out,) = ins, outs
    if not out.size:
        return ()
    if not contiguous(indices):
        return None
    axis, item = _hot_axis(indices, attrs), out.dtype.itemsize

    def fill(layout: Any) -> None:
        layout["outer"], layout["extent"] = math.prod(indices.shape[:axis]), out.shape[axis]
        layout["inner"] = math.prod(indices.shape[axis:])
        for field in ("on", "off"):
            layout[field] = int(np.array(attrs[field], out.dtype).view(f"u{item}"))

    return (index_launch("one_hot", CARRIERS[item], indices, (indices, out), out.size, fill),)


def _reference_hot(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (indices,) = ins
    depth = attrs["depth"]
    out = np.full((*indices.shape, depth), attrs["off"], attrs["dtype"])
    for place in np.ndindex(indices.shape):
        if -depth <= indices[place] < depth:
            out[(*place, indices[place])] = attrs["on"]
    return (np.moveaxis(out, -1, attrs["axis"]),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    # Of the data only what is picked is read.
    return Cost(float(outs[0].size), float(2 * outs[0].nbytes + ins[-1].nbytes))


_INDEX = np.array([[0, -1, 2], [1, 1, -3]])
_TUPLES = np.array([[0, 1], [-1, 2], [1, -4]])


def _case(name: str, inputs: tuple[Any, ...], **attrs: Any) -> OpCase:
    return OpCase(name, inputs, attrs, rtol=0, atol=0)


OPS = (
    Op(
        name="gather",
        kind="Gather",
        doc="""Pick slices along an axis: ``out = take(x, indices, axis)``.

        Parameters
        ----------
        x: any shape, any dtype
        indices: any shape, int32 or int64
            In [-extent, extent); negative ones count from the end.
        axis
            Of `x`; the axes of `indices` take its place in the result.

        Raises
        ------
        ShapeError
            If the indices are no integers of 32 or 64 bits.
        IndexError
            From the run, on the CPU, if an index is out of range; on CUDA what is
            read there is unspecified.
        """,
        n_inputs=(2, 2),
        attrs={"axis": 0},
        infer=_infer_gather,
        bind=_bind_gather,
        kernel=_kernel_gather,
        reference=_reference_gather,
        cost=_cost,
        onnx={"Gather": OnnxMapping()},
        cases=(
            _case("rows", (f32(3, 4), _INDEX)),
            _case("columns", (f32(2, 3, 4), np.array([2, 0], np.int32)), axis=1),
            _case("last", (spec((2, 3), "float16"), _INDEX), axis=-1),
            _case("scalar_index", (spec((4, 3), "int64"), np.array(-1))),
            _case("bool", (spec((4, 3), "bool"), np.array([3, 3, 0]))),
            _case("none_picked", (f32(3, 4), np.zeros((0,), np.int64))),
            OpCase("embedding", (f32(1000, 64), np.arange(256)[::-1].copy()), rtol=0, atol=0,
                   perf=True),
        ),
    ),
    Op(
        name="gather_elements",
        kind="GatherElements",
        doc="""Pick one element for each index: coordinate `axis` of its place is replaced by it.

        Parameters
        ----------
        x: any shape, any dtype
        indices: as many axes, int32 or int64
            In [-extent, extent) of `axis`; no other axis may be longer than in `x`.
        axis
            Which coordinate the indices are.

        Returns
        -------
        Shape of the indices.
        """,
        n_inputs=(2, 2),
        attrs={"axis": 0},
        infer=_infer_elements,
        bind=_bind_elements,
        kernel=_kernel_elements,
        reference=_reference_elements,
        scratch=_flat_scratch,
        cost=_cost,
        onnx={"GatherElements": OnnxMapping(since=11)},
        cases=(
            _case("first", (f32(3, 4), _INDEX)),
            _case("last", (f32(2, 3), _INDEX), axis=-1),
            _case("middle", (spec((2, 3, 4), "float16"),
                             np.array([[[0, 1], [2, -1]], [[1, 1], [0, 0]]], np.int32)), axis=1),
            _case("none_picked", (f32(3, 4), np.zeros((0, 4), np.int64))),
        ),
    ),
    Op(
        name="gather_nd",
        kind="GatherND",
        doc="""Pick the slices that index tuples name: ``out[i] = x[indices[i]]``.

        Parameters
        ----------
        x: any shape, any dtype
        indices: (..., k), int32 or int64
            Each tuple names a place on the first k axes after the batch axes.
        batch_dims
            First axes that `x` and `indices` have in common.
        """,
        n_inputs=(2, 2),
        attrs={"batch_dims": 0},
        infer=_infer_nd,
        bind=_bind_nd,
        kernel=_kernel_nd,
        reference=_reference_nd,
        scratch=_scratch_nd,
        cost=_cost,
        onnx={"GatherND": OnnxMapping(since=11)},
        cases=(
            _case("elements", (f32(2, 4), _TUPLES)),
            _case("rows", (f32(2, 4, 3), _TUPLES)),
            _case("slices", (spec((3, 2, 2), "int64"), np.array([[[2]], [[-1]]], np.int32))),
            _case("batch", (f32(2, 3, 4), np.array([[[1], [0]], [[-1], [2]]])), batch_dims=1),
        ),
    ),
    Op(
        name="one_hot",
        kind="OneHot",
        doc="""Turn class numbers into vectors with one entry set.

        Parameters
        ----------
        indices: any shape, int32 or int64
            Negative ones count from the end; one outside [-depth, depth) sets nothing.
        depth
            Number of classes.
        axis
            Where the axis of classes is in the result.
        on, off
            The two values.
        dtype
            Of the result.
        """,
        n_inputs=(1, 1),
        attrs={"depth": REQUIRED, "axis": -1, "on": 1, "off": 0, "dtype": "float32"},
        infer=_infer_hot,
        bind=_bind_hot,
        kernel=_kernel_hot,
        reference=_reference_hot,
        scratch=_scratch_hot,
        dtypes=INDEX_DTYPES,
        cases=(
            _case("vector", (np.array([0, 2, -1, 5, -4]),), depth=3),
            _case("first_axis", (_INDEX,), depth=3, axis=0, on=2.5, off=-1, dtype="float64"),
            _case("bool", (np.array([[1], [0]], np.int32),), depth=2, axis=1, dtype="bool"),
        ),
    ),
)  # fmt: skip
