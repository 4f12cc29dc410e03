"""Every operator's cases on CUDA as one net each: captured and replayed, and updates in place.

Case by case in serial mode: `tests/conformance/test_ops.py`. Here the cases of an operator share a
net, so that they also share its memory, its streams and its graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu import ops
from asyncnet_gpu.ops.base import Op, OpCase
from tests.conformance.test_ops import check, inputs_of

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

#: Operators that cannot be captured, and why: their steps are issued one by one in graph modes.
NOT_CAPTURED = {
    "cond": "the host reads the condition and decides what is issued",
    "loop": "the host reads the condition and decides what is issued",
}


#: Larger cases are left to serial mode: what a graph could do wrong shows in small ones.
LARGEST_SIZE = 1 << 14


def cases_of(op: Op) -> list[OpCase]:
    cases = [case for case in op.cases if "cuda" in case.backends]
    small = [c for c in cases if sum(i.size for i in c.inputs) <= LARGEST_SIZE]
    return small or cases[:1]


OPERATORS = [op for op in ops.registry().values() if cases_of(op)]
MUTATING = [op for op in OPERATORS if op.mutates]


def net_of(op: Op, cases: list[OpCase]) -> tuple[ag.AsyncNet, dict[str, np.ndarray[Any, Any]]]:
    """Return a net in which every case is a node of its own, and its inputs."""
    net = ag.AsyncNet(op.name)
    given: dict[str, np.ndarray[Any, Any]] = {}
    for case in cases:
        blobs = []
        for i, array in enumerate(inputs_of(op, case)):
            name = f"{case.name}.in{i}"
            if i in op.mutates:
                blobs.append(net.parameter(name, array))
            else:
                blobs.append(net.input(name, array.shape, array.dtype))
                given[name] = array
        outs = net.add_node(op, blobs, case.attrs)
        net.output(**{f"{case.name}.out{i}": out for i, out in enumerate(outs)})
    return net, given


def check_all(op: Op, cases: list[OpCase], out: dict[str, Any]) -> None:
    for case in cases:
        prefix = f"{case.name}.out"
        n = sum(key.startswith(prefix) and key[len(prefix) :].isdigit() for key in out)
        got = [ag.to_numpy(out[f"{prefix}{i}"]) for i in range(n)]
        try:
            check(op, case, got, inputs_of(op, case))
        except AssertionError as error:
            error.add_note(f"case {op.name}-{case.name}")
            raise


def run_twice(op: Op, cases: list[OpCase], mode: str) -> bool:
    """Run the net of some cases, check both runs, and return whether it was captured."""
    net, given = net_of(op, cases)
    with net.compile(backend="cuda", mode=mode) as exe:
        # A net of views has nothing to capture.
        captured = not exe.plan.steps or exe._engine._free[0].program.captured
        first = exe.run(given)
        check_all(op, cases, first)
        if not op.mutates:
            for key, value in exe.run(given).items():
                assert ag.to_numpy(value).tobytes() == ag.to_numpy(first[key]).tobytes(), key
    return bool(captured)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_cases_in_one_graph(op: Op) -> None:
    cases = cases_of(op)
    captured = run_twice(op, cases, "graph")
    refuse = [] if captured else [c.name for c in cases if not run_twice(op, [c], "graph")]
    assert bool(refuse) == (op.name in NOT_CAPTURED), refuse


@pytest.mark.parametrize("op", MUTATING, ids=lambda op: op.name)
@pytest.mark.parametrize("mode", ["serial", "streams"])
def test_updates_in_place(op: Op, mode: str) -> None:
    run_twice(op, cases_of(op), mode)


def test_a_planted_fault_is_caught() -> None:
    op = ops.registry()["add"]
    cases = cases_of(op)
    net, given = net_of(op, cases)
    with net.compile(backend="cuda", mode="serial") as exe:
        out = {key: ag.to_numpy(value) for key, value in exe.run(given).items()}
    check_all(op, cases, out)
    key = next(k for k, v in out.items() if v.size and v.dtype.kind == "f")
    out[key] = out[key] + 1
    with pytest.raises(AssertionError) as caught:
        check_all(op, cases, out)
    assert key.rsplit(".", 1)[0] in str(caught.value.__notes__)
