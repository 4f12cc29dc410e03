"""Nets with a loop and a condition, and inputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import parser

from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import Limits, load_onnx

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
SIZE = 6


def load(text: str) -> AsyncNet:
    model = parser.parse_model(f"{HEAD} {text}").SerializeToString()
    net = load_onnx(model, limits=Limits(max_unrolled_nodes=0))
    assert isinstance(net, AsyncNet)
    return net


def matrix(seed: int, size: int = SIZE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(-1, 1, (size, size)).astype(np.float32)


LOOP = """agraph (float[6,6] x) => (y, all) {
    n = Constant <value = int64 {5}> ()
    h = Mul (x, x)
    y, all = Loop (n, , h) <body = b (int64 i, bool c, float[6,6] s) =>
        (bool d, float[6,6] r, float[6,6] o) {
            d = Identity (c)
            f = Cast <to = 1> (i)
            p = MatMul (s, x)
            t = Transpose <perm = [1, 0]> (p)
            g = Add (t, f)
            r = Softmax <axis = -1> (g)
            o = Identity (s)
    }>
}"""

COND = """agraph (float[6,6] x) => (y) {
    s = ReduceSum <keepdims = 0> (x)
    zero = Constant <value = float {0}> ()
    c = Greater (s, zero)
    h = Tanh (x)
    y = If (c) <
        then_branch = t () => (a) { u = MatMul (h, x) v = Add (u, h) a = Sigmoid (v) },
        else_branch = e () => (b) { w = Exp (h) k = CumSum (w, axis) b = Sub (k, h) }
    >
}""".replace("zero =", "axis = Constant <value = int64 {0}> ()\n    zero =")
