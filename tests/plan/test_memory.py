"""Arenas: nothing shares bytes while it is alive, and serial plans are close to the least."""

from __future__ import annotations

from itertools import combinations

import pytest
from helpers.nets import CUDA_LIKE, mix, nasnet_like, random_net
from helpers.plan_checker import check_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan

ALIGNMENT = 64


def planned(net: AsyncNet, mode: str = "streams", allocator: str = "cost") -> Plan:
    graph = place(build_graph(net))
    return make_plan(
        graph, device_kind="sim", model=CUDA_LIKE, mode=mode, allocator=allocator,
        alignment=ALIGNMENT,
    )  # fmt: skip


def live_bytes(plan: Plan, device: int = 0) -> int:
    """Largest sum of aligned sizes alive at one step of the order of issue, counted afresh."""
    graph = plan.graph
    used: dict[int, list[int]] = {}
    for i, step in enumerate(plan.steps):
        node = graph.nodes[step.node]
        for name in (*node.reads, *node.writes):
            storage = graph.storages[graph.blobs[name].storage]
            if storage.kind in ("temporary", "output") and storage.device == device:
                used.setdefault(storage.id, []).append(i)
    most = 0
    for i in range(len(plan.steps)):
        live = 0
        for storage, steps in used.items():
            end = len(plan.steps) if graph.storages[storage].kind == "output" else steps[-1]
            if steps[0] <= i <= end:
                live += -(-graph.storages[storage].nbytes // ALIGNMENT) * ALIGNMENT
        most = max(most, live)
    return most


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 60),
    devices=st.integers(1, 2),
    allocator=st.sampled_from(["cost", "exact"]),
)
def test_no_two_storages_share_bytes_while_both_are_used(
    seed: int, n: int, devices: int, allocator: str
) -> None:
    plan = planned(random_net(seed, n, devices), allocator=allocator)
    check_plan(plan.to_dict(), count_waits=False)
    graph = plan.graph
    for storage in graph.storages:
        offset = plan.offsets[storage.id]
        assert (offset is None) == (storage.kind not in ("temporary", "output"))
        assert offset is None or offset % ALIGNMENT == 0


@pytest.mark.parametrize("n", [100, 300, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_serial_arenas_are_within_a_tenth_of_the_largest_sum_of_live_bytes(
    n: int, seed: int
) -> None:
    plan = planned(nasnet_like(n, seed), mode="serial")
    least = live_bytes(plan)
    assert least <= plan.arena_bytes[0] <= 1.1 * least


def test_a_chain_needs_two_buffers() -> None:
    net = AsyncNet("chain")
    blob = net.input("x", (16,))
    for _ in range(10):
        blob = mix(net, blob, sizes=(256,))
    net.output(mix(net, blob, sizes=(256,)))
    assert planned(net).arena_bytes == {0: 2 * 1024}


def test_an_output_keeps_its_bytes_to_the_end_of_the_run() -> None:
    net = AsyncNet("kept")
    first = mix(net, net.input("x", (16,)), sizes=(256,), name="first")
    blob = first
    for _ in range(6):
        blob = mix(net, blob, sizes=(256,))
    net.output(first, blob)
    plan = planned(net, mode="serial")
    kept = plan.graph.blobs["first"].storage
    start = plan.offsets[kept]
    others = [o for i, o in enumerate(plan.offsets) if o is not None and i != kept]
    assert start is not None
    assert start not in others
    assert plan.arena_bytes == {0: 3 * 1024}


def test_independent_streams_do_not_share_what_one_stream_could() -> None:
    def net() -> AsyncNet:
        made = AsyncNet("two")
        x = made.input("x", (16,))
        ends = []
        for _ in range(2):
            blob = mix(made, x, sizes=(256,), flops=1e9)
            for _ in range(3):
                blob = mix(made, blob, sizes=(256,), flops=1e9)
            ends.append(mix(made, blob, sizes=(1,), flops=1e9))
        made.output(*ends)
        return made

    serial, streams = planned(net(), mode="serial"), planned(net())
    assert len(streams.streams) == 2
    assert serial.arena_bytes[0] < streams.arena_bytes[0]
    assert streams.arena_bytes[0] >= 4 * 1024  # two buffers for each chain


@given(seed=st.integers(0, 2**32), n=st.integers(1, 40))
def test_temporaries_of_a_step_lie_apart_inside_the_block_of_its_stream(seed: int, n: int) -> None:
    plan = planned(random_net(seed, n))
    most = [0] * len(plan.streams)
    for step, offsets in zip(plan.steps, plan.scratch, strict=True):
        node = plan.node_of(step)
        sizes = node.attrs["scratch"] if node.op.name == "mix" else ()
        spans = [(o, o + size) for o, size in zip(offsets, sizes, strict=True)]
        assert all(o % ALIGNMENT == 0 for o in offsets)
        for (a, a_end), (b, b_end) in combinations(spans, 2):
            assert a_end <= b or b_end <= a
        end = max([end for _, end in spans], default=0)
        most[step.stream] = max(most[step.stream], end)
    for needed, given_bytes in zip(most, plan.scratch_bytes, strict=True):
        assert needed <= given_bytes < needed + ALIGNMENT
