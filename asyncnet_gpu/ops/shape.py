"""Operators that only say how bytes are read: they are views, and copy where a layout forbids it.

None of them has a place in a plan as long as the input's strides can express the result (always,
but for reshape and flatten of a strided input): `Op.view` lays the output into the storage of the
input. `bind` and `kernel` copy in the other case.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    REQUIRED,
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    OnnxMapping,
    Op,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_int, as_ints, fail, normal_axes
from asyncnet_gpu.ops.strided import bind_copies, copy_launches
from asyncnet_gpu.specs import TensorSpec, broadcast, normal_axis, spec

View = Callable[[Any, Attrs], Any]


def _parts(view: View, array: Any, attrs: Attrs) -> tuple[Any, ...]:
    made = view(array, attrs)
    return made if isinstance(made, tuple) else (made,)


def _bind_view(view: View) -> Callable[[Any, Arrays, Arrays, Attrs, Arrays], Launch]:
    """Return a `bind` that copies the views of the input into the outputs."""

    def bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
        return bind_copies(xp, list(zip(_parts(view, ins[0], attrs), outs, strict=True)))

    return bind


def _kernel_view(
    view: View,
) -> Callable[[Arrays, Arrays, Attrs, Arrays], Sequence[KernelLaunch] | None]:
    def kernel(
        ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
    ) -> Sequence[KernelLaunch] | None:
        return copy_launches(list(zip(_parts(view, ins[0], attrs), outs, strict=True)))

    return kernel


def _same(ins: Specs, shape: Sequence[int]) -> Specs:
    return (TensorSpec(tuple(shape), ins[0].dtype),)


# -- reshape and flatten ---------------------------------------------------------------------


def _resolve(shape: tuple[int, ...], wanted: tuple[int, ...], *, where: str) -> tuple[int, ...]:
    """Fill in the one extent given as -1 and check that the number of elements stays."""
    size = math.prod(shape)
    known = math.prod([extent for extent in wanted if extent != -1])
    free = wanted.count(-1)
    if free > 1 or any(extent < -1 for extent in wanted):
        fail(where, f"shape={wanted}", expected="extents of at least 0 and at most one -1",
             got=wanted, remedy="Give all extents but one.")  # fmt: skip
    if free and known and size % known == 0:
        wanted = tuple([size // known if extent == -1 else extent for extent in wanted])
    if -1 in wanted or math.prod(wanted) != size:
        fail(where, "number of elements changes", expected=f"{size} as in {shape}",
             got=wanted, remedy="Choose extents whose product is that number.")  # fmt: skip
    return wanted


def _infer_reshape(ins: Specs, attrs: Attrs) -> Specs:
    wanted = as_ints(attrs["shape"], "shape", where="reshape")
    return _same(ins, _resolve(ins[0].shape, wanted, where="reshape"))


def _flat_shape(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    # One past the last axis is allowed: everything is then in the first extent.
    ndim = len(shape)
    if not -ndim <= axis <= ndim:
        fail("flatten", f"axis={axis} is out of range", expected=f"{-ndim}..{ndim}", got=axis,
             remedy="Name the first axis of the second extent.")  # fmt: skip
    first = axis + ndim if axis < 0 else axis
    return math.prod(shape[:first]), math.prod(shape[first:])


def _infer_flatten(ins: Specs, attrs: Attrs) -> Specs:
    return _same(ins, _flat_shape(ins[0].shape, as_int(attrs["axis"], "axis", where="flatten")))


def _view_reshape(array: Any, attrs: Attrs) -> Any:
    wanted = as_ints(attrs["shape"], "shape", where="reshape")
    return np.reshape(array, _resolve(array.shape, wanted, where="reshape"), copy=False)


def _view_flatten(array: Any, attrs: Attrs) -> Any:
    return np.reshape(array, _flat_shape(array.shape, attrs["axis"]), copy=False)


def _bind_reshape(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    # The output is contiguous: seen in the input's shape it takes the elements in C order.
    return bind_copies(xp, [(ins[0], outs[0].reshape(ins[0].shape))])


def _kernel_reshape(
    ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays
) -> Sequence[KernelLaunch] | None:
    return copy_launches([(ins[0], outs[0].reshape(ins[0].shape))])


def _fill_in_order(array: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    out = np.empty(shape, array.dtype)
    for place, index in zip(np.ndindex(shape), np.ndindex(array.shape), strict=True):
        out[place] = array[index]
    return (out,)


def _reference_reshape(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    shape = list(attrs["shape"])
    if -1 in shape:
        shape[shape.index(-1)] = ins[0].size // -math.prod(shape)
    return _fill_in_order(ins[0], tuple(shape))


def _reference_flatten(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    shape, axis = ins[0].shape, attrs["axis"]
    rows = math.prod(shape[: len(shape) + axis if axis < 0 else axis])
    return _fill_in_order(ins[0], (rows, ins[0].size // rows))


# -- squeeze, unsqueeze, transpose -----------------------------------------------------------


def _squeeze_axes(shape: tuple[int, ...], axes: object) -> tuple[int, ...]:
    if axes is None:
        return tuple([i for i, extent in enumerate(shape) if extent == 1])
    found = normal_axes(as_ints(axes, "axes", where="squeeze"), len(shape), where="squeeze")
    for axis in found:
        if shape[axis] != 1:
            fail("squeeze", f"axis {axis} of {shape}", expected="extent 1", got=shape[axis],
                 remedy="Only axes of extent 1 can be dropped; use reshape or slice.")  # fmt: skip
    return found


def _infer_squeeze(ins: Specs, attrs: Attrs) -> Specs:
    dropped = _squeeze_axes(ins[0].shape, attrs["axes"])
    return _same(ins, [extent for i, extent in enumerate(ins[0].shape) if i not in dropped])


def _view_squeeze(array: Any, attrs: Attrs) -> Any:
    dropped = _squeeze_axes(array.shape, attrs["axes"])
    # The dots keep an array where every axis is dropped; NumPy would return a scalar.
    return array[(*[0 if i in dropped else slice(None) for i in range(array.ndim)], ...)]


def _reference_squeeze(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    axes = attrs["axes"]
    axes = tuple(axes) if isinstance(axes, (list, tuple)) else axes
    return (np.array(np.squeeze(ins[0], axes)),)


def _unsqueeze_axes(shape: tuple[int, ...], axes: object) -> tuple[int, ...]:
    found = as_ints(axes, "axes", where="unsqueeze")
    return normal_axes(found, len(shape) + len(found), where="unsqueeze")


def _infer_unsqueeze(ins: Specs, attrs: Attrs) -> Specs:
    new = _unsqueeze_axes(ins[0].shape, attrs["axes"])
    old = iter(ins[0].shape)
    return _same(ins, [1 if i in new else next(old) for i in range(ins[0].ndim + len(new))])


def _view_unsqueeze(array: Any, attrs: Attrs) -> Any:
    new = _unsqueeze_axes(array.shape, attrs["axes"])
    return array[tuple([None if i in new else slice(None) for i in range(array.ndim + len(new))])]


def _reference_unsqueeze(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    axes = attrs["axes"]
    return (np.array(np.expand_dims(ins[0], tuple(axes) if isinstance(axes, list) else axes)),)


def _permutation(ndim: int, axes: object) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(ndim))[::-1]
    found = normal_axes(as_ints(axes, "axes", where="transpose"), ndim, where="transpose")
    if len(found) != ndim:
        fail("transpose", f"axes={found}", expected=f"{ndim} axes", got=len(found),
             remedy="Name every axis of the array once.")  # fmt: skip
    return found


def _infer_transpose(ins: Specs, attrs: Attrs) -> Specs:
    order = _permutation(ins[0].ndim, attrs["axes"])
    return _same(ins, [ins[0].shape[axis] for axis in order])


def _view_transpose(array: Any, attrs: Attrs) -> Any:
    return array.transpose(_permutation(array.ndim, attrs["axes"]))


def _reference_transpose(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    axes = attrs["axes"]
    order = [a % x.ndim for a in (range(x.ndim)[::-1] if axes is None else axes)]
    out = np.empty([x.shape[axis] for axis in order], x.dtype)
    for index in np.ndindex(x.shape):
        out[tuple([index[axis] for axis in order])] = x[index]
    return (out,)


# -- slice and split -------------------------------------------------------------------------


def _slices(shape: tuple[int, ...], attrs: Attrs) -> tuple[slice, ...]:
    starts = as_ints(attrs["starts"], "starts", where="slice")
    ends = as_ints(attrs["ends"], "ends", where="slice")
    axes = range(len(starts)) if attrs["axes"] is None else attrs["axes"]
    axes = normal_axes(as_ints(axes, "axes", where="slice"), len(shape), where="slice")
    steps = (1,) * len(starts) if attrs["steps"] is None else attrs["steps"]
    steps = as_ints(steps, "steps", where="slice")
    if not len(starts) == len(ends) == len(axes) == len(steps):
        fail("slice", "lists differ in length", expected="one entry of each for every axis",
             got=f"{len(starts)} starts, {len(ends)} ends, {len(axes)} axes, {len(steps)} steps",
             remedy="Give starts, ends, axes and steps for the same axes.")  # fmt: skip
    if 0 in steps:
        fail("slice", f"steps={steps}", expected="steps other than 0", got=0,
             remedy="Use 1 to take every element.")  # fmt: skip
    parts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return tuple(parts)


def _infer_slice(ins: Specs, attrs: Attrs) -> Specs:
    shape = ins[0].shape
    parts = _slices(shape, attrs)
    return _same(
        ins, [len(range(*p.indices(extent))) for p, extent in zip(parts, shape, strict=True)]
    )


def _view_slice(array: Any, attrs: Attrs) -> Any:
    return array[_slices(array.shape, attrs)]


def _reference_slice(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    axes = attrs["axes"] if attrs["axes"] is not None else range(len(attrs["starts"]))
    steps = attrs["steps"] if attrs["steps"] is not None else [1] * len(attrs["starts"])
    chosen = [list(range(extent)) for extent in x.shape]
    for axis, start, end, step in zip(axes, attrs["starts"], attrs["ends"], steps, strict=True):
        chosen[axis] = chosen[axis][start:end:step]
    out = np.empty([len(c) for c in chosen], x.dtype)
    for place in np.ndindex(out.shape):
        out[place] = x[tuple([c[i] for c, i in zip(chosen, place, strict=True)])]
    return (out,)


def _split_sizes(shape: tuple[int, ...], attrs: Attrs) -> tuple[int, tuple[int, ...]]:
    axis = as_int(attrs["axis"], "axis", where="split")
    axis = normal_axis(axis, len(shape), where="split")
    extent, parts, sizes = shape[axis], attrs["parts"], attrs["sizes"]
    if (parts is None) == (sizes is None):
        fail("split", "how to split", expected="exactly one of parts= and sizes=",
             got=f"parts={parts!r}, sizes={sizes!r}", remedy="Give one of the two.")  # fmt: skip
    if sizes is None:
        count = as_int(parts, "parts", where="split")
        if count < 1 or extent % count:
            fail("split", f"parts={count} of axis {axis}", expected=f"a divisor of {extent}",
                 got=count, remedy="Give sizes=[...] for unequal parts.")  # fmt: skip
        return axis, (extent // count,) * count
    found = as_ints(sizes, "sizes", where="split")
    if not found or min(found) < 0 or sum(found) != extent:
        fail("split", f"sizes of axis {axis}", expected=f"extents that sum to {extent}",
             got=found, remedy="Let the sizes cover the axis.")  # fmt: skip
    return axis, found


def _infer_split(ins: Specs, attrs: Attrs) -> Specs:
    shape = ins[0].shape
    axis, sizes = _split_sizes(shape, attrs)
    return tuple([TensorSpec((*shape[:axis], s, *shape[axis + 1 :]), ins[0].dtype) for s in sizes])


def _view_split(array: Any, attrs: Attrs) -> tuple[Any, ...]:
    axis, sizes = _split_sizes(array.shape, attrs)
    ends = list(itertools.accumulate(sizes))
    before = (slice(None),) * axis
    return tuple([array[(*before, slice(e - s, e))] for s, e in zip(sizes, ends, strict=True)])


def _reference_split(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    if attrs["sizes"] is None:
        return tuple(np.split(ins[0], attrs["parts"], attrs["axis"]))
    outs, start = [], 0
    for size in attrs["sizes"]:
        outs.append(np.take(ins[0], np.arange(start, start + size), attrs["axis"]))
        start += size
    return tuple(outs)


# -- broadcasting ----------------------------------------------------------------------------


def _infer_broadcast_to(ins: Specs, attrs: Attrs) -> Specs:
    shape = as_ints(attrs["shape"], "shape", where="broadcast_to")
    common = broadcast([ins[0].shape, shape], where="broadcast_to")
    if common != shape:
        fail("broadcast_to", f"shape={shape}", expected="the shape of the result", got=common,
             remedy="Use expand when the shape itself is to broadcast.")  # fmt: skip
    return _same(ins, shape)


def _infer_expand(ins: Specs, attrs: Attrs) -> Specs:
    wanted = spec(as_ints(attrs["shape"], "shape", where="expand"), ins[0].dtype, where="expand")
    return _same(ins, broadcast([ins[0].shape, wanted.shape], where="expand"))


def _view_broadcast(array: Any, attrs: Attrs) -> Any:
    """Repeat by strides of 0; written out because it must hold for NumPy and CuPy arrays alike."""
    shape = broadcast([array.shape, tuple(attrs["shape"])], where="expand")
    padded = array[(None,) * (len(shape) - array.ndim)]
    strides = [
        0 if have == 1 and want != 1 else stride
        for have, want, stride in zip(padded.shape, shape, padded.strides, strict=True)
    ]
    if isinstance(array, np.ndarray):
        return np.lib.stride_tricks.as_strided(array, shape, strides)
    return type(array)(shape, array.dtype, array.data, strides)


def _reference_broadcast(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    (x,) = ins
    out = np.empty(np.broadcast_shapes(x.shape, tuple(attrs["shape"])), x.dtype)
    for place in np.ndindex(out.shape):
        tail = place[len(place) - x.ndim :]
        out[place] = x[tuple([0 if e == 1 else i for e, i in zip(x.shape, tail, strict=True)])]
    return (out,)


def _infer_identity(ins: Specs, attrs: Attrs) -> Specs:
    return (ins[0],)


def _view_identity(array: Any, attrs: Attrs) -> Any:
    return array[...]


def _reference_identity(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    return (np.array(ins[0]),)


_INT = spec((2, 3, 4), "int64")
_HALF = spec((3, 4), "float16")


def _op(view: View, **fields: Any) -> Op:
    fields = {"n_inputs": (1, 1), "bind": _bind_view(view), "kernel": _kernel_view(view), **fields}
    return Op(view=view, **fields)


OPS = (
    _op(
        _view_identity,
        name="identity",
        kind="Identity",
        doc="""Return the blob itself under another name; no copy.

        Parameters
        ----------
        x: any shape, any dtype

        Returns
        -------
        Same shape and dtype, a view.
        """,
        infer=_infer_identity,
        reference=_reference_identity,
        onnx={"Identity": OnnxMapping()},
        cases=(
            OpCase("matrix", (f32(3, 4),), rtol=0, atol=0),
            OpCase("scalar", (f32(),), rtol=0, atol=0),
        ),
    ),
    _op(
        _view_reshape,
        name="reshape",
        kind="Reshape",
        doc="""Read the elements, in C order, in another shape.

        A view where the strides of `x` allow it, else a copy.

        Parameters
        ----------
        x: any shape, any dtype
        shape
            Extents; one may be -1 and is then computed.

        Raises
        ------
        ShapeError
            If the number of elements would change.
        """,
        attrs={"shape": REQUIRED},
        infer=_infer_reshape,
        bind=_bind_reshape,
        kernel=_kernel_reshape,
        reference=_reference_reshape,
        cases=(
            OpCase("split_axis", (f32(6, 4),), {"shape": (2, 3, 4)}, rtol=0, atol=0),
            OpCase("free_extent", (_INT,), {"shape": (4, -1)}, rtol=0, atol=0),
            OpCase("to_scalar", (f32(1, 1),), {"shape": ()}, rtol=0, atol=0),
            OpCase("of_transposed", (np.arange(12.0).reshape(3, 4).T,), {"shape": (12,)},
                   rtol=0, atol=0),
            OpCase("empty", (f32(0, 3),), {"shape": (3, 0, 2)}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_flatten,
        name="flatten",
        kind="Flatten",
        doc="""Make a matrix: axes before `axis` become the first extent, the others the second.

        Parameters
        ----------
        x: any shape, any dtype
        axis
            In [-ndim, ndim]; first axis of the second extent.

        Returns
        -------
        Shape (prod(shape[:axis]), prod(shape[axis:])), a view where the strides allow it.
        """,
        attrs={"axis": 1},
        infer=_infer_flatten,
        bind=_bind_reshape,
        kernel=_kernel_reshape,
        reference=_reference_flatten,
        onnx={"Flatten": OnnxMapping()},
        cases=(
            OpCase("images", (f32(2, 3, 4, 5),), rtol=0, atol=0),
            OpCase("first", (f32(2, 3),), {"axis": 0}, rtol=0, atol=0),
            OpCase("past_the_last", (f32(2, 3),), {"axis": 2}, rtol=0, atol=0),
            OpCase("negative", (_INT,), {"axis": -1}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_squeeze,
        name="squeeze",
        kind="Squeeze",
        doc="""Drop axes of extent 1; a view.

        Parameters
        ----------
        x: any shape, any dtype
        axes
            Which; None drops all that have extent 1.

        Raises
        ------
        ShapeError
            If an axis named has another extent.
        """,
        attrs={"axes": None},
        infer=_infer_squeeze,
        reference=_reference_squeeze,
        cases=(
            OpCase("all", (f32(1, 3, 1),), rtol=0, atol=0),
            OpCase("one", (f32(1, 3, 1),), {"axes": (-1,)}, rtol=0, atol=0),
            OpCase("to_scalar", (f32(1),), {"axes": 0}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_unsqueeze,
        name="unsqueeze",
        kind="Unsqueeze",
        doc="""Insert axes of extent 1; a view.

        Parameters
        ----------
        x: any shape, any dtype
        axes
            Where they are in the result; negative ones count from its end.
        """,
        attrs={"axes": REQUIRED},
        infer=_infer_unsqueeze,
        reference=_reference_unsqueeze,
        cases=(
            OpCase("front", (f32(3, 4),), {"axes": 0}, rtol=0, atol=0),
            OpCase("both_ends", (f32(3, 4),), {"axes": (0, -1)}, rtol=0, atol=0),
            OpCase("scalar", (f32(),), {"axes": (0,)}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_transpose,
        name="transpose",
        kind="Transpose",
        doc="""Permute the axes; a view.

        Parameters
        ----------
        x: any shape, any dtype
        axes
            Axis i of the result is axis ``axes[i]`` of `x`; None reverses them.
        """,
        attrs={"axes": None},
        infer=_infer_transpose,
        reference=_reference_transpose,
        cases=(
            OpCase("reversed", (_INT,), rtol=0, atol=0),
            OpCase("nchw_to_nhwc", (f32(2, 3, 4, 5),), {"axes": (0, 2, 3, 1)}, rtol=0, atol=0),
            OpCase("half", (_HALF,), {"axes": (-1, 0)}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_slice,
        name="slice",
        kind="Slice",
        doc="""Take ``x[start:end:step]`` on some axes; a view.

        Parameters
        ----------
        x: any shape, any dtype
        starts, ends
            For each axis; as in Python, negative ones count from the end and others are cut off
            at the array's bounds.
        axes
            Which axes; None means the first ones.
        steps
            Not 0; negative ones walk backwards; None means 1.
        """,
        attrs={"starts": REQUIRED, "ends": REQUIRED, "axes": None, "steps": None},
        infer=_infer_slice,
        reference=_reference_slice,
        cases=(
            OpCase("rows", (f32(5, 4),), {"starts": (1,), "ends": (4,)}, rtol=0, atol=0),
            OpCase("steps", (f32(7, 6),),
                   {"starts": (0, -1), "ends": (99, 0), "axes": (0, 1), "steps": (2, -2)},
                   rtol=0, atol=0),
            OpCase("backwards", (spec((6,), "int32"),),
                   {"starts": (-1,), "ends": (-99,), "steps": (-1,)}, rtol=0, atol=0),
            OpCase("empty", (f32(3, 4),), {"starts": (2,), "ends": (1,), "axes": (-1,)},
                   rtol=0, atol=0),
        ),
    ),
    _op(
        _view_split,
        name="split",
        kind="Split",
        doc="""Cut a blob along an axis; the parts are views.

        Parameters
        ----------
        x: any shape, any dtype
        axis
            Which axis.
        parts
            Number of equal parts, or
        sizes
            Extent of each part; they sum to the extent of the axis.

        Returns
        -------
        A blob for each part.

        Raises
        ------
        ShapeError
            If `parts` does not divide the axis or `sizes` do not cover it.
        """,
        attrs={"axis": 0, "parts": None, "sizes": None},
        infer=_infer_split,
        reference=_reference_split,
        cases=(
            OpCase("halves", (f32(4, 6),), {"axis": 1, "parts": 2}, rtol=0, atol=0),
            OpCase("sizes", (_INT,), {"axis": -1, "sizes": (1, 0, 3)}, rtol=0, atol=0),
            OpCase("whole", (_HALF,), {"parts": 1}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_broadcast,
        name="broadcast_to",
        kind="BroadcastTo",
        doc="""Repeat axes of extent 1 until the blob has `shape`; a view with strides of 0.

        Parameters
        ----------
        x: any shape, any dtype
        shape
            Of the result.
        """,
        attrs={"shape": REQUIRED},
        infer=_infer_broadcast_to,
        reference=_reference_broadcast,
        cases=(
            OpCase("row", (f32(3),), {"shape": (2, 3)}, rtol=0, atol=0),
            OpCase("column", (f32(3, 1),), {"shape": (2, 3, 4)}, rtol=0, atol=0),
            OpCase("scalar", (f32(),), {"shape": (2, 2)}, rtol=0, atol=0),
        ),
    ),
    _op(
        _view_broadcast,
        name="expand",
        kind="Expand",
        doc="""Broadcast the blob and `shape` against each other; a view with strides of 0.

        Parameters
        ----------
        x: any shape, any dtype
        shape
            May itself have extents of 1 where `x` has more.
        """,
        attrs={"shape": REQUIRED},
        infer=_infer_expand,
        reference=_reference_broadcast,
        cases=(
            OpCase("both_ways", (f32(3, 1),), {"shape": (2, 1, 4)}, rtol=0, atol=0),
            OpCase("fewer_axes", (_INT,), {"shape": (1, 1)}, rtol=0, atol=0),
        ),
    ),
)  # fmt: skip
