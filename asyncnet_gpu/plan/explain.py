"""Why one node comes after another, in words."""

from __future__ import annotations

import difflib
from collections import deque
from itertools import pairwise

from asyncnet_gpu.errors import PlanError, message
from asyncnet_gpu.plan.deps import Reason, find_dependencies
from asyncnet_gpu.plan.types import Plan


def _find(plan: Plan, name: str) -> int:
    """Return the node of this name, or the one that writes the blob of this name last."""
    graph = plan.graph
    for node in graph.nodes:
        if node.name == name:
            return node.id
    blob = graph.blobs.get(name)
    if blob is not None:
        writers = [
            node.id
            for node in graph.nodes
            if any(graph.blobs[written].storage == blob.storage for written in node.writes)
        ]
        if writers:
            return writers[0]
    known = [n.name for n in graph.nodes] + list(graph.blobs)
    near = difflib.get_close_matches(name, known, n=1)
    raise PlanError(
        message(
            "explain", f"unknown name {name!r}", expected="a node or a blob that a node writes",
            got=repr(name), remedy=f"Did you mean {near[0]!r}?" if near else "See plan.describe().",
        )
    )  # fmt: skip


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
        Names of nodes, or of blobs (then the node that writes them).

    Returns
    -------
    A direct dependency with its blob, a chain of them, an order that only the plan makes, or that
    the two may overlap.

    Raises
    ------
    PlanError
        If a name is unknown.
    """
    a, b = _find(plan, first), _find(plan, second)
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
        return f"{first} and {second} are not ordered: they may overlap."
    links = []
    for left, right in pairwise(chain):
        reason = " ".join(edges[right][left]).strip()
        links.append(f"{nodes[right].name!r} waits for {nodes[left].name!r} ({reason})")
    return f"{second} waits for {first}: " + "; ".join(links) + "."
