"""What runs return: right values in every mode, whatever came before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

MODES = ("serial", "streams", "graph", "graph-serial", "auto")


def issue_net(fn: Any = None) -> tuple[ag.AsyncNet, ag.AsyncNetBarrier]:
    """The net of the README, on two devices."""

    def combine(xp: Any, a: Any, c: Any, out: Any) -> None:
        xp.add(a, c, out=out)

    net = ag.AsyncNet("towers")
    x = net.input("x", (64, 512), "float32")
    w = net.parameter("w", np.eye(512, dtype=np.float32))
    h = net.matmul(x, w, name="h")
    a, b = net.split(h, axis=1, parts=2)
    ready = net.barrier(a, b, name="ready")
    with net.device(1):
        c = net.relu(b, name="c")
    y = net.call(fn or combine, a, c, shape=(64, 256), dtype="float32", name="y")
    net.output(y)
    return net, ready


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("allocator", ["cost", "exact"])
def test_two_device_net(mode: str, allocator: str) -> None:
    net, ready = issue_net()
    x = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    with net.compile(backend="cpu", mode=mode, allocator=allocator, slots=2) as exe:
        for _ in range(3):
            y = ag.to_numpy(exe.run(x=x)["y"])
            assert np.array_equal(y, x[:, :256] + np.maximum(x[:, 256:], 0))
        run = exe.submit(x=x)
        ready.wait(run, timeout_s=5)
        assert np.array_equal(run.result(timeout_s=5)["y"], y)
        assert run.done()


def test_outputs_stay_when_the_slot_is_used_again() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (100,), "float32")
    net.output(net.relu(x, name="y"))
    with net.compile(backend="cpu") as exe:
        first = exe.run(x=np.full(100, 1, np.float32))["y"]
        exe.run(x=np.full(100, 2, np.float32))
        assert (first == 1).all()


def test_inputs_of_many_kinds() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (2, 3), "float32")
    net.output(net.relu(x, name="y"))
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3)
    with net.compile(backend="cpu") as exe:
        for value in (wanted, wanted.tolist(), np.asfortranarray(wanted), wanted[:, ::-1][:, ::-1]):
            assert np.array_equal(exe.run(x=value)["y"], wanted)
        assert np.array_equal(exe.run({"x": wanted})["y"], wanted)


class OnlyDlpack:
    """An array that offers nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_dlpack_input() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.output(net.add(x, 1.0, name="y"))
    with net.compile(backend="cpu") as exe:
        assert exe.run(x=OnlyDlpack(np.zeros(3, np.float32)))["y"].tolist() == [1, 1, 1]


def test_wrong_inputs_name_the_input_and_lose_nothing() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.output(net.relu(x, name="y"))
    with net.compile(backend="cpu") as exe:
        with pytest.raises(ag.NetError, match="missing x; unknown z"):
            exe.run(z=1)
        with pytest.raises(ag.ShapeError, match=r"expected float32\[3\], got float32\[4\]"):
            exe.run(x=np.zeros(4, np.float32))
        with pytest.raises(ag.ShapeError, match="float64"):
            exe.run(x=np.zeros(3))
        assert exe.run(x=np.ones(3, np.float32))["y"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("mode", MODES)
def test_parameters_updated_in_place_persist(mode: str) -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    w = net.parameter("w", np.zeros(3, np.float32))
    before = net.mul(w, 2.0, name="before")
    net.assign_add(w, x)
    after = net.mul(w, 2.0, name="after")
    net.output(before, after)
    with net.compile(backend="cpu", mode=mode, slots=4) as exe:
        assert exe.slots == 1  # the next run reads what this one writes
        for i in range(12):
            out = exe.run(x=np.ones(3, np.float32))
            assert out["before"].tolist() == [2 * i] * 3
            assert out["after"].tolist() == [2 * i + 2] * 3
        assert exe.get_parameter("w").tolist() == [12, 12, 12]
        exe.set_parameter("w", np.full(3, -1, np.float32))
        assert exe.run(x=np.ones(3, np.float32))["after"].tolist() == [0, 0, 0]


def test_runs_that_share_a_state_are_ordered() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (1,), "float32")
    w = net.parameter("w", np.zeros(1, np.float32))
    net.assign_add(w, x)
    net.output(net.mul(w, 1.0, name="sum"))
    with net.compile(backend="cpu", slots=4, queue=100) as exe:
        runs = [exe.submit(x=np.ones(1, np.float32)) for _ in range(50)]
        assert [r.result(5)["sum"][0] for r in runs] == list(range(1, 51))


def test_views_share_storage_and_dead_nodes_are_dropped() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (4, 6), "float32")
    h = net.relu(x)
    left, right = net.split(h, axis=1, parts=2)
    net.exp(right, name="dead")
    turned = net.transpose(net.reshape(left, shape=(2, 6)), axes=(1, 0), name="turned")
    net.output(net.copy(turned, name="y"))
    with net.compile(backend="cpu", mode="serial") as exe:
        names = [node["name"] for node in exe.plan.to_dict()["nodes"]]
        assert "dead" not in names
        x_ = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
        wanted = np.maximum(x_, 0)[:, :3].reshape(2, 6).T
        assert np.array_equal(exe.run(x=x_)["y"], wanted)


def test_constants_are_folded() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    c = net.mul(net.constant(np.full(3, 2, np.float32)), 3.0)
    net.output(net.add(x, c, name="y"))
    with net.compile(backend="cpu") as exe:
        assert len(exe.plan.graph.nodes) == 1
        assert exe.run(x=np.zeros(3, np.float32))["y"].tolist() == [6, 6, 6]


def test_an_input_may_be_an_output_and_a_net_may_have_no_nodes() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.output(x, again=x)
    for mode in MODES:
        with net.compile(backend="cpu", mode=mode) as exe:
            given = np.arange(3, dtype=np.float32)
            out = exe.run(x=given)
            assert out["x"].tolist() == out["again"].tolist() == [0, 1, 2]
            assert out["x"] is not given
            assert exe.submit(x=given).result(5)["x"].tolist() == [0, 1, 2]


def test_whole_net_barrier_orders_everything() -> None:
    order: list[str] = []

    def note(name: str) -> Any:
        def fn(xp: Any, a: Any, out: Any) -> None:
            order.append(name)
            out[:] = a

        return fn

    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    for i in range(4):
        net.output(net.call(note(f"a{i}"), x, shape=3, dtype="float32", name=f"a{i}"))
    net.barrier(name="all")
    for i in range(4):
        net.output(net.call(note(f"b{i}"), x, shape=3, dtype="float32", name=f"b{i}"))
    for seed in range(10):
        order.clear()
        with net.compile(
            backend="cpu", mode="streams", allocator="exact", adversary_seed=seed
        ) as exe:
            assert len(exe.plan.streams) == 7  # one path leads through the barrier
            exe.run(x=np.zeros(3, np.float32))
        assert {name[0] for name in order[:4]} == {"a"}
        assert {name[0] for name in order[4:]} == {"b"}


def test_traced_run_has_a_slice_for_every_step() -> None:
    net, _ = issue_net()
    with net.compile(backend="cpu", mode="streams") as exe:
        with exe.trace() as timeline:
            exe.run(x=np.zeros((64, 512), np.float32))
            exe.submit(x=np.zeros((64, 512), np.float32)).result(5)
        assert [len(run.slices) for run in timeline.runs] == [len(exe.plan.steps)] * 2
        events = [e for e in timeline.to_chrome()["traceEvents"] if e["ph"] == "X"]
        assert len(events) == 2 * len(exe.plan.steps)
