"""Infinity and NaN are results of a run, in every thread; warnings are errors in these tests."""

from __future__ import annotations

import numpy as np
import pytest

import asyncnet_gpu as ag


def overflowing() -> ag.AsyncNet:
    net = ag.AsyncNet("overflow")
    x = net.input("x", (4, 1000), "float32")
    net.output(a=net.sigmoid(x))
    net.output(b=net.exp(net.square(x)))
    net.output(c=net.log(x))
    return net


@pytest.mark.parametrize("options", [{"mode": "serial"}, {"mode": "streams", "allocator": "exact"},
                                     {"mode": "streams", "adversary_seed": 1}])  # fmt: skip
def test_a_run_does_not_warn(options: dict[str, object]) -> None:
    x = np.full((4, 1000), -200, np.float32)
    with overflowing().compile(backend="cpu", **options) as exe:
        for got in (exe.run(x=x), exe.submit(x=x).result(20)):
            assert (got["a"] == 0).all()
            assert np.isinf(got["b"]).all()
            assert np.isnan(got["c"]).all()
    with pytest.warns(RuntimeWarning):  # what the caller has set is as before
        np.log(x)
