"""Other shapes and orders of the same bytes: reshape, flatten, squeeze, unsqueeze, transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from asyncnet_gpu.ops.base import (
    REQUIRED,
    Arrays,
    Attrs,
    KernelLaunch,
    Launch,
    OnnxMapping,
    OpCase,
    Specs,
    f32,
)
from asyncnet_gpu.ops.checks import as_int, as_ints, fail, normal_axes
from asyncnet_gpu.ops.strided import bind_copies, copy_launches
from asyncnet_gpu.ops.viewing import reshaped, view_op
from asyncnet_gpu.specs import spec

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
    return reshaped(ins, _resolve(ins[0].shape, wanted, where="reshape"))


def _flat_shape(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    # One past the last axis is allowed: everything is then in the first extent.
    ndim = len(shape)
    if not -ndim <= axis <= ndim:
        fail("flatten", f"axis={axis} is out of range", expected=f"{-ndim}..{ndim}", got=axis,
             remedy="Name the first axis of the second extent.")  # fmt: skip
    first = axis + ndim if axis < 0 else axis
    return math.prod(shape[:first]), math.prod(shape[first:])


def _infer_flatten(ins: Specs, attrs: Attrs) -> Specs:
    return reshaped(ins, _flat_shape(ins[0].shape, as_int(attrs["axis"], "axis", where="flatten")))


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
    return reshaped(ins, [extent for i, extent in enumerate(ins[0].shape) if i not in dropped])


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
    return reshaped(ins, [1 if i in new else next(old) for i in range(ins[0].ndim + len(new))])


def _view_unsqueeze(array: Any, attrs: Attrs) -> Any:
    new = _unsqueeze_axes(array.shape, attrs["axes"])
    # The dots keep an array where nothing is inserted into a scalar.
    places = [None if i in new else slice(None) for i in range(array.ndim + len(new))]
    return array[(*places, ...)]


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
    return reshaped(ins, [ins[0].shape[axis] for axis in order])


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


def _infer_identity(ins: Specs, attrs: Attrs) -> Specs:
    return (ins[0],)


def _view_identity(array: Any, attrs: Attrs) -> Any:
    return array[...]


def _reference_identity(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    return (np.array(ins[0]),)


_INT = spec((2, 3, 4), "int64")
_HALF = spec((3, 4), "float16")

OPS = (
    view_op(
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
    view_op(
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
    view_op(
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
    view_op(
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
    view_op(
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
            OpCase("scalar_as_it_is", (f32(),), {"axes": ()}, rtol=0, atol=0),
        ),
    ),
    view_op(
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
)  # fmt: skip
