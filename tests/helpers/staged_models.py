"""Models that run in stages: shapes depend on what a run computes."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from asyncnet_gpu.onnx import Limits

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64
#: Every input is too large to be bound by its value.
NOTHING_BOUND = Limits(max_bound_bytes=64)


def model(nodes, inputs, outputs, constants=()):
    def infos(kinds):
        return [helper.make_tensor_value_info(n, *kind) for n, kind in kinds.items()]

    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(kind, inputs, outputs, **attrs):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attrs)


def detector():
    """Boxes and scores from an image; what remains of them, and a mean of the image beside it."""
    return model(
        [node("Relu", "image", "positive"), node("Reshape", "positive rows", "boxes"),
         node("ReduceMean", "boxes", "means", axes=[2], keepdims=0),
         node("Unsqueeze", "means one", "scores"),
         node("NonMaxSuppression", "boxes scores most overlap", "kept"),
         node("Slice", "kept two three one", "places"), node("Squeeze", "places one", "flat"),
         node("Gather", "boxes flat", "found", axis=1), node("Add", "found found", "twice"),
         node("ReduceMean", "positive", "light", keepdims=0)],
        {"image": (FLOAT, [1, 3, 40, 40])},
        {"twice": (FLOAT, [1, None, 4]), "light": (FLOAT, []), "kept": (INT, [None, 3])},
        {"rows": [1, -1, 4], "one": [1], "two": [2], "three": [3], "most": [50],
         "overlap": np.array([0.1], np.float32)},
    )  # fmt: skip


def counting():
    """The sums of the rows in which something is above a limit, at a run's own length."""
    return model(
        [node("Greater", "x limit", "above"), node("Cast", "above", "bits", to=FLOAT),
         node("ReduceMax", "bits", "any", axes=[1], keepdims=0),
         node("NonZero", "any", "rows"), node("Squeeze", "rows zero", "flat"),
         node("Gather", "x flat", "chosen"), node("ReduceSum", "chosen one", "sums", keepdims=0),
         node("Shape", "sums", "count")],
        {"x": (FLOAT, ["n", 8]), "limit": (FLOAT, [])},
        {"sums": (FLOAT, ["m"]), "count": (INT, [1])}, {"zero": [0], "one": [1]},
    )  # fmt: skip
