"""Elements put by index: scatter_elements and scatter_nd.

The output starts as a copy of the data; updates are applied in their order, so that where two meet
the last one wins, or both count with a reduction, and equal inputs give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import UnsupportedOpError, message
from asyncnet_gpu.ops.base import (
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import as_int, fail, one_of
from asyncnet_gpu.ops.indexing import (
    check_index_dtype,
    contiguous,
    element_strides,
    flat_along_axis,
    flat_of_tuples,
    index_launch,
)
from asyncnet_gpu.ops.strided import CARRIERS, CUDA_NUMBERS, MAX_AXES, copy_launches, launch_all
from asyncnet_gpu.specs import TensorSpec, normal_axis, spec

#: Reduction to the NumPy function that has an unbuffered ``at``; None just puts.
REDUCTIONS: dict[str, str | None] = {
    "none": None,
    "add": "add",
    "mul": "multiply",
    "max": "maximum",
    "min": "minimum",
}


def _check(ins: Specs, attrs: Attrs, *, where: str) -> np.dtype[Any]:
    check_index_dtype(ins[1], where=where)
    one_of(attrs["reduction"], "reduction", tuple(REDUCTIONS), where=where)
    if ins[0].dtype == np.bool_ and attrs["reduction"] != "none":
        fail(where, f"reduction={attrs['reduction']!r} of bool", expected="reduction='none'",
             got=attrs["reduction"], remedy="Use net.cast first.")  # fmt: skip
    return same_dtype((ins[0], ins[2]), where=where)


def _apply(xp: Any, reduction: str, target: Any, places: Any, updates: Any) -> Launch:
    """Return the step that puts updates into rows of `target`."""
    name = REDUCTIONS[reduction]
    if name is None:
        return partial(target.__setitem__, places, updates)
    if xp is not np:
        # CuPy would use atomics: other bits in every run, and not for every dtype.
        raise UnsupportedOpError(
            message("scatter", f"reduction={reduction!r} on CUDA", expected=f"{MAX_AXES} axes",
                    got="more", remedy="Reshape the blobs before this node.")
        )  # fmt: skip
    return partial(getattr(np, name).at, target, places, updates)


def _element(array: Any, reduction: str) -> str:
    """Name the CUDA type: elements are only carried when nothing is computed."""
    if reduction == "none":
        return CARRIERS[array.dtype.itemsize]
    return CUDA_NUMBERS[array.dtype.name]


def _scatter_launches(
    entry: str, ins: Arrays, out: Any, scratch: Arrays, reduction: str, size: int,
    fill: Callable[[Any], None],
) -> Sequence[KernelLaunch] | None:  # fmt: skip
    """Copy the data, and strided operands into `scratch`, then put `size` lines or positions."""
    pairs = [(ins[0], out)]
    operands = []
    for operand, room in zip(ins[1:], scratch, strict=True):
        if not contiguous(operand):
            pairs.append((operand, room))
        operands.append(operand if contiguous(operand) else room)
    copies = copy_launches(pairs)
    if copies is None or not size or not operands[0].size:
        return copies
    element = _element(out, reduction)
    operation = "Put" if reduction == "none" else reduction.title()
    args = (*operands, out)
    put = index_launch(entry, element, operands[0], args, size, fill, reduction=operation)
    return (*copies, put)


def _kernel_scratch(ins: Specs) -> Specs:
    """Room for contiguous copies of indices and updates, which the kernels read without strides."""
    return tuple(ins[1:])


# -- scatter_elements ------------------------------------------------------------------------


def _axis(x: Any, attrs: Attrs) -> int:
    axis = as_int(attrs["axis"], "axis", where="scatter_elements")
    return normal_axis(axis, len(x.shape), where="scatter_elements")


def _infer_elements(ins: Specs, attrs: Attrs) -> Specs:
    x, indices, updates = ins
    _check(ins, attrs, where="scatter_elements")
    axis = _axis(x, attrs)
    if indices.ndim != x.ndim or any(
        i != axis and have > room
        for i, (have, room) in enumerate(zip(indices.shape, x.shape, strict=True))
    ):
        fail("scatter_elements", "shape of the indices",
             expected=f"{x.ndim} axes, none but axis {axis} longer than in {x.shape}",
             got=indices.shape, remedy="Use net.scatter_nd for whole slices.")  # fmt: skip
    if updates.shape != indices.shape:
        fail("scatter_elements", "shape of the updates", expected=indices.shape,
             got=updates.shape, remedy="Give one update for each index.")  # fmt: skip
    return (x,)


def _scratch_elements(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind == "cuda":
        return _kernel_scratch(ins)
    return (TensorSpec(ins[1].shape, np.dtype(np.int64)),)


def _bind_elements(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, indices, updates), (out,) = ins, outs
    copy = partial(xp.copyto, out, x)
    if not indices.size or not out.size:
        return copy
    axis = _axis(x, attrs)
    # Only the CPU plans this temporary: a kernel does without.
    flat = scratch[0] if xp is np else xp.empty(indices.shape, np.int64)
    steps = flat_along_axis(xp, indices, x.shape, axis, flat, where="scatter_elements")
    put = _apply(xp, attrs["reduction"], out.reshape(-1), flat, updates)
    return launch_all([*steps, copy, put])


def _kernel_elements(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    x, indices, _ = ins
    if x.ndim > MAX_AXES:
        return None
    axis = _axis(x, attrs)
    outer, inner = math.prod(indices.shape[:axis]), math.prod(indices.shape[axis + 1 :])

    def fill(layout: Any) -> None:
        layout["outer"], layout["inner"] = outer, inner
        layout["count"], layout["extent"] = indices.shape[axis], x.shape[axis]
        layout["ndim"], layout["axis"] = x.ndim, axis
        layout["shape"][: x.ndim] = indices.shape
        layout["stride"][: x.ndim] = element_strides(x.shape)

    reduction = attrs["reduction"]
    size = outer * inner
    return _scatter_launches("scatter_elements", ins, outs[0], scratch, reduction, size, fill)


def _combined(old: Any, new: Any, reduction: str) -> Any:
    if reduction == "none":
        return new
    if reduction == "add":
        return old + new
    return old * new if reduction == "mul" else (max if reduction == "max" else min)(old, new)


def _reference_elements(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, indices, updates = ins
    axis, out = attrs["axis"] % x.ndim, np.array(x)
    for place in np.ndindex(indices.shape):
        target = (*place[:axis], indices[place], *place[axis + 1 :])
        out[target] = _combined(out[target], updates[place], attrs["reduction"])
    return (out,)


# -- scatter_nd ------------------------------------------------------------------------------


def _infer_nd(ins: Specs, attrs: Attrs) -> Specs:
    x, indices, updates = ins
    _check(ins, attrs, where="scatter_nd")
    k = indices.shape[-1] if indices.ndim else 0
    if not 1 <= k <= x.ndim:
        fail("scatter_nd", "shape of the indices", expected=f"(..., k) with k in 1..{x.ndim}",
             got=indices.shape, remedy="The last axis names axes of x.")  # fmt: skip
    wanted = (*indices.shape[:-1], *x.shape[k:])
    if updates.shape != wanted:
        fail("scatter_nd", "shape of the updates", expected=wanted, got=updates.shape,
             remedy="Give one slice for each index tuple.")  # fmt: skip
    return (x,)


def _scratch_nd(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    if device_kind == "cuda":
        return _kernel_scratch(ins)
    flat = TensorSpec(ins[1].shape[:-1], np.dtype(np.int64))
    return (flat, flat)


def _bind_nd(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    (x, indices, updates), (out,) = ins, outs
    copy = partial(xp.copyto, out, x)
    if not updates.size or not out.size:
        return copy
    k = indices.shape[-1]
    # Only the CPU plans these temporaries: a kernel does without.
    flat, one = scratch if xp is np else [xp.empty(indices.shape[:-1], np.int64) for _ in "ab"]
    steps = flat_of_tuples(xp, indices, x.shape[:k], flat, one, where="scatter_nd")
    rows = out.reshape(math.prod(x.shape[:k]), *x.shape[k:])
    return launch_all([*steps, copy, _apply(xp, attrs["reduction"], rows, flat, updates)])


def _kernel_nd(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    x, indices, updates = ins
    k = indices.shape[-1]
    if k > MAX_AXES:
        return None
    inner = math.prod(x.shape[k:])

    def fill(layout: Any) -> None:
        layout["inner"], layout["count"] = inner, math.prod(indices.shape[:-1])
        layout["ndim"] = k
        layout["shape"][:k] = x.shape[:k]
        layout["stride"][:k] = element_strides(x.shape)[:k]

    size = inner if updates.size else 0
    reduction = attrs["reduction"]
    return _scatter_launches("scatter_nd", ins, outs[0], scratch, reduction, size, fill)


def _reference_nd(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    x, indices, updates = ins
    out = np.array(x)
    k = indices.shape[-1]
    for place in np.ndindex(indices.shape[:-1]):
        for rest in np.ndindex(x.shape[k:]):
            target = (*indices[place], *rest)
            new = updates[(*place, *rest)]
            out[target] = _combined(out[target], new, attrs["reduction"])
    return (out,)


_INDEX = np.array([[0, -1, 2], [1, 2, -3]])
_ROWS = np.array([[1], [-1], [1]])


def _elements(dtype: str, reduction: str, **limits: Any) -> OpCase:
    inputs = (spec((3, 4), dtype), _INDEX, spec((2, 3), dtype))
    return OpCase(f"{dtype}_{reduction}", inputs, {"reduction": reduction}, **limits)


def _nd(dtype: str, reduction: str, **limits: Any) -> OpCase:
    inputs = (spec((3, 4), dtype), _ROWS, spec((3, 4), dtype))
    return OpCase(f"{dtype}_{reduction}", inputs, {"reduction": reduction}, **limits)


_EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
_DOC = """{what}

