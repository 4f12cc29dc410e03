"""Kernels of the user see bare pointers: strided views are copied for them, nothing else is."""

from __future__ import annotations

from typing import Any

import numpy as np

import asyncnet_gpu as ag
from asyncnet_gpu.graph import Graph, build_graph
from asyncnet_gpu.place import place


def twin(xp: Any, a: Any, out: Any) -> None:
    assert a.flags.c_contiguous
    xp.add(a, 1, out=out)


def add_kernel(net: ag.AsyncNet, blob: ag.Blob, **options: Any) -> ag.Blob:
    made: ag.Blob = net.kernel(
        "", "k", [blob], out=(blob.shape, "float32"), grid=1, block=1, cpu=twin, **options
    )
    return made


def reads_of_kernels(graph: Graph) -> list[bool]:
    """Whether each kernel's input is contiguous and on its device."""
    found = []
    for node in graph.nodes:
        if node.op.name == "kernel":
            blob = graph.blobs[node.reads[0]]
            assert graph.storages[blob.storage].device == node.device
            packed = np.lib.stride_tricks.as_strided(
                np.empty(1, np.float32), blob.spec.shape, blob.strides
            )
            found.append(packed.flags.c_contiguous)
    return found


def copies(graph: Graph) -> int:
    return sum(node.op.name == "copy" for node in graph.nodes)


def test_strided_views_are_copied_and_contiguous_ones_are_not() -> None:
    net = ag.AsyncNet()
    x = net.relu(net.input("x", (4, 6), "float32"))
    columns, _ = net.split(x, axis=1, parts=2)
    rows, _ = net.split(x, axis=0, parts=2)
    for blob in (columns, rows, x, net.reshape(x, shape=(24,))):
        net.output(add_kernel(net, blob))
    graph = build_graph(net)
    assert copies(graph) == 1
    assert reads_of_kernels(graph) == [True] * 4
    given = np.arange(24, dtype=np.float32).reshape(4, 6)
    for mode in ("serial", "streams"):
        with net.compile(backend="cpu", mode=mode) as exe:
            outs = list(exe.run(x=given).values())
        assert np.array_equal(outs[0], given[:, :3] + 1)
        assert np.array_equal(outs[1], given[:2] + 1)


def test_views_of_every_kind_of_blob_on_another_device() -> None:
    net = ag.AsyncNet()
    blobs = {
        "input": net.input("x", (2, 3), "float32"),
        "parameter": net.parameter("p", np.arange(6, dtype=np.float32).reshape(2, 3)),
        "state": net.parameter("s", np.zeros((2, 3), np.float32)),
        "constant": net.constant(np.ones((2, 3), np.float32), name="c"),
        "temporary": net.relu(net.blob("x")),
    }
    net.assign_add(blobs["state"], blobs["input"])
    with net.device(1):
        for name, blob in blobs.items():
            net.output(**{name: add_kernel(net, net.transpose(blob, axes=(1, 0)))})
    assert reads_of_kernels(place(build_graph(net))) == [True] * 5
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
        outs = exe.run(x=x)
    for name, value in {"input": x, "parameter": x, "state": x, "temporary": x}.items():
        assert np.array_equal(outs[name], value.T + 1), name
    assert np.array_equal(outs["constant"], np.full((3, 2), 2, np.float32))


def test_the_copy_takes_no_name_of_the_user_and_respects_barriers() -> None:
    net = ag.AsyncNet()
    x = net.relu(net.input("x", (2, 3), "float32"), name="r")
    view = net.transpose(x, axes=(1, 0), name="v")
    taken = net.relu(x, name="v.packed")
    net.barrier(name="all")
    net.output(add_kernel(net, view, name="k"), taken)
    graph = build_graph(net)
    (copy,) = (n for n in graph.nodes if n.op.name == "copy")
    barrier = next(n for n in graph.nodes if n.name == "all")
    assert copy.after == (barrier.id,)
    assert copy.name not in ("v.packed", "v")
    with net.compile(backend="cpu") as exe:
        outs = exe.run(x=np.ones((2, 3), np.float32))
    assert outs["k"].shape == (3, 2)
    assert (outs["v.packed"] == 1).all()
