"""On threads, steps shorter than a thread takes to wake up stay on one stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.nets import CPU_LIKE

import asyncnet_gpu as ag
from asyncnet_gpu.backends.sim import simulate
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.ops.base import Cost
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan

MODEL = CPU_LIKE


def branches(width: int, length: int = 20) -> ag.AsyncNet:
    """Two branches that never wait for each other."""
    net = ag.AsyncNet()
    x = net.input("x", (width,))
    for side in "ab":
        h = x
        for i in range(length):
            h = net.exp(h, name=f"{side}{i}")
        net.output(h)
    return net


def planned(net: ag.AsyncNet, model: DeviceModel) -> Plan:
    return make_plan(place(build_graph(net)), device_kind="cpu", model=model)


def test_locks_until_a_step_is_as_long_as_a_hand_over() -> None:
    just_below = Cost(flops=0.0, bytes=MODEL.bytes_per_s * 0.9 * (MODEL.handoff_s - MODEL.fixed_s))
    well_above = Cost(flops=0.0, bytes=MODEL.bytes_per_s * 2 * MODEL.handoff_s)
    assert MODEL.locks(just_below)
    assert not MODEL.locks(well_above)
    assert MODEL.locks(Cost(flops=0.0, bytes=well_above.bytes, gil=True))
    assert not replace(MODEL, threads=False).locks(just_below)


def test_where_launches_need_no_python_only_those_that_do_lock() -> None:
    native = replace(MODEL, interprets=False)
    short = Cost(flops=0.0, bytes=MODEL.bytes_per_s * 0.5 * MODEL.shortest_unlocked_s)
    assert not native.locks(short)
    assert native.locks(replace(short, interpreted=True))
    assert native.locks(replace(short, gil=True))
    assert not native.locks(replace(short, interpreted=True), seconds=1.0)


def test_short_branches_share_a_stream_and_long_ones_do_not() -> None:
    # An exp of n floats moves 8 n bytes.
    at_handoff = int(MODEL.bytes_per_s * MODEL.handoff_s / 8)
    assert len(planned(branches(at_handoff // 4), MODEL).streams) == 1
    assert len(planned(branches(at_handoff * 4), MODEL).streams) == 2
    assert len(planned(branches(at_handoff // 4), replace(MODEL, threads=False)).streams) == 2


def test_the_simulator_agrees() -> None:
    short = int(MODEL.bytes_per_s * MODEL.handoff_s / 8) // 4
    free = replace(MODEL, threads=False)
    two_streams = planned(branches(short), free)
    alone_s = simulate(two_streams, free).makespan_s
    assert simulate(two_streams, MODEL).makespan_s == pytest.approx(2 * alone_s, rel=0.05)
