"""Dependencies by storage and their reduction, against networkx and all pairs."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
from helpers.nets import CUDA_LIKE, HALF, UPDATE, dag_net, mix, random_net
from hypothesis import given
from hypothesis import strategies as st

from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.deps import find_dependencies, has_parallelism, reduce_dependencies

SEEDS = st.integers(0, 2**32)


def all_pairs(graph: Graph) -> nx.DiGraph:
    """Every pair of nodes in conflict, compared one by one."""
    dag = nx.DiGraph()
    dag.add_nodes_from(range(len(graph.nodes)))

    def storages(names: tuple[str, ...]) -> set[int]:
        return {graph.blobs[name].storage for name in names}

    for b in graph.nodes:
        dag.add_edges_from((a, b.id) for a in b.after)
        for a in graph.nodes[: b.id]:
            wrote, writes = storages(a.writes), storages(b.writes)
            if wrote & (writes | storages(b.reads)) or storages(a.reads) & writes:
                dag.add_edge(a.id, b.id)
    return dag


@given(seed=SEEDS, n=st.integers(1, 40))
def test_nearest_conflicts_imply_all_others(seed: int, n: int) -> None:
    graph = build_graph(random_net(seed, n))
    found = nx.DiGraph()
    found.add_nodes_from(range(len(graph.nodes)))
    for node, preds in enumerate(find_dependencies(graph)):
        found.add_edges_from((p, node) for p in preds)
    expected = nx.transitive_closure_dag(all_pairs(graph))
    assert set(nx.transitive_closure_dag(found).edges) == set(expected.edges)


@given(seed=SEEDS, n=st.integers(1, 40))
def test_reduction_is_that_of_networkx(seed: int, n: int) -> None:
    graph = build_graph(random_net(seed, n))
    reduced = reduce_dependencies(find_dependencies(graph))
    mine = {(p, node) for node, preds in enumerate(reduced) for p in preds}
    assert mine == set(nx.transitive_reduction(all_pairs(graph)).edges)


def test_every_kind_of_dependency_names_its_blob() -> None:
    net = AsyncNet("kinds")
    x = net.input("x", (8,))
    state = net.parameter("s", np.zeros(8, np.float32))
    before = mix(net, state, name="before")
    net.add_node(UPDATE, (state, x), {}, name="update")
    net.add_node(UPDATE, (state, x), {}, name="again")
    last = mix(net, x, name="last", after=[before])
    net.output(before, last)
    reasons = find_dependencies(build_graph(net))
    assert reasons[1] == {0: ("WAR", "s")}
    assert reasons[2] == {1: ("RAW", "s")}
    assert reasons[3] == {0: ("after", "")}


def test_readers_of_an_input_are_independent() -> None:
    assert has_parallelism(build_graph(dag_net({}, 2)))
    assert not has_parallelism(build_graph(dag_net({1: [0], 2: [1]}, 3)))
    assert not has_parallelism(build_graph(dag_net({1: [0], 2: [0, 1]}, 3)))


def test_a_barrier_over_the_net_costs_edges_in_proportion_to_the_net() -> None:
    net = AsyncNet("wide")
    x = net.input("x", (8,))
    for _ in range(2):
        made = [mix(net, x) for _ in range(500)]
        net.barrier()
    net.output(*made)
    edges = find_dependencies(build_graph(net))
    assert sum(map(len, edges)) <= 2 * len(edges)


def test_a_view_that_comes_after_others_is_executed_so_that_its_readers_do() -> None:
    net = AsyncNet("after")
    x = net.input("x", (8,))
    slow = mix(net, x, name="slow")
    (view,) = net.add_node(HALF, (x,), {}, name="v", after=[slow])
    net.output(mix(net, view, name="y"), slow)
    plan = make_plan(
        build_graph(net), device_kind="cpu", model=CUDA_LIKE, mode="streams", allocator="exact"
    )
    assert plan.explain("slow", "y").startswith("y waits for slow: 'v' waits for 'slow' (after)")


def test_a_write_that_reads_nothing_comes_after_the_write_before_it() -> None:
    net = AsyncNet("waw")
    x = net.input("x", (8,))
    state = net.parameter("s", np.zeros(8, np.float32))
    for i in range(3):
        net.add_node(UPDATE, (state, x), {}, name=f"u{i}")
    net.output(mix(net, state, name="y"))
    graph = build_graph(net)
    # No operator of ours overwrites a storage blindly; a graph may all the same.
    blind = [replace(n, reads=("x",)) if n.op is UPDATE else n for n in graph.nodes]
    edges = find_dependencies(replace(graph, nodes=tuple(blind)))
    assert edges == [{}, {0: ("WAW", "s")}, {1: ("WAW", "s")}, {2: ("RAW", "s")}]