Parameters
----------
x: any shape, any dtype
    The data, of which the result starts as a copy.
indices: {indices}, int32 or int64
    Negative ones count from the end.
updates: {updates}, dtype of `x`
reduction
    "none" puts the update (the last one wins), "add", "mul", "max", "min" combine it with what is
    there, in order.{more}

Raises
------
ShapeError
    If shapes or dtypes do not fit.
IndexError
    From the run, on the CPU, if an index is out of range; on CUDA that update is left out.
"""

OPS = (
    Op(
        name="scatter_elements",
        kind="ScatterElements",
        doc=_DOC.format(
            what="Put one element for each index: coordinate `axis` of its place is replaced.",
            indices="as many axes as `x`", updates="shape of the indices",
            more="\naxis\n    Which coordinate the indices are.",
        ),
        n_inputs=(3, 3),
        attrs={"axis": 0, "reduction": "none"},
        infer=_infer_elements,
        bind=_bind_elements,
        kernel=_kernel_elements,
        reference=_reference_elements,
        scratch=_scratch_elements,
        onnx={"ScatterElements": OnnxMapping(since=11)},
        cases=(
            _elements("float32", "none", **_EXACT),
            _elements("float32", "add"),
            _elements("float64", "mul", rtol=1e-12),
            _elements("float32", "max", **_EXACT),
            _elements("int64", "min", **_EXACT),
            _elements("float16", "add", rtol=2e-3, atol=2e-3),
            _elements("bool", "none", **_EXACT),
            OpCase("axis", (f32(2, 5, 2), np.array([[[0], [-1]], [[4], [4]]], np.int32),
                            f32(2, 2, 1)), {"axis": 1}, **_EXACT),
            OpCase("meeting", (f32(3, 2), np.array([[1, 0], [1, 0], [1, 2]]), f32(3, 2)),
                   {"reduction": "none"}, **_EXACT),
            OpCase("no_updates", (f32(3, 2), np.zeros((0, 2), np.int64), f32(0, 2)), **_EXACT),
        ),
    ),
    Op(
        name="scatter_nd",
        kind="ScatterND",
        doc=_DOC.format(
            what="Put slices where index tuples say: ``out[indices[i]] = updates[i]``.",
            indices="(..., k)", updates="(..., *x.shape[k:])", more="",
        ),
        n_inputs=(3, 3),
        attrs={"reduction": "none"},
        infer=_infer_nd,
        bind=_bind_nd,
        kernel=_kernel_nd,
        reference=_reference_nd,
        scratch=_scratch_nd,
        onnx={"ScatterND": OnnxMapping(since=11)},
        cases=(
            _nd("float32", "none", **_EXACT),
            _nd("float32", "add"),
            _nd("float64", "mul", rtol=1e-12),
            _nd("int32", "max", **_EXACT),
            _nd("float16", "min", **_EXACT),
            OpCase("elements", (f32(3, 4), np.array([[[0, 1], [2, -1]]], np.int32), f32(1, 2)),
                   **_EXACT),
            OpCase("no_updates", (f32(3, 2), np.zeros((0, 1), np.int64), f32(0, 2)), **_EXACT),
        ),
    ),
)  # fmt: skip
