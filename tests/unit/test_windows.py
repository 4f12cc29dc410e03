"""The geometry of sliding windows against a walk over every output and tap."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet_gpu.errors import ShapeError
from asyncnet_gpu.ops.windows import make_window

AXIS = st.tuples(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 4), st.integers(0, 4),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(AXIS, st.booleans())
def test_taps_cover_what_windows_read(axis, ceil):
    extent, kernel, stride, dilation, begin, end = axis
    try:
        window = make_window(
            (extent,), (kernel,), strides=stride, pads=(begin, end), dilations=dilation,
            ceil_mode=ceil, where="test",
        )  # fmt: skip
    except ShapeError:
        assert extent + begin + end < (kernel - 1) * dilation + 1
        return
    walked = {
        (tap, out, out * stride + tap * dilation - begin)
        for out in range(window.out[0])
        for tap in range(kernel)
        if 0 <= out * stride + tap * dilation - begin < extent
    }
    found = {
        (tap, out, read)
        for tap, outs, reads in window.taps(0)
        for out, read in zip(
            range(outs.start, outs.stop), range(reads.start, reads.stop, reads.step), strict=True
        )
    }
    assert found == walked
    reads = [o * stride + k * dilation - begin for o in range(window.out[0]) for k in range(kernel)]
    assert window.padded == (begin > 0 or max(reads) >= extent)
    room = extent + begin + end - ((kernel - 1) * dilation + 1)
    if not ceil:
        assert window.out[0] == room // stride + 1
    elif end <= (kernel - 1) * dilation:  # else whole windows may lie in the padding anyhow
        last = (window.out[0] - 1) * stride
        assert last < extent + begin
        assert last + stride >= extent + begin or last >= room


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(1, 2))
def test_same_makes_one_output_for_each_stride(extent, kernel, stride, dilation):
    made = {
        word: make_window(
            (extent,), (kernel,), strides=stride, pads=word, dilations=dilation, where="test"
        )
        for word in ("same_upper", "same_lower")
    }
    upper, lower = made["same_upper"], made["same_lower"]
    assert upper.out == lower.out == (math.ceil(extent / stride),)
    assert (upper.begin, upper.end) == (lower.end, lower.begin)
    assert 0 <= upper.end[0] - upper.begin[0] <= 1
