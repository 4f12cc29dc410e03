"""What planning costs and how good the plans are: ``python -m benchmarks.planning [--save]``.

Planning is build_graph + place + make_plan + verify. Times are medians of rounds in which the
sizes take turns. The arena is compared with the largest sum of live bytes in the order of issue,
which no plan with that order can undercut; waits with the optimum of the exact allocator.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.nets import CUDA_LIKE, nasnet_like, random_net
from helpers.plan_checker import check_plan

from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify
from benchmarks.harness import interleave, save

ALIGNMENT = 256
STEPS = ("build_graph", "place", "make_plan", "verify")


def planned(graph: Graph, mode: str = "streams", allocator: str = "cost") -> Plan:
    return make_plan(
        graph, device_kind="cuda", model=CUDA_LIKE, mode=mode, allocator=allocator,
        alignment=ALIGNMENT,
    )  # fmt: skip


def plan_net(net: AsyncNet, allocator: str = "cost") -> Plan:
    plan = planned(place(build_graph(net)), allocator=allocator)
    verify(plan)
    return plan


def parts_ms(net: AsyncNet) -> dict[str, float]:
    """Time of each step of planning, once."""
    marks = [time.perf_counter()]
    graph = build_graph(net)
    marks.append(time.perf_counter())
    graph = place(graph)
    marks.append(time.perf_counter())
    plan = planned(graph)
    marks.append(time.perf_counter())
    verify(plan)
    marks.append(time.perf_counter())
    return {n: 1e3 * (b - a) for n, a, b in zip(STEPS, marks, marks[1:], strict=False)}


def times() -> dict[str, Any]:
    sizes = (1000, 3000, 10000)
    nets = {n: nasnet_like(n) for n in sizes}
    counts = {n: len(build_graph(net).nodes) for n, net in nets.items()}
    exact = nets[1000]
    timings = interleave(
        {
            **{f"cost {n}": lambda net=net: plan_net(net) for n, net in nets.items()},
            "exact 1000": lambda: plan_net(exact, "exact"),
        },
        rounds=7,
        warm_ups=1,
    )
    # Slope of the least-squares line through (log nodes, log seconds).
    points = [(math.log(counts[n]), math.log(timings[f"cost {n}"].median_s)) for n in sizes]
    x0, y0 = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    slope = sum((x - x0) * (y - y0) for x, y in points) / sum((x - x0) ** 2 for x, _ in points)
    return {
        "nodes": counts,
        "median_ms": {name: 1e3 * t.median_s for name, t in timings.items()},
        "spread": {name: t.spread for name, t in timings.items()},
        "exponent": slope,
        "parts_ms": {n: parts_ms(nets[n]) for n in sizes},
    }


def arena_ratio(plan: Plan) -> float:
    """Arena over the largest sum of live bytes in the order of issue (sizes aligned)."""
    graph = plan.graph
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, step in enumerate(plan.steps):
        node = graph.nodes[step.node]
        for name in (*node.reads, *node.writes):
            storage = graph.blobs[name].storage
            first.setdefault(storage, i)
            last[storage] = i
    change = [0] * (len(plan.steps) + 1)
    for storage, start in first.items():
        info = graph.storages[storage]
        if info.kind in ("temporary", "output"):
            size = -(-info.nbytes // ALIGNMENT) * ALIGNMENT
            change[start] += size
            change[len(plan.steps) if info.kind == "output" else last[storage] + 1] -= size
    live = most = 0
    for delta in change:
        live += delta
        most = max(most, live)
    return plan.arena_bytes[0] / most


def arenas() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n in (100, 300, 1000, 3000):
        for mode in ("serial", "streams"):
            ratios = [
                arena_ratio(planned(build_graph(nasnet_like(n, seed)), mode)) for seed in range(5)
            ]
            found[f"{mode} {n}"] = {"median": sorted(ratios)[2], "worst": max(ratios)}
    return found


def waits(n_nets: int) -> dict[str, Any]:
    """Plan random nets and have every plan checked from its JSON alone."""
    rng = random.Random(1)
    found = {"nets": n_nets, "exact_not_optimal": 0, "redundant": 0, "exact": 0, "cost": 0}
    found |= {"optimum": 0}
    for _ in range(n_nets):
        net = random_net(rng.randrange(1 << 32), rng.randrange(5, 40), rng.choice([1, 1, 2]))
        graph = place(build_graph(net))
        for allocator in ("exact", "cost"):
            plan = planned(graph, allocator=allocator)
            verify(plan)
            report = check_plan(plan.to_dict())
            found[allocator] += report.n_waits
            found["redundant"] += len(report.redundant)
            if allocator == "exact":
                found["optimum"] += report.optimum
                found["exact_not_optimal"] += report.n_waits != report.optimum
    return found


def measure(backend: str, *, nets: int = 2000) -> dict[str, Any]:
    """Plan, print, and return the result as JSON-able data; plans are made without a device."""
    result = {"times": times(), "arena": arenas(), "waits": waits(nets)}
    for name, ms in result["times"]["median_ms"].items():
        spread = result["times"]["spread"][name]
        print(f"planning, {name:<11} nodes: {ms:8.1f} ms (spread {spread:.0%})")
    for n, parts in result["times"]["parts_ms"].items():
        print(f"  of {n}: " + ", ".join(f"{k} {v:.1f}" for k, v in parts.items()) + " ms")
    print(f"exponent of growth: {result['times']['exponent']:.2f}")
    for name, ratio in result["arena"].items():
        print(f"arena / live bytes, {name:<12}: median {ratio['median']:.3f}, "
              f"worst {ratio['worst']:.3f}")  # fmt: skip
    print("waits:", ", ".join(f"{k} {v}" for k, v in result["waits"].items()))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", type=int, default=2000, help="random nets for the waits")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    result = measure("cuda", nets=options.nets)
    if options.save:
        print("saved", save("planning", result).name)


if __name__ == "__main__":
    main()
