"""Small models, as text, with what exporters rarely write: loops, scans, sequences, functions."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import onnx
from onnx import parser

TEXTS = {
    "loop": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[4] x, int64 n) => (float[4] y) {
            t = Constant <value = bool {1}> ()
            y = Loop (n, t, x) <body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) {
                d = Identity (c)
                r = Add (s, s)
            }>
        }""",
    "loop_to_a_limit": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[4] x) => (float[4] y, float[5,4] all) {
            n = Constant <value = int64 {5}> ()
            t = Constant <value = bool {1}> ()
            y, all = Loop (n, t, x) <body = b (int64 i, bool c, float[4] s)
                => (bool d, float[4] r, float[4] o) {
                d = Identity (c)
                r = Add (s, x)
                o = Neg (r)
            }>
        }""",
    "scan": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[3,2] x) => (float[2] z, float[3,2] y) {
            s = Constant <value = float[2] {0, 0}> ()
            z, y = Scan <num_scan_inputs = 1, body = b (float[2] a, float[2] v)
                => (float[2] o, float[2] p) {
                o = Add (a, v)
                p = Identity (o)
            }> (s, x)
        }""",
    "if": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[2,3] x) => (float[2,3] y) {
            m = ReduceSum <keepdims = 0> (x)
            zero = Constant <value = float {0}> ()
            c = Greater (m, zero)
            y = If (c) <
                then_branch = t () => (float[2,3] a) { a = Add (x, x) },
                else_branch = e () => (float[2,3] b) { b = Neg (x) }
            >
        }""",
    "if_of_a_shape": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[N,3] x) => (y) {
            s = Shape <start = 0, end = 1> (x)
            two = Constant <value = int64[1] {2}> ()
            c = Equal (s, two)
            y = If (c) <
                then_branch = t () => (a) { a = Add (x, x) },
                else_branch = e () => (b) { b = Neg (x) }
            >
        }""",
    "resize": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[1,2,3,4] x) => (y) {
            s = Constant <value = int64[4] {1, 2, 6, 8}> ()
            e = Constant <value = float[0] {}> ()
            r = Resize <mode = "linear"> (x, e, e, s)
            shape = Shape (r)
            two = Constant <value = int64[1] {2}> ()
            four = Constant <value = int64[1] {4}> ()
            part = Slice (shape, two, four)
            tail = Constant <value = int64[2] {0, -1}> ()
            y = Reshape (r, tail)
        }""",
    "quantised": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[2,8] x) => (y, i) {
            q, s, z = DynamicQuantizeLinear (x)
            d = DequantizeLinear (q, s, z)
            k = Constant <value = int64[1] {3}> ()
            y, i = TopK (d, k)
        }""",
    "function": """
        <ir_version: 9, opset_import: ["" : 18, "own" : 1]>
        agraph (float[2,3] x) => (y) { y = own.twice <to = 2.0> (x) }
        <domain: "own", opset_import: ["" : 18]>
        twice <to> (a) => (b) {
            f = Constant <value_float : float = @to> ()
            b = Mul (a, f)
        }""",
    "convolution": """
        <ir_version: 8, opset_import: ["" : 13]>
        agraph (float[1,2,6,6] x) => (y)
            <float[2,2,3,3] w = {
                1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1,
                1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1
            }, int64[2] flat = {0, -1}> {
            c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
            r = Relu (c)
            p = MaxPool <kernel_shape = [2, 2]> (r)
            f = Reshape (p, flat)
            y = Softmax <axis = 1> (f)
        }""",
    "recurrent": """
        <ir_version: 8, opset_import: ["" : 14]>
        agraph (float[3,1,2] x, float[1,4,2] w, float[1,4,1] r) => (y, h, c) {
            y, h, c = LSTM <hidden_size = 1> (x, w, r)
        }""",
    "sequence": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (float[2,3] x, float[2,3] z) => (y) {
            s = SequenceConstruct (x, z)
            one = Constant <value = int64 {1}> ()
            a = SequenceAt (s, one)
            b = ConcatFromSequence <axis = 0> (s)
            y = Concat <axis = 0> (a, b)
        }""",
    "sequence across the border": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (seq(float[2,3]) s, int64 at) => (seq(float[2,3]) out, float[2,3] one) {
            one = SequenceAt (s, at)
            n = Neg (one)
            out = SequenceInsert (s, n)
        }""",
    "texts": """
        <ir_version: 10, opset_import: ["" : 20]>
        agraph (string[N] a, string[N] b) => (string[N] y, bool[N] same) {
            y = StringConcat (a, b)
            same = Equal (a, b)
        }""",
    "optional": """
        <ir_version: 9, opset_import: ["" : 18]>
        agraph (optional(float[2]) x) => (bool there, float[2] y) {
            there = OptionalHasElement (x)
            y = OptionalGetElement (x)
        }""",
}

#: Pretrained models by the package that ships them; read as data, the packages are not imported.
PACKAGES = ("basic_pitch", "silero_vad", "rapidocr_onnxruntime", "magika")


@functools.cache
def textual() -> dict[str, bytes]:
    """Return the models of this file."""
    return {name: parser.parse_model(text).SerializeToString() for name, text in TEXTS.items()}


@functools.cache
def exported() -> tuple[bytes, ...]:
    """Small models of PyTorch's exporters and simple ones by hand, as onnx ships them."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    files = sorted(data.glob("pytorch-*/*/model.onnx")) + sorted(data.glob("simple/*/model.onnx"))
    return tuple(d for d in (f.read_bytes() for f in files) if len(d) < 200_000)


@functools.cache
def pretrained() -> dict[str, Path]:
    """Files of the pretrained models that are installed, by file name."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found.update({f.name: f for f in sorted(Path(folder).rglob("*.onnx"))})
    return found
