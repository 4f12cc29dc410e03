"""Errors while a net is written: typed, in the house form, naming the user's line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import asyncnet_gpu as ag


def towers() -> ag.AsyncNet:
    net = ag.AsyncNet("towers")
    x = net.input("x", (4, 6), "float32")
    w = net.parameter("w", np.ones((6, 8), np.float32))
    h = net.matmul(x, w, name="h")
    a, b = net.split(h, axis=1, parts=2)
    net.barrier(a, b, name="ready")
    y = net.add(net.relu(a), b, name="y")
    net.output(y)
    return net


def test_methods_return_blobs_with_inferred_specs() -> None:
    net = towers()
    y = net.blob("y")
    assert y.shape == (4, 4)
    assert y.dtype == np.float32
    assert "float32[4, 4]" in repr(y)


def test_unknown_operator_suggests_the_nearest() -> None:
    net = ag.AsyncNet()
    with pytest.raises(AttributeError, match=r"Did you mean net\.matmul"):
        _ = net.matmull
    with pytest.raises(AttributeError, match=r"Did you mean net\.reduce_mean"):
        _ = net.mean


def test_blobs_in_a_list_are_refused_with_the_way_to_write_it() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (2, 3))
    with pytest.raises(ag.NetError, match=r"blobs are given in a list.*net\.concat\(\*blobs\)"):
        net.concat([x, x], axis=0)


def test_every_operator_is_a_documented_method() -> None:
    net = ag.AsyncNet()
    for name in ("matmul", "relu", "split", "softmax"):
        assert name in dir(net)
        assert getattr(net, name).__doc__


@pytest.mark.parametrize("make", ["input", "parameter", "node"])
def test_duplicate_name(make: str) -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    with pytest.raises(ag.NetError, match=r"name 'x' is taken.*test_net\.py"):
        if make == "input":
            net.input("x", (3,), "float32")
        elif make == "parameter":
            net.parameter("x", np.ones(3, np.float32))
        else:
            net.relu(x, name="x")


def test_duplicate_node_name_names_both_lines() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.barrier(x, name="b")
    with pytest.raises(ag.NetError, match=r"'b' is taken.*test_net\.py:\d+.*test_net\.py:\d+"):
        net.barrier(x, name="b")


def test_a_failed_call_adds_nothing() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    y = net.input("y", (4,), "float32")
    before = repr(net)
    with pytest.raises(ag.ShapeError, match=r"^\[add\] shapes do not broadcast") as caught:
        net.add(x, y, name="z")
    assert "test_net.py" in "".join(caught.value.__notes__)
    assert repr(net) == before
    net.add(x, x, name="z")


def test_unknown_after_and_self_cycle() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    with pytest.raises(ag.NetError, match="unknown node 'later'"):
        net.relu(x, after=["later"], name="a")
    with pytest.raises(ag.NetError, match="after itself"):
        net.relu(x, after=["a"], name="a")


def test_blob_of_another_net_is_refused() -> None:
    one, two = ag.AsyncNet("one"), ag.AsyncNet("two")
    x = one.input("x", (3,), "float32")
    with pytest.raises(ag.NetError, match="not a blob of this net"):
        two.relu(x)


@pytest.mark.parametrize("dtype", ["complex64", "U3", object])
def test_unsupported_dtype(dtype: object) -> None:
    with pytest.raises(ag.ShapeError, match="unsupported dtype"):
        ag.AsyncNet().input("x", (3,), dtype)


@pytest.mark.parametrize("shape", [(-1, 3), ("n", 3), (2.5,)])
def test_bad_shape(shape: tuple[object, ...]) -> None:
    with pytest.raises(ag.ShapeError, match="bad shape"):
        ag.AsyncNet().input("x", shape, "float32")  # type: ignore[arg-type]


def test_barrier_out_of_place_has_a_remedy() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    with pytest.raises(ag.NetError, match=r"out of place would order nothing.*Leave outputs out"):
        net.barrier(x, outputs=["fresh"])
    with pytest.raises(ag.NetError, match="given twice"):
        net.barrier(x, x)


def test_barrier_over_devices_needs_cross_device() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    with net.device(1):
        y = net.input("y", (3,), "float32")
    with pytest.raises(ag.NetError, match=r"several devices.*cross_device=True"):
        net.barrier(x, y, cross_device=False)
    assert net.barrier(x, y).members == ("x", "y")


def test_barrier_definitions_under_the_ancestors_names() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    made = ag.AsyncBarrierOp((x,), name="b").add_to(net)
    assert isinstance(made, ag.AsyncNetBarrier)
    assert ag.AsyncNetBarrierOp(name="all").add_to(net).members == ()
    with pytest.raises(ag.NetError, match="out of place"):
        ag.AsyncBarrierOp((x,), outputs=("other",)).add_to(net)


def test_attributes_are_checked() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3, 4), "float32")
    with pytest.raises(ag.NetError, match="unknown attribute axes_"):
        net.softmax(x, axes_=1)
    with pytest.raises(ag.NetError, match="attribute 'shape' is missing"):
        net.reshape(x)


def test_only_parameters_are_updated_in_place() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    w = net.parameter("w", np.zeros(3, np.float32))
    with pytest.raises(ag.NetError, match="cannot update 'x' in place"):
        net.assign(x, x)
    assert net.assign(w, x).name == "w"


def test_net_without_outputs_cannot_be_compiled() -> None:
    net = ag.AsyncNet("empty")
    net.input("x", (3,), "float32")
    with pytest.raises(ag.NetError, match="no outputs"):
        net.compile(backend="cpu")


@pytest.mark.parametrize(
    "options",
    [{"mode": "fast"}, {"allocator": "best"}, {"max_streams": 0}, {"backend": "tpu"}, {"slots": 0}],
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(ag.PlanError):
        towers().compile(**{"backend": "cpu", **options})


def test_round_trip_through_json_gives_equal_outputs() -> None:
    net = towers()
    again = ag.AsyncNet.from_dict(json.loads(json.dumps(net.to_dict())))
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    with net.compile(backend="cpu") as one, again.compile(backend="cpu") as two:
        assert np.array_equal(one.run(x=x)["y"], two.run(x=x)["y"])
        assert one.plan.to_dict() == two.plan.to_dict()


def test_barriers_of_every_kind_survive_the_round_trip() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    with net.device(1):
        y = net.relu(x, name="y")
    net.barrier(x, name="one_device")
    net.barrier(x, name="said_to_cross", cross_device=True)
    net.barrier(x, y, name="crosses")
    net.barrier(name="whole", after=["one_device"])
    net.output(net.neg(y, name="z"))
    again = ag.AsyncNet.from_dict(json.loads(json.dumps(net.to_dict())))
    for one, two in zip(net.definitions, again.definitions, strict=True):
        assert (one.name, one.op, one.inputs, one.outputs, one.device, one.after) == (
            two.name, two.op, two.inputs, two.outputs, two.device, two.after
        )  # fmt: skip


def double(xp: object, a: np.ndarray, out: np.ndarray) -> None:
    np.multiply(a, 2, out=out)


def test_user_functions_travel_by_name_only() -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    net.output(net.call(double, x, shape=(3,), dtype="float32", name="y"))
    data = json.loads(json.dumps(net.to_dict()))
    with pytest.raises(ag.NetError, match=r"Pass functions="):
        ag.AsyncNet.from_dict(data)
    name = f"{double.__module__}.double"
    again = ag.AsyncNet.from_dict(data, functions={name: double})
    with again.compile(backend="cpu") as exe:
        assert exe.run(x=[1, 2, 3])["y"].tolist() == [2, 4, 6]


@pytest.mark.parametrize("broken", [{}, {"format": 1}, {"format": 99, "name": "n"}])
def test_broken_definitions(broken: dict[str, object]) -> None:
    with pytest.raises(ag.NetError, match="from_dict"):
        ag.AsyncNet.from_dict(broken)
