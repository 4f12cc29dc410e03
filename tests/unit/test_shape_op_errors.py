"""Wrong shapes, dtypes and attributes are refused while the net is written, in the house form."""

from __future__ import annotations

import re

import numpy as np
import pytest

from asyncnet_gpu import ops
from asyncnet_gpu.errors import ShapeError
from asyncnet_gpu.ops.base import f32
from asyncnet_gpu.specs import spec

I64 = spec((2, 3), "int64")
INDEX = spec((2,), "int64")

WRONG = [
    ("matmul", (f32(2, 3), f32(4, 5)), {}, "[matmul] inner extents differ"),
    ("matmul", (f32(), f32(4, 5)), {}, "[matmul] an operand is a scalar"),
    ("matmul", (f32(2, 3), I64), {}, "[matmul] dtypes differ"),
    ("matmul", (f32(2, 3, 4), f32(3, 4, 5)), {}, "[matmul] shapes do not broadcast"),
    ("matmul", (spec((2, 2), "bool"), spec((2, 2), "bool")), {}, "[matmul] unsupported dtype"),
    ("gemm", (f32(2, 3), f32(2, 3)), {}, "[gemm] inner extents differ"),
    ("gemm", (f32(2, 3, 4), f32(4, 3)), {}, "[gemm] a has 3 axes"),
    ("gemm", (f32(2, 3), f32(3, 4), f32(3)), {}, "[gemm] shapes do not broadcast"),
    ("gemm", (f32(1, 3), f32(3, 4), f32(2, 4)), {}, "[gemm] c does not broadcast"),
    ("gemm", (I64, spec((3, 2), "int64")), {"alpha": 0.5}, "[gemm] alpha=0.5"),
    ("conv2d", (f32(1, 3, 8), f32(4, 3, 3)), {}, "[conv2d] input has 3 axes"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 2, 3, 3)), {}, "[conv2d] channels do not fit groups=1"),
    ("conv2d", (f32(1, 4, 8, 8), f32(3, 2, 3, 3)), {"groups": 2}, "[conv2d] channels do not fit"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 3, 3)), {}, "[conv2d] weights do not fit"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 3, 3, 3), f32(3)), {}, "[conv2d] bias does not fit"),
    ("conv2d", (f32(1, 3, 2, 8), f32(4, 3, 3, 3)), {}, "[conv2d] window (3, 3) is larger"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 3, 3, 3)), {"pads": (1, 1, 1)}, "[conv2d] bad pads"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 3, 3, 3)), {"pads": "sam"}, "[conv2d] unknown pads='sam'"),
    ("conv2d", (f32(1, 3, 8, 8), f32(4, 3, 3, 3)), {"strides": 0}, "[conv2d] bad strides"),
    ("max_pool", (f32(2, 3, 8),), {"kernel": (2, 2)}, "[max_pool] bad kernel"),
    ("max_pool", (f32(2, 3),), {"kernel": 2}, "[max_pool] input has 2 axes"),
    ("average_pool", (spec((1, 1, 4), "int32"),), {"kernel": 2}, "[average_pool] unsupported"),
    ("global_max_pool", (f32(2, 3, 0),), {}, "[global_max_pool] no position to pool"),
    ("reshape", (f32(2, 3),), {"shape": (4, 2)}, "[reshape] number of elements changes"),
    ("reshape", (f32(2, 3),), {"shape": (-1, -1)}, "[reshape] shape=(-1, -1)"),
    ("reshape", (f32(2, 0),), {"shape": (-1, 0)}, "[reshape] number of elements changes"),
    ("reshape", (f32(2, 3),), {"shape": (2.0, 3)}, "[reshape] bad shape"),
    ("flatten", (f32(2, 3),), {"axis": 3}, "[flatten] axis=3 is out of range"),
    ("squeeze", (f32(2, 1),), {"axes": 0}, "[squeeze] axis 0 of (2, 1)"),
    ("unsqueeze", (f32(2,),), {"axes": (0, 0)}, "[unsqueeze] axes=(0, 0) name an axis twice"),
    ("transpose", (f32(2, 3),), {"axes": (0,)}, "[transpose] axes=(0,)"),
    ("slice", (f32(4,),), {"starts": (0,), "ends": (1, 2)}, "[slice] lists differ in length"),
    ("slice", (f32(4,),), {"starts": 0, "ends": 1, "steps": 0}, "[slice] steps=(0,)"),
    ("split", (f32(2, 5),), {"axis": 1, "parts": 2}, "[split] parts=2 of axis 1"),
    ("split", (f32(2, 5),), {"axis": 1, "sizes": (2, 2)}, "[split] sizes of axis 1"),
    ("split", (f32(2, 5),), {}, "[split] how to split"),
    ("broadcast_to", (f32(2, 3),), {"shape": (1, 3)}, "[broadcast_to] shape=(1, 3)"),
    ("expand", (f32(2, 3),), {"shape": (4, 3)}, "[expand] shapes do not broadcast"),
    ("concat", (f32(2, 3), f32(3, 3)), {"axis": 1}, "[concat] shapes differ outside axis 1"),
    ("concat", (f32(2, 3), I64), {"axis": 1}, "[concat] dtypes differ"),
    ("concat", (f32(2, 3),), {"axis": 2}, "[concat] axis=2 is out of range"),
    ("stack", (f32(2, 3), f32(2, 4)), {}, "[stack] shapes differ"),
    ("tile", (f32(2, 3),), {"repeats": (2,)}, "[tile] repeats=(2,)"),
    ("pad", (f32(2, 3),), {"pads": (1, 1)}, "[pad] 2 pads"),
    ("pad", (f32(2, 3),), {"pads": (-3, 0, 0, 0)}, "[pad] axis 0 is cropped away"),
    ("pad", (f32(0,),), {"pads": (1, 0), "mode": "edge"}, "[pad] axis 0 is empty"),
    ("pad", (f32(2,),), {"pads": (1, 0), "mode": "mirror"}, "[pad] unknown mode='mirror'"),
    ("gather", (f32(2, 3), f32(2)), {}, "[gather] dtype of the indices"),
    ("gather_elements", (f32(2, 3), INDEX), {}, "[gather_elements] shape of the indices"),
    ("gather_nd", (f32(2, 3), spec((2, 3), "int64")), {}, "[gather_nd] indices do not fit"),
    ("gather_nd", (f32(2, 3), spec((3, 1), "int64")), {"batch_dims": 1}, "[gather_nd] batch axes"),
    ("one_hot", (INDEX,), {"depth": -1}, "[one_hot] depth=-1"),
    ("one_hot", (f32(2),), {"depth": 2}, "[one_hot] unsupported dtype"),
    ("scatter_elements", (f32(2, 3), I64, f32(2, 2)), {}, "[scatter_elements] shape of the up"),
    ("scatter_elements", (f32(2, 3), I64, f32(2, 3)), {"reduction": "sum"},
     "[scatter_elements] unknown reduction='sum'"),
    ("scatter_nd", (f32(2, 3), spec((2, 1), "int64"), f32(2, 2)), {},
     "[scatter_nd] shape of the updates"),
    ("batch_norm", (f32(2, 3, 4), f32(3), f32(3), f32(4), f32(3)), {},
     "[batch_norm] mean does not fit the channels"),
    ("instance_norm", (f32(2, 3), f32(3), f32(3)), {}, "[instance_norm] input has 2 axes"),
    ("lrn", (f32(2, 3),), {"size": 0}, "[lrn] size=0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "ins", "attrs", "phrase"), WRONG)
def test_is_refused(name, ins, attrs, phrase):
    op = ops.registry()[name]
    with pytest.raises(ShapeError, match="^" + re.escape(phrase)) as caught:
        op.check_inputs(ins)
        op.infer(ins, {**op.attrs, **attrs})
    assert ": expected " in str(caught.value)
    assert ", got " in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("name", "shape", "index", "attrs"),
    [
        ("gather", (3, 4), [0, 3], {}),
        ("gather", (3, 4), [0, -4], {}),
        ("gather_elements", (3, 4), [[0, 3]], {}),
        ("gather_nd", (3, 4), [[0, 4]], {}),
    ],
)
def test_index_out_of_range_is_found_when_it_runs_on_the_cpu(name, shape, index, attrs):
    op = ops.registry()[name]
    ins = [np.zeros(shape, np.float32), np.array(index)]
    specs = tuple(spec(a.shape, a.dtype) for a in ins)
    full = {**op.attrs, **attrs}
    outs = op.infer(specs, full)
    scratch = [np.empty(s.shape, s.dtype) for s in op.scratch(specs, outs, full, "cpu")]
    launch = op.bind(np, ins, [np.empty(s.shape, s.dtype) for s in outs], full, scratch)
    with pytest.raises(IndexError, match=rf"^\[{name}\] index out of range: expected"):
        launch()
