"""Einstein summation over any number of operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.errors import ShapeError, message
from asyncnet_gpu.ops.base import (
    NUMBERS,
    REQUIRED,
    Arrays,
    Attrs,
    Cost,
    Launch,
    Op,
    OpCase,
    Specs,
    f32,
    same_dtype,
)
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.specs import TensorSpec

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _terms(equation: str, n: int) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; "." stands for an ellipsis."""
    text = equation.replace(" ", "").replace("...", ".")
    left, arrow, right = text.partition("->")
    operands = left.split(",")
    if len(operands) != n or set(left) - set(_LETTERS + ".,") or set(right) - set(_LETTERS + "."):
        fail("einsum", f"equation={equation[:200]!r}", expected=f"{n} operands of letters",
             got=equation[:200], remedy="Write it as in numpy.einsum.")  # fmt: skip
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = "." if "." in left else ""
        right += "".join(c for c in sorted(set(letters)) if letters.count(c) == 1)
    return operands, right


def _extents(ins: Specs, operands: list[str]) -> tuple[dict[str, int], tuple[int, ...]]:
    """Return the extent of each letter, and those behind the ellipses."""
    found: dict[str, int] = {}
    batch: tuple[int, ...] = ()
    for s, term in zip(ins, operands, strict=True):
        n_dots = s.ndim - len(term.replace(".", ""))
        if n_dots < 0 or (n_dots and "." not in term) or term.count(".") > 1:
            fail("einsum", f"operand {term!r}", expected=f"{s.ndim} axes", got=len(term),
                 remedy="Give each axis a letter.")  # fmt: skip
        at = term.find(".")
        names = list(term) if at < 0 else [*term[:at], *[None] * n_dots, *term[at + 1 :]]
        dots = []
        for name, extent in zip(names, s.shape, strict=True):
            if name is None:
                dots.append(extent)
            elif found.setdefault(name, extent) != extent:
                if 1 not in (found[name], extent):
                    fail("einsum", f"axis {name!r}", expected=found[name], got=extent,
                         remedy="Equal letters mean equal extents.")  # fmt: skip
                found[name] = max(found[name], extent)
        batch = np.broadcast_shapes(batch, tuple(dots))
    return found, batch


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    dtype = same_dtype(ins, where="einsum")
    operands, result = _terms(str(attrs["equation"]), len(ins))
    try:
        extents, batch = _extents(ins, operands)
        shape: list[int] = []
        for letter in result:
            shape.extend(batch if letter == "." else (extents[letter],))
    except (KeyError, ValueError) as error:
        if isinstance(error, ShapeError):
            raise
        raise ShapeError(
            message("einsum", "result", expected="letters of the operands", got=str(error),
                    remedy="Write it as in numpy.einsum.")
        ) from error  # fmt: skip
    return (TensorSpec(tuple(shape), dtype),)


def _equation(attrs: Attrs, n: int) -> str:
    operands, result = _terms(str(attrs["equation"]), n)
    return f"{','.join(operands)}->{result}".replace(".", "...")


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    arrays, out, equation = list(ins), outs[0], _equation(attrs, len(ins))
    if xp is not np:
        return lambda: xp.copyto(out, xp.einsum(equation, *arrays))
    # The order of contraction is found once; products of two go to BLAS where they can.
    path = np.einsum_path(equation, *arrays, optimize="optimal" if len(arrays) < 5 else "greedy")[0]
    return lambda: np.einsum(equation, *arrays, out=out, optimize=path)


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    wide = [np.asarray(x, np.float64) for x in ins]
    return (np.asarray(np.einsum(_equation(attrs, len(ins)), *wide, optimize=False)),)


def _cost(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    extents, batch = _extents(ins, _terms(str(attrs["equation"]), len(ins))[0])
    work = 1.0
    for extent in (*extents.values(), *batch):
        work *= extent
    moved = sum(s.nbytes for s in (*ins, *outs))
    return Cost(2.0 * work, float(moved))


OPS = (
    Op(
        name="einsum",
        kind="Einsum",
        doc="""Compute an Einstein sum.

        Parameters
        ----------
        operands: any shapes, numbers of one dtype
        equation
            As in ``numpy.einsum``: letters for the axes of each operand, ``...`` for axes that
            broadcast, and after ``->`` the axes of the result.

        Raises
        ------
        ShapeError
            If the equation does not fit the shapes.
        """,
        n_inputs=(1, None),
        attrs={"equation": REQUIRED},
        infer=_infer,
        bind=_bind,
        reference=_reference,
        cost=_cost,
        dtypes=NUMBERS,
        cases=(
            OpCase("product", (f32(3, 4), f32(4, 5)), {"equation": "ij,jk->ik"}),
            OpCase("batches", (f32(2, 3, 4), f32(2, 4, 5)), {"equation": "...ij,...jk"}),
            OpCase("diagonal", (f32(2, 3, 3),), {"equation": "...ii->...i"}),
            OpCase("inner", (f32(5), f32(5)), {"equation": "i, i"}),
            OpCase("three", (f32(2, 3), f32(3, 4), f32(4, 2)), {"equation": "ab,bc,cd->ad"}),
        ),
    ),
)
