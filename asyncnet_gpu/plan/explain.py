"""Why one node comes after another, in words."""

from __future__ import annotations

import difflib
from collections import deque
from itertools import pairwise

from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.graph import PERSISTENT_KINDS
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.plan.deps import Reason, find_dependencies
from asyncnet_gpu.plan.types import Plan


def _node_named(plan: Plan, name: str) -> int | None:
    return next((node.id for node in plan.graph.nodes if node.name == name), None)


def _writers(plan: Plan, name: str) -> list[int]:
    """Return the nodes that make the bytes of a blob, in program order; barriers make none."""
    graph = plan.graph
    if name not in graph.blobs:
        known = [n.name for n in graph.nodes] + list(graph.blobs)
        near = difflib.get_close_matches(name, known, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else "See plan.describe()."
        raise PlanError(
            message("explain", f"unknown name {name!r}", expected="a node or a blob of the plan",
                    got=repr(name), remedy=remedy)
        )  # fmt: skip
    storage = graph.blobs[name].storage
    named = [n.id for n in graph.nodes if name in n.writes and n.op.name not in BARRIERS]
    return named or [
        node.id
        for node in graph.nodes
        if node.op.name not in BARRIERS
        and any(graph.blobs[written].storage == storage for written in node.writes)
    ]


def _doer(plan: Plan, name: str) -> str:
    """Return `name`, or the node that computes what a pass took from the plan."""
    gone = plan.graph.gone
    while name in gone and gone[name].into:
        name = gone[name].into
    return name


def _second_node(plan: Plan, first: str, second: str) -> int | None:
    """Return the node meant by `second`: of a blob, the first write after `first`."""
    node = _node_named(plan, second)
    if node is not None:
        return node
    writers = _writers(plan, second)
    start = _node_named(plan, first)
    if start is None:
        return writers[-1] if writers else None
    return next((w for w in writers if w >= start), writers[-1] if writers else None)


def _first_node(plan: Plan, first: str, then: int | None) -> int | None:
    """Return the node meant by `first`: of a blob, the write whose bytes `then` sees."""
    node = _node_named(plan, first)
    if node is not None:
        return node
    writers = _writers(plan, first)
    seen = [w for w in writers if then is None or w < then]
    if seen:
        return seen[-1]
    persistent = plan.graph.blobs[first].kind in PERSISTENT_KINDS
    return writers[0] if writers and not persistent else None


def _path(edges: list[dict[int, Reason]], first: int, second: int) -> list[int] | None:
    """Return a shortest chain of dependencies from `first` to `second`, by breadth."""
    follows: dict[int, int] = {}
    queue = deque([second])
    while queue:
        node = queue.popleft()
        if node == first:
            chain = [first]
            while chain[-1] != second:
                chain.append(follows[chain[-1]])
            return chain
        for before in sorted(edges[node]):
            if before not in follows and before >= first:
                follows[before] = node
                queue.append(before)
    return None


def _ordered_by_plan(plan: Plan, first: int, second: int) -> bool:
    """Whether stream order and events put `first` before `second`."""
    step_of = {step.node: i for i, step in enumerate(plan.steps)}
    source = {s.records: i for i, s in enumerate(plan.steps) if s.records is not None}
    before: dict[int, list[int]] = {}
    last: dict[int, int] = {}
    for i, step in enumerate(plan.steps):
        before[i] = [source[e] for e in step.waits]
        if step.stream in last:
            before[i].append(last[step.stream])
        last[step.stream] = i
    stack, seen = [step_of[second]], set[int]()
    while stack:
        step_index = stack.pop()
        for other in before[step_index]:
            if other == step_of[first]:
                return True
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return False


def explain_order(plan: Plan, first: str, second: str) -> str:
    """Say why `second` waits for `first`.

    Parameters
    ----------
    first, second
        Names of nodes, barriers among them, or of blobs. Of a blob that is written several times
        `first` means the value that `second` sees, and `second` the next one after `first`. For
        what was joined to another node, that node is meant.

    Returns
    -------
    A direct dependency with its blob, a chain of them, an order that only the plan makes, or that
    the two are unordered.

    Raises
    ------
    PlanError
        If a name is unknown.
    """
    for name in (first, second):
        fate = plan.graph.gone.get(_doer(plan, name))
        if fate is not None:
            return f"{name} takes no step: it is {fate.why}."
    first, second = _doer(plan, first), _doer(plan, second)
    b = _second_node(plan, first, second)
    a = _first_node(plan, first, b)
    for name, found in ((first, a), (second, b)):
        if found is None:
            kind = plan.graph.blobs[name].kind
            return (
                f"{second} does not wait for {first}: {name} is of kind {kind}, and no node of the "
                "plan has to write it first."
            )
    assert a is not None
    assert b is not None
    edges, nodes = find_dependencies(plan.graph), plan.graph.nodes
    if a == b:
        return f"{first} and {second} are made by one node, {nodes[a].op.kind} {nodes[a].name!r}."
    if a > b:
        if _path(edges, b, a):
            return f"{second} does not wait for {first}: it is the other way round."
        a, b = b, a
        first, second = second, first
    chain = _path(edges, a, b)
    if chain is None:
        if _ordered_by_plan(plan, a, b):
            return f"{second} comes after {first} only because the plan puts them in one order."
        if _ordered_by_plan(plan, b, a):
            return f"{first} comes after {second} only because the plan puts them in one order."
        return f"{first} and {second} are unordered: they may overlap."
    links = [
        f"{nodes[right].name!r} waits for {nodes[left].name!r} ({_why(plan, edges, left, right)})"
        for left, right in pairwise(chain)
    ]
    return f"{second} waits for {first}: " + "; ".join(links) + "."


def _why(plan: Plan, edges: list[dict[int, Reason]], left: int, right: int) -> str:
    kind, blob = edges[right][left]
    barriers = [n for n in (left, right) if plan.graph.nodes[n].op.name in BARRIERS]
    if barriers:
        return f"barrier over {blob}" if blob else "barrier over the whole net"
    return f"{kind} {blob}".strip()
