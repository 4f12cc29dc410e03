"""A net as a list of plain tasks, for rivals that want a task for every node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncnet_gpu as ag

from ..nets.plain import TABLE

Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Task:
    """One node: ``run(*arrays)`` returns the array for its output, or a tuple of them.

    Attributes
    ----------
    stream
        Where a person would put it; 0 is the main stream.
    """

    name: str
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stream: int = 0


def tasks_of(
    net: ag.AsyncNet, xp: Any, *, table: Functions = TABLE, hand: Sequence[str] = ()
) -> list[Task]:
    """Return the nodes of a net as tasks in program order.

    Raises
    ------
    KeyError
        If an operator is not in `table`.
    """
    made = []
    for node in net.definitions:
        if node.op.name == "call":
            run = _call(xp, node.attrs)
        else:
            run = partial(table[node.op.name], xp, **node.attrs)
        places = [i + 1 for i, prefix in enumerate(hand) if node.name.startswith(prefix)]
        made.append(Task(node.name, run, node.inputs, node.outputs, max(places, default=0)))
    return made


def _call(xp: Any, attrs: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a function that allocates the outputs of a user's function and calls it."""
    fn, pairs = attrs["fn"], list(zip(attrs["shapes"], attrs["dtypes"], strict=True))

    def run(*arrays: Any) -> Any:
        outs = tuple(xp.empty(shape, dtype) for shape, dtype in pairs)
        fn(xp, *arrays, out=outs if len(outs) > 1 else outs[0])
        return outs if len(outs) > 1 else outs[0]

    return run


def store(values: dict[str, Any], task: Task, made: Any) -> None:
    """Note what a task returned under the names of its outputs."""
    if len(task.outputs) == 1:
        values[task.outputs[0]] = made
    else:
        values.update(zip(task.outputs, made, strict=True))
