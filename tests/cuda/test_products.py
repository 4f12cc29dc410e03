"""Products of operators without a kernel go through the stream's cuBLAS handle, also in a graph."""

from __future__ import annotations

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu

EQUATIONS = (
    ("ij,jk->ik", ((3, 4), (4, 5))),
    ("ij,kj->ki", ((3, 4), (5, 4))),
    ("...ij,...jk->...ik", ((2, 1, 3, 4), (6, 4, 5))),
    ("i...,j...->...ij", ((3, 4), (5, 4))),
    ("bij,bjk->bik", ((2, 3, 4), (2, 4, 5))),
    ("bij,bkj->bik", ((1, 3, 4), (2, 5, 4))),
    ("ii,ij->j", ((4, 4), (4, 3))),
    ("ij,kl->il", ((2, 3), (4, 5))),
    ("i,j->ij", ((3,), (4,))),
    ("ij,ij->", ((3, 4), (3, 4))),
    ("ij,jk,kl->il", ((3, 4), (4, 5), (5, 2))),
    ("ij,jk,ik->j", ((3, 4), (4, 5), (3, 5))),
    ("ij,jk->ik", ((3, 0), (0, 5))),
    ("ij,jk->ik", ((0, 4), (4, 5))),
)


@pytest.mark.parametrize("mode", ["serial", "graph"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_einsum(mode: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    net = ag.AsyncNet("sums")
    given, wanted = {}, {}
    for n, (equation, shapes) in enumerate(EQUATIONS):
        arrays = [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]
        names = [f"x{n}_{i}" for i in range(len(arrays))]
        blobs = [net.input(k, a.shape, dtype) for k, a in zip(names, arrays, strict=True)]
        net.output(**{f"y{n}": net.einsum(*blobs, equation=equation)})
        given |= dict(zip(names, arrays, strict=True))
        wanted[f"y{n}"] = np.einsum(equation, *[a.astype(np.float64) for a in arrays])
    with net.compile(backend="cuda", mode=mode) as exe:
        assert exe._engine._free[0].program.captured == (mode == "graph")
        for _ in range(2):
            out = exe.run(given)
            for (equation, _), key in zip(EQUATIONS, wanted, strict=True):
                np.testing.assert_array_equal(ag.to_numpy(out[key]), wanted[key], equation)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_recurrent_layers_have_equal_bits_in_every_mode(cell: str) -> None:
    rng = np.random.default_rng(2)
    n = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    shapes = {"w": (2, n * 6, 4), "r": (2, n * 6, 6), "b": (2, 2 * n * 6), "h": (2, 3, 6)}
    if cell == "lstm":
        shapes["c"] = (2, 3, 6)
    net = ag.AsyncNet("layer")
    blob = net.input("x", x.shape, "float32")
    weights = [
        net.parameter(k, rng.standard_normal(s).astype(np.float32)) for k, s in shapes.items()
    ]
    net.output(y=getattr(net, cell)(blob, *weights, direction="bidirectional")[0])
    results = []
    for mode in ("serial", "streams", "graph", "graph-serial"):
        with net.compile(backend="cuda", mode=mode) as exe:
            assert exe._engine._free[0].program.captured == mode.startswith("graph")
            results += [ag.to_numpy(exe.run(x=x)["y"]).tobytes() for _ in range(2)]
    assert len(set(results)) == 1
