"""The verifier refuses every plan that was made wrong on purpose, and says why."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.nets import CUDA_LIKE, UPDATE, mix, nasnet_like, random_net
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncnet_gpu.errors import VerificationError
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.types import Plan
from asyncnet_gpu.verify import verify

NO_PATH = "no path of stream order and events"


def planned(net: AsyncNet, **options: Any) -> Plan:
    graph = place(build_graph(net))
    options = {"mode": "streams", "model": CUDA_LIKE, "alignment": 64, **options}
    return make_plan(graph, device_kind="cuda", **options)


def two_branches(**options: Any) -> Plan:
    """x -> a0..a3 and b0..b3 on two streams, joined by y."""
    net = AsyncNet("branches")
    x = net.input("x", (16,))
    ends = []
    for branch in "ab":
        blob = x
        for i in range(4):
            blob = mix(net, blob, sizes=(256,), flops=1e9, name=f"{branch}{i}")
        ends.append(blob)
    net.output(mix(net, *ends, name="y"))
    plan = planned(net, **options)
    verify(plan)
    assert len(plan.streams) == 2
    return plan


def with_step(plan: Plan, index: int, **changes: Any) -> Plan:
    steps = list(plan.steps)
    steps[index] = replace(steps[index], **changes)
    return replace(plan, steps=tuple(steps))


def refused(plan: Plan, pattern: str) -> None:
    with pytest.raises(VerificationError, match=pattern):
        verify(plan)


def step_named(plan: Plan, name: str) -> int:
    return next(i for i, s in enumerate(plan.steps) if plan.node_of(s).name == name)


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(4, 45),
    devices=st.integers(1, 2),
    allocator=st.sampled_from(["cost", "exact"]),
)
def test_no_wait_can_be_left_out(seed: int, n: int, devices: int, allocator: str) -> None:
    plan = planned(random_net(seed, n, devices), allocator=allocator)
    verify(plan)
    for i, step in enumerate(plan.steps):
        for event in step.waits:
            refused(with_step(plan, i, waits=tuple(e for e in step.waits if e != event)), NO_PATH)


def test_no_wait_of_a_large_net_can_be_left_out() -> None:
    plan = planned(nasnet_like(200))
    waits = [(i, e) for i, step in enumerate(plan.steps) for e in step.waits]
    assert len(waits) > 40
    for i, event in waits:
        kept = tuple(e for e in plan.steps[i].waits if e != event)
        refused(with_step(plan, i, waits=kept), NO_PATH)


def test_the_counter_example_names_steps_streams_and_blob() -> None:
    plan = two_branches()
    last = step_named(plan, "y")
    with pytest.raises(VerificationError) as caught:
        verify(with_step(plan, last, waits=()))
    text = str(caught.value)
    assert re.search(r"step \d+ Mix 'y' on cuda:0/\d reads `[ab]3`", text)
    assert re.search(r"step \d+ Mix '[ab]3' on cuda:0/\d", text)
    assert "None" not in text


def test_steps_on_each_others_streams() -> None:
    plan = two_branches()
    a, b = step_named(plan, "a1"), step_named(plan, "b1")
    streams = plan.steps[a].stream, plan.steps[b].stream
    swapped = with_step(with_step(plan, a, stream=streams[1]), b, stream=streams[0])
    refused(swapped, NO_PATH)


def test_a_step_issued_before_its_predecessor() -> None:
    plan = two_branches()
    a, b = step_named(plan, "a0"), step_named(plan, "a1")
    steps = list(plan.steps)
    steps[a], steps[b] = steps[b], steps[a]
    refused(replace(plan, steps=tuple(steps)), NO_PATH)


@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_buffers_of_concurrent_steps_laid_over_each_other(allocator: str) -> None:
    plan = two_branches(allocator=allocator)
    a, b = (plan.graph.blobs[name].storage for name in ("a1", "b1"))
    offsets = list(plan.offsets)
    offsets[b] = offsets[a]
    refused(
        replace(plan, offsets=tuple(offsets)), rf"may overwrite `[ab]\d`.*share bytes.*{NO_PATH}"
    )


def test_buffers_that_overlap_by_one_byte() -> None:
    net = AsyncNet("edge")
    x = net.input("x", (16,))
    a, b = (mix(net, x, sizes=(256,), flops=1e9, name=name) for name in "ab")
    net.output(mix(net, a, b, name="y"))
    plan = planned(net, allocator="exact")
    storage = {name: plan.graph.blobs[name].storage for name in "aby"}
    for gap, fits in ((1024, True), (1023, False)):
        for low, high in ("ab", "ba"):
            offsets = list(plan.offsets)
            offsets[storage[low]], offsets[storage[high]], offsets[storage["y"]] = 0, gap, 4096
            moved = replace(plan, offsets=tuple(offsets), arena_bytes={0: 8192}, alignment=1)
            if fits:
                verify(moved)
            else:
                refused(moved, "share bytes")


def test_an_output_overwritten_later() -> None:
    net = AsyncNet("output")
    first = mix(net, net.input("x", (16,)), sizes=(256,), name="first")
    blob = mix(net, mix(net, first, sizes=(256,)), sizes=(256,), name="last")
    net.output(first, blob)
    plan = planned(net)
    kept, last = (plan.graph.blobs[name].storage for name in ("first", "last"))
    offsets = list(plan.offsets)
    offsets[last] = offsets[kept]
    refused(replace(plan, offsets=tuple(offsets)), "overwrites the bytes of an output")


def test_an_arena_too_small() -> None:
    plan = two_branches()
    refused(replace(plan, arena_bytes={0: plan.arena_bytes[0] - 64}), "lies outside the arena")


def test_a_buffer_before_the_arena() -> None:
    plan = two_branches()
    offsets = list(plan.offsets)
    offsets[plan.graph.blobs["a0"].storage] = -64
    refused(replace(plan, offsets=tuple(offsets)), "lies outside the arena")


def test_an_input_in_the_arena_and_a_temporary_outside() -> None:
    plan = two_branches()
    for name, offset, text in (
        ("x", 0, "before anything has written it"),
        ("a0", None, "no place in the arena"),
    ):
        offsets = list(plan.offsets)
        offsets[plan.graph.blobs[name].storage] = offset
        refused(replace(plan, offsets=tuple(offsets)), text)


@pytest.mark.parametrize("layout", [{"offset": 4}, {"offset": -4}, {"strides": (-4,)}])
def test_a_view_that_reaches_outside_its_storage(layout: dict[str, Any]) -> None:
    plan = two_branches()
    blobs = dict(plan.graph.blobs)
    blobs["a0"] = replace(blobs["a0"], **layout)
    graph = replace(plan.graph, blobs=blobs)
    refused(replace(plan, graph=graph), "blob `a0` reaches outside its storage")


def waiting(plan: Plan) -> tuple[int, int]:
    """Return a step that waits and the step that records what it waits for."""
    i = next(i for i, s in enumerate(plan.steps) if s.waits)
    event = plan.steps[i].waits[0]
    return i, next(j for j, s in enumerate(plan.steps) if s.records == event)


def test_an_event_recorded_too_early() -> None:
    plan = two_branches()
    _, source = waiting(plan)
    event = plan.steps[source].records
    stream = plan.steps[source].stream
    early = next(j for j in range(source) if plan.steps[j].stream == stream)
    refused(with_step(with_step(plan, source, records=None), early, records=event), NO_PATH)


def test_an_event_recorded_twice() -> None:
    plan = two_branches()
    i, source = waiting(plan)
    refused(with_step(plan, i, records=plan.steps[source].records), "is recorded twice")


def test_an_event_that_nobody_records_before() -> None:
    plan = two_branches()
    _, source = waiting(plan)
    refused(with_step(plan, source, records=None), "no earlier step records it")
    refused(replace(plan, n_events=plan.n_events + 1), "events recorded are")


def test_a_step_that_waits_for_itself() -> None:
    plan = two_branches()
    step = with_step(plan, 0, records=plan.n_events, waits=(plan.n_events,))
    refused(replace(step, n_events=plan.n_events + 1), "no earlier step records it")


def test_steps_that_are_no_permutation_of_the_nodes() -> None:
    plan = two_branches()
    refused(replace(plan, steps=plan.steps[:-1]), "not a permutation of the nodes")
    refused(with_step(plan, 0, node=plan.steps[1].node), "not a permutation of the nodes")


def test_a_stream_of_another_device_or_of_none() -> None:
    plan = two_branches()
    streams = tuple(replace(s, device=1) for s in plan.streams)
    refused(replace(plan, streams=streams), "runs a node of another device")
    refused(with_step(plan, 0, stream=9), "is on stream 9")


def test_a_temporary_read_before_it_is_written() -> None:
    plan = two_branches()
    nodes = list(plan.graph.nodes)
    first = plan.steps[step_named(plan, "a0")].node
    nodes[first] = replace(nodes[first], reads=("b3",))
    graph = replace(plan.graph, nodes=tuple(nodes))
    refused(replace(plan, graph=graph), "before anything has written it")


def test_updates_of_a_parameter_stay_ordered() -> None:
    net = AsyncNet("state")
    x = net.input("x", (8,))
    state = net.parameter("s", np.zeros(8, np.float32))
    outs = [mix(net, state, flops=1e9, name=f"r{i}") for i in range(2)]
    net.add_node(UPDATE, (state, x), {}, name="update")
    net.output(*outs)
    plan = planned(net, allocator="exact")
    update = step_named(plan, "update")
    assert len(plan.steps[update].waits) == 1
    refused(with_step(plan, update, waits=()), r"may overwrite `s` while the other reads it")


def test_scratch_outside_its_block_or_shared_within_a_step() -> None:
    net = AsyncNet("scratch")
    net.output(mix(net, net.input("x", (8,)), scratch=(100, 200)))
    plan = planned(net)
    verify(plan)
    assert plan.scratch == ((0, 128),)
    text = "overlapping or too little scratch memory"
    refused(replace(plan, scratch_bytes=(256,)), text)
    refused(replace(plan, scratch=((0, 64),)), text)


def test_a_redundant_wait_in_exact_mode() -> None:
    plan = two_branches(allocator="exact")
    last = step_named(plan, "y")
    other = next(e for e in plan.steps[last].waits)
    source = next(i for i, s in enumerate(plan.steps) if s.records == other)
    stream = plan.steps[source].stream
    early = next(i for i in range(source) if plan.steps[i].stream == stream)
    extra = with_step(plan, early, records=plan.n_events)
    extra = with_step(extra, last, waits=(other, plan.n_events))
    refused(replace(extra, n_events=plan.n_events + 1), "although it need not")


def test_a_buffer_at_an_odd_address() -> None:
    plan = two_branches()
    offsets = tuple(None if o is None else o + 1 for o in plan.offsets)
    grown = {0: plan.arena_bytes[0] + 1}
    refused(replace(plan, offsets=offsets, arena_bytes=grown), "align")


def test_a_serial_plan_that_is_not_a_total_order() -> None:
    refused(replace(two_branches(), mode="serial"), "serial")


def test_two_blind_writes_of_one_storage_stay_ordered() -> None:
    net = AsyncNet("waw")
    x = net.input("x", (8,))
    state = net.parameter("s", np.zeros(8, np.float32))
    for i in range(2):
        net.add_node(UPDATE, (state, x), {}, name=f"u{i}")
    net.output(mix(net, x, flops=1e9, name="other"))
    graph = build_graph(net)
    blind = [replace(n, reads=("x",)) if n.op is UPDATE else n for n in graph.nodes]
    plan = make_plan(
        replace(graph, nodes=tuple(blind)), device_kind="cuda", model=CUDA_LIKE, mode="streams",
        allocator="exact", alignment=64,
    )  # fmt: skip
    verify(plan)
    other = plan.steps[step_named(plan, "other")].stream
    second = step_named(plan, "u1")
    assert plan.steps[second].stream != other
    moved = with_step(plan, second, stream=other, waits=())
    refused(moved, "writes `s`, which the other writes")


@pytest.mark.parametrize(("b_at", "c_at"), [(512, 0), (0, 512)])
def test_what_is_left_of_bytes_that_were_taken_over_in_part_is_still_held(
    b_at: int, c_at: int
) -> None:
    """b takes half of a's bytes after a has died; c takes the rest while a is in use."""
    net = AsyncNet("pieces")
    x = net.input("x", (16,))
    a = mix(net, x, sizes=(256,), flops=1e9, name="a")
    a2 = mix(net, a, sizes=(16,), flops=1e9, name="a2")
    b = mix(net, a2, sizes=(128,), flops=1e9, name="b")
    c = mix(net, x, sizes=(128,), flops=1e9, name="c")
    net.output(mix(net, a2, b, c, name="y"))
    plan = planned(net, allocator="exact")
    # Issued late, so that b has taken its half before c claims the other.
    late = plan.steps[step_named(plan, "c")]
    steps = [s for s in plan.steps if s is not late]
    plan = replace(plan, steps=(*steps[:-1], late, steps[-1]))
    offsets = list(plan.offsets)
    for name, offset in {"a": 0, "b": b_at, "c": 4096, "a2": 8192, "y": 8448}.items():
        offsets[plan.graph.blobs[name].storage] = offset
    moved = replace(plan, offsets=tuple(offsets), arena_bytes={0: 16384})
    verify(moved)
    offsets[plan.graph.blobs["c"].storage] = c_at
    refused(replace(moved, offsets=tuple(offsets)), "may overwrite `a` while .*share bytes")
