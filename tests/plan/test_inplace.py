"""Outputs over inputs that die: where it is done, and each thing that forbids it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.passes import drop_dead_nodes, share_dying_inputs

N = 64  # 16 KiB in float32: above the smallest size that is shared


def shared(net: ag.AsyncNet) -> set[tuple[str, str]]:
    """Return the pairs (input, output) of nodes whose bytes are the same after the pass."""
    before = drop_dead_nodes(build_graph(net))
    after = share_dying_inputs(before)
    return {
        (read, write)
        for node in after.nodes
        for read in node.reads
        for write in node.writes
        if after.blobs[read].storage == after.blobs[write].storage
        and before.blobs[read].storage != before.blobs[write].storage
    }


def check_values(net: ag.AsyncNet, wanted: dict[str, Callable[[np.ndarray], np.ndarray]]) -> None:
    x = np.random.default_rng(0).standard_normal((N, N)).astype(np.float32)
    for mode in ("serial", "streams"):
        with net.compile(backend="cpu", mode=mode, allocator="exact") as exe:
            out = exe.run(x=x)
        for name, function in wanted.items():
            assert np.array_equal(out[name], function(x)), (mode, name)


def start() -> tuple[ag.AsyncNet, ag.Blob]:
    """x and h, which is a temporary that may be taken over."""
    net = ag.AsyncNet("inplace")
    x = net.input("x", (N, N), "float32")
    return net, net.neg(x, name="h")


def relu(a: np.ndarray) -> np.ndarray:
    return np.maximum(a, 0)


def test_a_chain_works_in_one_buffer() -> None:
    net, h = start()
    a = net.relu(h, name="a")
    net.output(net.abs(a, name="y"))
    assert shared(net) == {("h", "a"), ("a", "y")}
    check_values(net, {"y": lambda x: np.abs(relu(-x))})


def test_an_input_of_the_caller_is_never_written() -> None:
    net = ag.AsyncNet()
    net.output(net.relu(net.input("x", (N, N), "float32"), name="y"))
    assert shared(net) == set()


def test_not_while_somebody_else_reads_it_later_or_before() -> None:
    net, h = start()
    a, b = net.relu(h, name="a"), net.abs(h, name="b")
    net.output(a, b)
    assert shared(net) == set()
    check_values(net, {"a": lambda x: relu(-x), "b": lambda x: np.abs(-x)})


def test_not_over_an_output_also_when_the_output_took_over_a_temporary() -> None:
    net, h = start()
    y = net.relu(h, name="y")
    net.output(y, net.neg(y, name="z"))
    assert shared(net) == {("h", "y")}
    check_values(net, {"y": lambda x: relu(-x), "z": lambda x: -relu(-x)})


def test_not_when_the_same_bytes_are_read_in_another_order() -> None:
    net, h = start()
    net.output(net.add(h, net.transpose(h, axes=(1, 0), name="t"), name="y"))
    assert shared(net) == set()
    check_values(net, {"y": lambda x: -x - x.T})


def test_the_same_blob_twice_is_no_obstacle() -> None:
    net, h = start()
    net.output(net.add(h, h, name="y"))
    assert shared(net) == {("h", "y")}
    check_values(net, {"y": lambda x: -x - x})


def test_not_over_a_part_of_a_storage() -> None:
    net, h = start()
    left, _ = net.split(h, axis=1, parts=2, name=["left", "right"])
    net.output(net.relu(left, name="y"))
    assert shared(net) == set()
    check_values(net, {"y": lambda x: relu(-x[:, : N // 2])})


def test_not_over_a_smaller_operand_that_is_broadcast() -> None:
    net, h = start()  # 16 KiB
    stack = net.input("stack", (3, N, N), "float32")
    net.output(net.add(h, stack, name="y"))
    assert shared(net) == set()


@pytest.mark.parametrize("device", [0, 1])
def test_not_over_bytes_of_another_device(device: int) -> None:
    net, h = start()
    with net.device(device):
        net.output(net.relu(h, name="y"))
    assert shared(net) == ({("h", "y")} if device == 0 else set())
    check_values(net, {"y": lambda x: relu(-x)})


def test_an_update_that_nobody_reads_is_kept() -> None:
    net, h = start()
    total = net.parameter("total", np.zeros((N, N), np.float32))
    net.assign_add(total, h)
    net.output(net.relu(net.blob("x"), name="y"))
    with net.compile(backend="cpu", mode="serial") as exe:
        for _ in range(3):
            exe.run(x=np.ones((N, N), np.float32))
        assert (exe.get_parameter("total") == -3).all()


def test_what_comes_after_a_dropped_node_comes_after_what_that_came_after() -> None:
    net, h = start()
    dead = net.relu(net.blob("x"), name="dead", after=[h])
    net.output(net.abs(net.blob("x"), name="y", after=[dead]), h)
    graph = drop_dead_nodes(build_graph(net))
    assert [(n.name, n.after) for n in graph.nodes] == [("h", ()), ("y", (0,))]


def test_a_storage_of_which_an_output_is_a_view_is_kept_to_the_end() -> None:
    net, h = start()
    net.output(net.reshape(h, shape=(N * N,), name="flat"))
    graph = build_graph(net)
    assert graph.storages[graph.blobs["h"].storage].kind == "output"
