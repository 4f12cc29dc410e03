"""A checker of plans that knows only their published JSON form, none of the library's code.

Slow and obvious on purpose: ancestors as sets of bits, all pairs compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any


@dataclass(frozen=True)
class Report:
    """What a plan shows: waits, those that could go, and how many an optimal cover needs."""

    n_waits: int
    redundant: list[tuple[int, int]]
    reduction: int
    matching: int

    @property
    def optimum(self) -> int:
        return self.reduction - self.matching


class _Checker:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.storage_of = {b["name"]: b["storage"] for b in plan["blobs"]}
        self.step_of = {s["node"]: i for i, s in enumerate(plan["steps"])}
        self.recorder = {}
        for i, step in enumerate(plan["steps"]):
            if step["records"] is not None:
                assert step["records"] not in self.recorder, "event recorded twice"
                self.recorder[step["records"]] = i
        self.before = self.closure(None)

    def closure(self, without: tuple[int, int] | None) -> list[int]:
        """Bit set of earlier steps for each step, leaving out one (step, event) wait."""
        before: list[int] = []
        last: dict[int, int] = {}
        for i, step in enumerate(self.plan["steps"]):
            bits = 0
            sources = [last[step["stream"]]] if step["stream"] in last else []
            for event in step["waits"]:
                assert self.recorder.get(event, i) < i, "wait for an event not recorded earlier"
                if (i, event) != without:
                    sources.append(self.recorder[event])
            for source in sources:
                bits |= before[source] | 1 << source
            before.append(bits)
            last[step["stream"]] = i
        return before

    def ordered(self, first: int, then: int) -> bool:
        return bool(self.before[then] >> first & 1)

    def uses(self) -> dict[int, list[tuple[int, bool]]]:
        """Nodes that touch each storage, in program order, and whether they write it."""
        found: dict[int, list[tuple[int, bool]]] = {}
        for node in self.plan["nodes"]:
            written = {self.storage_of[n] for n in node["writes"]}
            for storage in sorted(written | {self.storage_of[n] for n in node["reads"]}):
                found.setdefault(storage, []).append((node["id"], storage in written))
        return found

    def conflicts(self) -> set[tuple[int, int]]:
        """All ordered pairs of nodes that rule 1 speaks of."""
        pairs = {(other, n["id"]) for n in self.plan["nodes"] for other in n["after"]}
        for users in self.uses().values():
            for (a, a_writes), (b, b_writes) in combinations(users, 2):
                if a_writes or b_writes:
                    pairs.add((a, b))
        return pairs

    def check_form(self) -> None:
        nodes = {n["id"]: n for n in self.plan["nodes"]}
        streams = {s["id"]: s for s in self.plan["streams"]}
        assert sorted(self.step_of) == sorted(nodes), "a node without a step"
        assert sorted(self.recorder) == list(range(self.plan["events"])), "events not dense"
        for step in self.plan["steps"]:
            assert streams[step["stream"]]["device"] == nodes[step["node"]]["device"]

    def check_memory(self) -> None:
        placed = [s for s in self.plan["storages"] if s["offset"] is not None and s["bytes"]]
        uses = {k: [self.step_of[n] for n, _ in v] for k, v in self.uses().items()}
        kinds = {b["storage"]: b["kind"] for b in self.plan["blobs"]}
        for s in placed:
            assert s["offset"] >= 0, "before the arena"
            assert s["offset"] + s["bytes"] <= self.plan["arena_bytes"][s["device"]], "after it"
        for a, b in combinations(placed, 2):
            apart = (
                a["device"] != b["device"]
                or a["offset"] + a["bytes"] <= b["offset"]
                or b["offset"] + b["bytes"] <= a["offset"]
            )
            if not apart:
                free = []
                for x, y in ((a, b), (b, a)):
                    done = all(self.ordered(i, j) for i in uses[x["id"]] for j in uses[y["id"]])
                    free.append(done and kinds.get(x["id"]) != "output")
                assert any(free), f"storages {a['id']} and {b['id']} overlap in bytes and time"

    def reduction(self) -> list[tuple[int, int]]:
        """Edges of the dependency DAG that no longer path implies."""
        n = len(self.plan["nodes"])
        preds: list[set[int]] = [set() for _ in range(n)]
        for a, b in self.conflicts():
            preds[b].add(a)
        ancestors: list[int] = []
        edges = []
        for node in range(n):
            bits = 0
            for p in preds[node]:
                bits |= ancestors[p]
            edges += [(p, node) for p in preds[node] if not bits >> p & 1]
            ancestors.append(bits | sum(1 << p for p in preds[node]))
        return edges

    def matching(self, edges: list[tuple[int, int]]) -> int:
        """Kuhn's algorithm on edges that can lie in one stream."""
        kind = {s["id"]: (s["device"], s["kind"]) for s in self.plan["streams"]}
        lane = {s["node"]: kind[s["stream"]] for s in self.plan["steps"]}
        follows: dict[int, list[int]] = {}
        for a, b in edges:
            if lane[a] == lane[b]:
                follows.setdefault(a, []).append(b)
        taken: dict[int, int] = {}

        def place(a: int, seen: set[int]) -> bool:
            for b in follows[a]:
                if b not in seen:
                    seen.add(b)
                    if b not in taken or place(taken[b], seen):
                        taken[b] = a
                        return True
            return False

        return sum(place(a, set()) for a in follows)


def check_plan(plan: dict[str, Any], *, count_waits: bool = True) -> Report:
    """Raise AssertionError when a plan breaks rule 1 or 2 of its schema; else report rule 3."""
    checker = _Checker(plan)
    checker.check_form()
    for a, b in sorted(checker.conflicts()):
        first, then = checker.step_of[a], checker.step_of[b]
        assert checker.ordered(first, then), f"node {b} may overtake node {a}"
    checker.check_memory()
    redundant = []
    waits = [(i, e) for i, s in enumerate(plan["steps"]) for e in s["waits"]]
    edges = checker.reduction() if count_waits else []
    if count_waits:
        for i, event in waits:
            if checker.closure((i, event))[i] >> checker.recorder[event] & 1:
                redundant.append((i, event))
    return Report(len(waits), redundant, len(edges), checker.matching(edges))
