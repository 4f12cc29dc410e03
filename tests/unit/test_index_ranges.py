"""Indices at the ends of their range: good ones from both sides pass, bad ones are named."""

from __future__ import annotations

import numpy as np
import pytest

import asyncnet_gpu as ag


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("strided", [False, True])
def test_both_ends_of_the_range(dtype: str, strided: bool) -> None:
    net = ag.AsyncNet()
    x, indices = net.input("x", (5,)), net.input("i", (8,), dtype)
    if strided:
        indices = net.slice(indices, starts=(0,), ends=(8,), steps=(2,))
    net.output(y=net.gather(x, indices))
    values = np.arange(5, dtype=np.float32)
    good = np.array([-5, 0, 4, 1, -1, 2, 0, 3], dtype)
    with net.compile(backend="cpu") as exe:
        used = good[::2] if strided else good
        assert np.array_equal(exe.run(x=values, i=good)["y"], values[used])
        info = np.iinfo(dtype)
        for bad in (5, -6, info.max, info.min):
            wrong = good.copy()
            wrong[2] = bad
            with pytest.raises(IndexError, match=rf"expected -5\.\.4, got {bad}\b"):
                exe.run(x=values, i=wrong)
        assert np.array_equal(exe.run(x=values, i=good)["y"], values[used])
