"""Every case of every operator: the call list makes the bits that Python makes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from asyncnet_gpu.backends.cpu.native.calls import elementary, native
from asyncnet_gpu.backends.cpu.native.encode import Calls, encode
from asyncnet_gpu.backends.cpu.numpy_state import new_context
from asyncnet_gpu.ops.base import Launch, Op
from tests.native.arrays import as_summed
from tests.native.cases import OPERATORS, bound, cases

#: What is left to Python, and by which operators; "Python" are functions of our own. A ufunc or a
#: copy is left where NumPy converts (float16 is computed in float32, indices are int64).
LEFT = {
    "Python": "cond cumprod cumsum decode_float det dft einsum encode_float gather gather_elements "
    "gather_nd grid_sample gru loop lstm random_normal random_uniform reduce_log_sum_exp resize "
    "rnn roi_align scatter_elements scatter_nd thresholded_relu top_k triangle",
    "__setitem__": "scatter_elements scatter_nd",
    "absolute": "reduce_l1",
    "add": "average_pool batch_norm col2im conv2d instance_norm layer_norm",
    "argmax": "argmax",
    "argmin": "argmin",
    "at": "scatter_elements scatter_nd",
    "clip": "resize",
    "copyto": "average_pool cast celu col2im conv2d conv_transpose elu erf gelu gemm hard_sigmoid "
    "hard_swish instance_norm layer_norm leaky_relu log_softmax lrn matmul mish reduce_l1 "
    "reduce_l2 reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_prod "
    "reduce_sum reduce_sum_square resize rms_norm rsqrt selu sigmoid silu softmax softplus "
    "softsign thresholded_relu",
    "divide": "average_pool batch_norm global_average_pool instance_norm lrn",
    "less_equal": "thresholded_relu",
    "multiply": "batch_norm gemm layer_norm reduce_l2 reduce_sum_square rms_norm sgd_update",
    "power": "pow",
    "reduce": "reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean reduce_min reduce_prod "
    "reduce_sum",
    "remainder": "gather_elements gather_nd scatter_elements scatter_nd",
    "subtract": "batch_norm reduce_log_sum_exp sgd_update",
    "sum": "global_average_pool",
    "take": "gather gather_elements gather_nd",
}


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_the_bits_of_python(op: Op) -> None:
    def compare() -> None:
        for case in cases(op):
            plain, listed = bound(op, case), bound(op, case)
            launch = native(listed.launch)
            for _ in range(2):
                plain.launch()
                launch()
                pairs = zip(
                    (*plain.inputs, *plain.outputs), (*listed.inputs, *listed.outputs), strict=True
                )
                for wanted, got in pairs:
                    assert as_summed(got, wanted), case.name

    new_context().run(compare)


def kind(call: Launch) -> str:
    """Name the function of NumPy that a call calls."""
    function = getattr(call, "func", call)
    owner = getattr(function, "__self__", None)
    if isinstance(function, np.ufunc) or isinstance(owner, (np.ufunc, np.ndarray)):
        return str(function.__name__)
    name = function.__name__
    return str(name) if getattr(np, name, None) is function else "Python"


def test_nothing_more_is_left_to_python() -> None:
    found = defaultdict(set)
    total = 0
    for op in OPERATORS:
        for case in cases(op):
            for call in elementary(bound(op, case).launch):
                total += 1
                if not encode(call, Calls()):
                    found[kind(call)].add(op.name)
    assert total > 3000
    known = {(name, op) for name, ops in LEFT.items() for op in ops.split()}
    now = {(name, op) for name, ops in found.items() for op in ops}
    assert not now - known, "these were written down as a whole before"
    assert not known - now, "these are written down as a whole now: shorten the list"
