"""Control flow: nets inside a node.

What runs inside is a *body*: something with input and output specs that binds itself to arrays and
gives one launch (`asyncnet_gpu.ops.bodies`). A nested net is a body (`asyncnet_gpu.onnx.nested`).
`cond` runs one of two bodies, `loop` runs one again and again. Which way it goes is read by the
host at run time: on the CPU that costs nothing; on CUDA the launch waits for the device, so that it
cannot be recorded. A loop of a known number of passes reads nothing.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from asyncnet_gpu.errors import DeviceError, message
from asyncnet_gpu.ops.base import REQUIRED, Arrays, Attrs, Cost, Launch, Op, OpCase, Specs, f32
from asyncnet_gpu.ops.bodies import ArrayBinder, Binder, Body, FunctionBody
from asyncnet_gpu.ops.checks import fail
from asyncnet_gpu.specs import TensorSpec, spec

#: Passes after which a loop that waits for its condition is given up.
MOST_PASSES = 1_000_000


# -- cond ------------------------------------------------------------------------------------


def _check_flag(where: str, flag: TensorSpec) -> None:
    if flag.dtype.name != "bool" or flag.size != 1:
        fail(where, "condition", expected="one bool", got=flag, remedy="Reduce it to one bool.")


def _check_body(where: str, body: Body, given: Specs) -> None:
    if body.in_specs != given:
        fail(where, "inputs of the body", expected=", ".join(map(str, body.in_specs)),
             got=", ".join(map(str, given)), remedy="Give the body what it takes.")  # fmt: skip


def _infer_cond(ins: Specs, attrs: Attrs) -> Specs:
    _check_flag("cond", ins[0])
    for key in ("then", "otherwise"):
        _check_body("cond", attrs[key], tuple([ins[i] for i in attrs[f"{key}_inputs"]]))
    then, otherwise = attrs["then"].out_specs, attrs["otherwise"].out_specs
    if then != otherwise:
        fail("cond", "results of the branches", expected=", ".join(map(str, then)),
             got=", ".join(map(str, otherwise)),
             remedy="Shapes are static: both branches give the same.")  # fmt: skip
    return tuple(then)


def _scratch_cond(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return (*attrs["then"].scratch(device_kind), *attrs["otherwise"].scratch(device_kind))


def bind_cond(binder: Binder, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    """Return a launch of one of two bodies."""
    n_then = len(attrs["then"].scratch(binder.device_kind))
    parts = {"then": list(scratch)[:n_then], "otherwise": list(scratch)[n_then:]}
    flag = binder.read(ins[0])

    def branch(key: str) -> tuple[Launch, ...]:
        run, made = binder.body(key, attrs[key], [ins[i] for i in attrs[f"{key}_inputs"]],
                                parts[key])  # fmt: skip
        return run, *[binder.copy(source, out) for source, out in zip(made, outs, strict=True)]

    then, otherwise = branch("then"), branch("otherwise")

    def launch() -> None:
        for call in then if flag() else otherwise:
            call()

    return launch


def _bind_cond(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return bind_cond(ArrayBinder(xp), ins, outs, attrs, scratch)


def _run(body: Body, ins: Arrays) -> tuple[Any, ...]:
    scratch = [np.empty(s.shape, s.dtype) for s in body.scratch("cpu")]
    launch, outs = body.bind(np, ins, scratch)
    launch()
    return tuple([np.array(out) for out in outs])


def _reference_cond(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    key = "then" if bool(np.asarray(ins[0]).reshape(-1)[0]) else "otherwise"
    return _run(attrs[key], [ins[i] for i in attrs[f"{key}_inputs"]])


def _cost_cond(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    costs: list[Cost] = [attrs[key].cost() for key in ("then", "otherwise")]
    return max(costs, key=lambda c: c.flops)


# -- loop ------------------------------------------------------------------------------------


def _sliced(whole: TensorSpec, axis: int) -> TensorSpec:
    shape = whole.shape
    return TensorSpec((*shape[:axis], *shape[axis + 1 :]), whole.dtype)


def _split_inputs(ins: Arrays | Specs, attrs: Attrs) -> tuple[Any, Any, Any, Any, Any]:
    """Return count, condition, states, scanned and captured inputs."""
    rest = list(ins)
    count = rest.pop(0) if attrs["count"] is None else None
    flag = rest.pop(0) if attrs["has_condition"] else None
    n, m = attrs["n_states"], len(attrs["scan_axes"])
    return count, flag, rest[:n], rest[n : n + m], rest[n + m :]


_PASS = spec((), "int64")


def _infer_loop(ins: Specs, attrs: Attrs) -> Specs:
    count, flag, states, scanned, captured = _split_inputs(ins, attrs)
    body, n_first = attrs["body"], int(attrs["gives_condition"])
    if count is not None and (count.size != 1 or count.dtype.name != "int64"):
        fail("loop", "count", expected="one int64", got=count, remedy="Cast it.")
    if flag is not None:
        _check_flag("loop", flag)
    slices = [_sliced(s, a) for s, a in zip(scanned, attrs["scan_axes"], strict=True)]
    _check_body("loop", body, (_PASS, *states, *slices, *captured))
    made = body.out_specs[n_first:]
    if n_first:
        _check_flag("loop", body.out_specs[0])
    if tuple(made[: len(states)]) != tuple(states):
        fail("loop", "states", expected=", ".join(map(str, states)),
             got=", ".join(map(str, made[: len(states)])),
             remedy="Shapes are static: a state keeps its own.")  # fmt: skip
    each = made[len(states) :]
    if len(each) != len(attrs["result_axes"]) or (each and _may_end_early(attrs)):
        fail("loop", "results of every pass", expected="a number of passes known before",
             got="a condition", remedy="Shapes are static in a plan.")  # fmt: skip
    stacked = [
        TensorSpec((*s.shape[:a], attrs["count"], *s.shape[a:]), s.dtype)
        for s, a in zip(each, attrs["result_axes"], strict=True)
    ]
    return (*states, *stacked)


def _may_end_early(attrs: Attrs) -> bool:
    return bool(attrs["count"] is None or attrs["has_condition"] or attrs["gives_condition"])


def _scratch_loop(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    _, _, states, scanned, _ = _split_inputs(ins, attrs)
    slices = [_sliced(s, a) for s, a in zip(scanned, attrs["scan_axes"], strict=True)]
    # States twice: a body that swaps two of them may return views of what it was given.
    return (_PASS, *states, *states, *slices, *attrs["body"].scratch(device_kind))


def _leading(array: Any, axis: int, backwards: bool) -> Any:
    """Return a view with one axis in front, in the order of the passes."""
    rest = [a for a in range(array.ndim) if a != axis]
    moved = array.transpose(axis, *rest)
    return moved[::-1] if backwards else moved


def _overlap(a: Any, b: Any) -> bool:
    """Whether two arrays of one namespace may share bytes."""
    (a_low, a_high), (b_low, b_high) = _bounds(a), _bounds(b)
    return a_low < b_high and b_low < a_high


def _bounds(array: Any) -> tuple[int, int]:
    pointer = getattr(array.data, "ptr", None)
    first = array.ctypes.data if pointer is None else pointer
    reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    low = first + sum(r for r in reach if r < 0)
    return low, first + sum(r for r in reach if r > 0) + array.itemsize


def _carry(binder: Binder, new: Arrays, held: Arrays, spare: Arrays) -> list[Launch]:
    """Return copies of the new states over the old.

    They go through spare room where they are views of old ones, as those of a body that swaps two.
    """
    detour = [any(_overlap(made, state) for state in held) for made in new]
    aside = [binder.copy(m, r) for m, r, d in zip(new, spare, detour, strict=True) if d]
    sources = [r if d else m for m, r, d in zip(new, spare, detour, strict=True)]
    return aside + [binder.copy(m, state) for m, state in zip(sources, held, strict=True)]


def bind_loop(binder: Binder, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    """Return a launch of all passes."""
    count, flag, states, scanned, captured = _split_inputs(ins, attrs)
    n, m = len(states), len(scanned)
    room = list(scratch)
    index, held, spare = room[0], room[1 : 1 + n], room[1 + n : 1 + 2 * n]
    slices, inner = room[1 + 2 * n : 1 + 2 * n + m], room[1 + 2 * n + m :]
    run, made = binder.body("body", attrs["body"], [index, *held, *slices, *captured], inner)
    first = int(attrs["gives_condition"])
    numbered = [binder.write(index)]
    for array, part, axis, backwards in zip(
        scanned, slices, attrs["scan_axes"], attrs["scan_backwards"], strict=True
    ):
        numbered.append(binder.take(_leading(array, axis, backwards), part))
    results = [
        binder.put(result, _leading(array, axis, backwards))
        for result, array, axis, backwards in zip(
            made[first + n :], outs[n:], attrs["result_axes"], attrs["result_backwards"],
            strict=True,
        )
    ]  # fmt: skip
    begin = [binder.copy(value, state) for value, state in zip(states, held, strict=True)]
    carry = _carry(binder, made[first : first + n], held, spare)
    end = [binder.copy(state, out) for state, out in zip(held, outs, strict=False)]
    passes = partial(int, attrs["count"]) if count is None else binder.read(count)
    goes_on = _always if flag is None else binder.read(flag)
    again = binder.read(made[0]) if first else _always

    def one_pass(i: int) -> object:
        for number in numbered:
            number(i)
        run()
        # WAR: a result may be a view of a state, which the next one overwrites. So may be the
        # condition, which is asked for before that too.
        for put in results:
            put(i)
        more = again()
        for call in carry:
            call()
        return more

    def launch() -> None:
        most: int = passes()
        for call in begin:
            call()
        i, more = 0, goes_on()
        while more and i < most:
            if i >= MOST_PASSES:
                raise _endless()
            more = one_pass(i)
            i += 1
        for call in end:
            call()

    return launch


def _always() -> bool:
    return True


def _bind_loop(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    return bind_loop(ArrayBinder(xp), ins, outs, attrs, scratch)


def _endless() -> DeviceError:
    return DeviceError(
        message("loop", "the loop does not end", expected=f"at most {MOST_PASSES} passes",
                got="more", remedy="Give it a count.")
    )  # fmt: skip


def _reference_loop(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    count, flag, states, scanned, captured = _split_inputs(ins, attrs)
    passes = attrs["count"] if count is None else int(np.asarray(count).reshape(-1)[0])
    more = True if flag is None else bool(np.asarray(flag).reshape(-1)[0])
    states = [np.asarray(s) for s in states]
    first, rows, i = int(attrs["gives_condition"]), [], 0
    while more and i < passes:
        slices = [
            np.take(x, x.shape[a] - 1 - i if back else i, a)
            for x, a, back in zip(scanned, attrs["scan_axes"], attrs["scan_backwards"], strict=True)
        ]
        made = _run(attrs["body"], [np.asarray(i, np.int64), *states, *slices, *captured])
        more = bool(made[0].reshape(-1)[0]) if first else True
        states = list(made[first : first + len(states)])
        rows.append(made[first + len(states) :])
        i += 1
    stacked = [
        np.stack([row[k] for row in (rows[::-1] if back else rows)], axis)
        for k, (axis, back) in enumerate(
            zip(attrs["result_axes"], attrs["result_backwards"], strict=True)
        )
    ]
    return (*states, *stacked)


def _cost_loop(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    one = attrs["body"].cost()
    passes = 8 if attrs["count"] is None else attrs["count"]
    return Cost(one.flops * passes, one.bytes * passes, gil=True)


# -- definitions -----------------------------------------------------------------------------


def _twice(xp: Any, ins: Arrays, outs: Arrays) -> None:
    xp.add(ins[0], ins[0], out=outs[0])


def _negated(xp: Any, ins: Arrays, outs: Arrays) -> None:
    xp.negative(ins[0], out=outs[0])


def _summed(xp: Any, ins: Arrays, outs: Arrays) -> None:
    """Running sum: state + slice, which is also the result of the pass."""
    xp.add(ins[1], ins[2], out=outs[0])
    xp.copyto(outs[1], outs[0])


def _swapped(xp: Any, ins: Arrays, outs: Arrays) -> None:
    """Double the state while it is small."""
    xp.add(ins[1], ins[1], out=outs[1])
    outs[0][...] = (outs[1] < 100).all()


_X, _FLAG = f32(3, 4), spec((), "bool")
_BRANCHES = {
    "then": FunctionBody((_X,), (_X,), _twice), "then_inputs": (1,),
    "otherwise": FunctionBody((_X,), (_X,), _negated), "otherwise_inputs": (1,),
}  # fmt: skip
_ROW = f32(4)
_SUM = {
    "body": FunctionBody((_PASS, _ROW, _ROW), (_ROW, _ROW), _summed), "n_states": 1, "count": 3,
    "scan_axes": (0,), "scan_backwards": (False,), "result_axes": (0,),
    "result_backwards": (False,), "gives_condition": False, "has_condition": False,
}  # fmt: skip
_WHILE = {
    "body": FunctionBody((_PASS, _ROW), (_FLAG, _ROW), _swapped), "n_states": 1, "count": None,
    "scan_axes": (), "scan_backwards": (), "result_axes": (), "result_backwards": (),
    "gives_condition": True, "has_condition": True,
}  # fmt: skip

#: Operators that may wait for the device while they are launched, or launch very much.
CONTROL = frozenset({"cond", "loop"})

OPS = (
    Op(
        name="cond",
        kind="If",
        doc="""Run one of two bodies, as a condition says when the net runs.

        Parameters
        ----------
        condition: one bool
        values
            What the bodies read.
        then, otherwise
            Bodies (see `asyncnet_gpu.ops.bodies.Body`) with the same results.
        then_inputs, otherwise_inputs
            Which of the node's inputs each takes, in its order; 0 is the condition.
        """,
        n_inputs=(1, None),
        attrs={"then": REQUIRED, "then_inputs": REQUIRED, "otherwise": REQUIRED,
               "otherwise_inputs": REQUIRED},
        infer=_infer_cond,
        bind=_bind_cond,
        reference=_reference_cond,
        scratch=_scratch_cond,
        cost=_cost_cond,
        cases=(
            OpCase("then", (np.asarray(True), _X), _BRANCHES),
            OpCase("otherwise", (np.asarray([False]), _X), _BRANCHES),
        ),
    ),
    Op(
        name="loop",
        kind="Loop",
        doc="""Run a body again and again, carrying states from pass to pass.

        A pass gets its number (int64), the states, a slice of each scanned input and the captured
        inputs; it gives, first, whether to go on (where `gives_condition`), then the states, then
        results that are stacked over the passes.

        Parameters
        ----------
        inputs
            The count (one int64, when the attribute is None), the condition to begin (one bool,
            where `has_condition`), states, scanned inputs, captured inputs.
        body
            See `asyncnet_gpu.ops.bodies.Body`.
        count
            Number of passes, at most; None when it is an input.
        scan_axes, scan_backwards, result_axes, result_backwards
            For each scanned input and each stacked result.

        Raises
        ------
        ShapeError
            If a state changes its shape, or results are stacked over an unknown number of passes.
        """,
        n_inputs=(0, None),
        attrs={
            "body": REQUIRED, "n_states": REQUIRED, "count": None, "scan_axes": (),
            "scan_backwards": (), "result_axes": (), "result_backwards": (),
            "gives_condition": False, "has_condition": False,
        },
        infer=_infer_loop,
        bind=_bind_loop,
        reference=_reference_loop,
        scratch=_scratch_loop,
        cost=_cost_loop,
        cases=(
            OpCase("running_sum", (_ROW, f32(3, 4)), _SUM),
            OpCase("backwards", (_ROW, f32(4, 3)),
                   {**_SUM, "scan_axes": (1,), "scan_backwards": (True,), "result_axes": (1,),
                    "result_backwards": (True,)}),
            OpCase("while", (np.asarray(50), np.asarray(True), _ROW), _WHILE, low=1.0, high=2.0),
            OpCase("never", (np.asarray(50), np.asarray(False), _ROW), _WHILE),
        ),
    ),
)  # fmt: skip
