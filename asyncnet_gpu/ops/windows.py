"""Sliding windows over 1 to 3 spatial axes: the geometry that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asyncnet_gpu.ops.checks import as_ints, fail, one_of

SPATIAL_AXES = (1, 2, 3)
PADDINGS = ("valid", "same", "same_upper", "same_lower")

#: Attributes that say where windows go, and how an operator's docstring explains them.
WINDOW_ATTRS: dict[str, Any] = {"strides": None, "pads": 0, "dilations": None}
STEPS_DOC = """strides, dilations
    One number for each spatial axis or one for all; None means 1."""
PADS_DOC = """pads
    One number, one for each axis, all begins and then all ends, or "same", "same_upper",
    "same_lower", "valid"."""


@dataclass(frozen=True, slots=True)
class Window:
    """A window and where it goes; each field has one number for each spatial axis.

    Attributes
    ----------
    kernel, strides, dilations
        Taps, step from window to window, step from tap to tap.
    begin, end
        Padding before and after.
    extent, out
        Positions of the input (without padding) and of the output.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    extent: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def needed(self) -> tuple[int, ...]:
        """Positions of the padded input that some window reads, counted from its start."""
        return tuple(
            [
                (o - 1) * s + (k - 1) * d + 1
                for o, s, k, d in zip(
                    self.out, self.strides, self.kernel, self.dilations, strict=True
                )
            ]
        )

    @property
    def padded(self) -> bool:
        """Whether some window reaches beyond the input."""
        inside = [n - b <= e for n, b, e in zip(self.needed, self.begin, self.extent, strict=True)]
        return any(self.begin) or not all(inside)

    def taps(self, axis: int) -> list[tuple[int, slice, slice]]:
        """For each tap of an axis the outputs that it reaches and the inputs that they read.

        Taps that only ever read padding are left out.
        """
        found = []
        step, extent = self.strides[axis], self.extent[axis]
        for tap in range(self.kernel[axis]):
            shift = tap * self.dilations[axis] - self.begin[axis]
            first = max(0, -(shift // step))
            last = min(self.out[axis], (extent - 1 - shift) // step + 1)
            if first < last:
                start = first * step + shift
                stop = (last - 1) * step + shift + 1
                found.append((tap, slice(first, last), slice(start, stop, step)))
        return found


#: Strides in bytes are computed from these numbers and must fit into 64 bits.
MOST = 2**31 - 1


def spread(value: object, name: str, n: int, default: int, *, where: str) -> tuple[int, ...]:
    """Return one number of at least 1 for each spatial axis; a single one stands for all."""
    numbers = (default,) if value is None else as_ints(value, name, where=where)
    numbers = numbers * n if len(numbers) == 1 else numbers
    if len(numbers) != n or min(numbers) < 1 or max(numbers) > MOST:
        fail(where, f"bad {name}={value!r}", expected=f"{n} numbers from 1 to {MOST}", got=numbers,
             remedy="Give one for every spatial axis, or one for all.")  # fmt: skip
    return numbers


def explicit_pads(pads: object, n: int, *, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return widths before and after each axis, given as numbers."""
    numbers = as_ints(pads, "pads", where=where)
    if len(numbers) == 1:
        numbers = numbers * n
    if len(numbers) == n:
        numbers = numbers * 2
    if len(numbers) != 2 * n or min(numbers) < 0 or max(numbers) > MOST:
        fail(where, f"bad pads={pads!r}",
             expected=f"1, {n} or {2 * n} numbers from 0 to {MOST}, or one of {PADDINGS}",
             got=numbers, remedy="Give all begins and then all ends.")  # fmt: skip
    return numbers[:n], numbers[n:]


def _outputs(extent: int, reach: int, step: int, begin: int, end: int, *, ceil: bool) -> int:
    room = extent + begin + end - reach
    count = -(-room // step) + 1 if ceil else room // step + 1
    if ceil and (count - 1) * step >= extent + begin:
        count -= 1  # a window that starts in the padding at the end would see nothing
    return count


def make_window(
    extent: Sequence[int], kernel: Sequence[int], *, strides: object, pads: object,
    dilations: object, ceil_mode: bool = False, where: str,
) -> Window:  # fmt: skip
    """Resolve the attributes of a window or raise `ShapeError`.

    Parameters
    ----------
    extent
        Spatial extents of the input.
    kernel
        Taps on each of them.
    strides, dilations
        One number for each axis, one for all, or None for 1.
    pads
        One number, one for each axis, all begins and then all ends, or a word of `PADDINGS`:
        "same" makes ``ceil(extent / stride)`` outputs, an odd padding being larger at the end
        ("same_upper") or at the start ("same_lower").
    ceil_mode
        True also makes an output of the last, incomplete window.
    """
    n = len(extent)
    steps = spread(strides, "strides", n, 1, where=where)
    gaps = spread(dilations, "dilations", n, 1, where=where)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, gaps, strict=True)]
    if isinstance(pads, str):
        word = one_of(pads, "pads", PADDINGS, where=where)
        if word == "valid":
            begin = end = (0,) * n
        else:
            total = [
                max(0, (-(-e // s) - 1) * s + r - e)
                for e, s, r in zip(extent, steps, reach, strict=True)
            ]
            small = tuple([t // 2 for t in total])
            large = tuple([t - t // 2 for t in total])
            begin, end = (large, small) if word == "same_lower" else (small, large)
    else:
        begin, end = explicit_pads(pads, n, where=where)
    out = [
        _outputs(e, r, s, b, f, ceil=ceil_mode)
        for e, r, s, b, f in zip(extent, reach, steps, begin, end, strict=True)
    ]
    if min(out) < 1:
        fail(where, f"window {tuple(reach)} is larger than the padded input",
             expected=f"at most {tuple(e + b + f for e, b, f in zip(extent, begin, end))}",  # noqa: B905
             got=tuple(reach), remedy="Pad more or take a smaller kernel.")  # fmt: skip
    return Window(
        tuple(kernel), steps, gaps, tuple(begin), tuple(end), tuple(extent), tuple(out)
    )  # fmt: skip


def check_spatial(ndim: int, wanted: int | None, *, where: str, shape: object) -> int:
    """Return the number of spatial axes of an (n, c, ...) array or raise `ShapeError`."""
    n = ndim - 2
    if n not in SPATIAL_AXES or (wanted is not None and n != wanted):
        axes = "1 to 3" if wanted is None else str(wanted)
        fail(where, f"input has {ndim} axes", expected=f"(n, c) and {axes} spatial axes",
             got=shape, remedy="Use net.unsqueeze or net.reshape.")  # fmt: skip
    return n
