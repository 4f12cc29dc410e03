"""Outputs are copied by the streams that made them: all there, in order, fresh, and never early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.bound import BoundPlan


def wide_net(n: int = 1 << 18) -> ag.AsyncNet:
    """Two branches worth two streams, an input and a constant as outputs, an updated parameter."""
    net = ag.AsyncNet("wide")
    x = net.input("x", (n,))
    ends = {}
    for branch in range(4):
        h = x
        for _ in range(3):
            h = net.exp(net.mul(h, 0.5))
        ends[f"end{branch}"] = h
    count = net.parameter("count", np.zeros(1, np.float32))
    net.output(
        last=ends["end3"], first=ends["end0"], same=x, fixed=net.constant([7.0]),
        view=net.reshape(ends["end1"], shape=(2, n // 2)), other=ends["end2"],
        count=net.assign_add(count, net.constant(np.ones(1, np.float32))),
    )  # fmt: skip
    return net


@pytest.mark.parametrize("timeout_s", [None, 60.0])
def test_streams_return_the_same_outputs_as_serial(timeout_s: float | None) -> None:
    x = np.linspace(-1, 1, 1 << 18, dtype=np.float32)
    found: dict[str, list[dict[str, Any]]] = {}
    for mode in ("serial", "streams"):
        with wide_net().compile(backend="cpu", mode=mode) as exe:
            if mode == "streams":
                assert len(exe.plan.streams) > 1, "nothing is tested with one stream"
            found[mode] = [exe.run(x=x, timeout_s=timeout_s) for _ in range(3)]
    for run, (one, two) in enumerate(zip(found["serial"], found["streams"], strict=True)):
        assert list(one) == list(two) == ["last", "first", "same", "fixed", "view", "other",
                                          "count"]  # fmt: skip
        for key in one:
            assert np.array_equal(one[key], two[key]), key
        assert two["count"] == [run + 1]  # fresh: later runs have not changed it
        assert not np.shares_memory(two["same"], x)


def test_each_output_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    original = BoundPlan.outputs_of

    def outputs_of(self: BoundPlan, stream: int) -> dict[str, Any]:
        found = original(self, stream)
        copied.extend(found)
        return found

    monkeypatch.setattr(BoundPlan, "outputs_of", outputs_of)
    with wide_net().compile(backend="cpu", mode="streams") as exe:
        exe.run(x=np.zeros(1 << 18, np.float32))
    assert len(copied) == len(set(copied))
    assert {"first", "last", "other", "view"} <= set(copied)
    assert not {"same", "fixed"} & set(copied)


def test_no_memory_for_a_copy_fails_the_run_and_not_the_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = BoundPlan.outputs_of
    x = np.zeros(1 << 18, np.float32)
    with wide_net().compile(backend="cpu", mode="streams") as exe:

        def outputs_of(self: BoundPlan, stream: int) -> dict[str, Any]:
            if stream == 1:
                raise MemoryError("planted")
            return original(self, stream)

        monkeypatch.setattr(BoundPlan, "outputs_of", outputs_of)
        for timeout_s in (None, 60.0):
            with pytest.raises((ag.DeviceError, MemoryError), match="planted"):
                exe.run(x=x, timeout_s=timeout_s)
        monkeypatch.setattr(BoundPlan, "outputs_of", original)
        assert exe.run(x=x)["first"].shape == (1 << 18,)


def test_a_failed_step_leaves_no_outputs_of_the_run_before() -> None:
    def fails(xp: Any, x: Any, out: Any) -> None:
        if x[0] < 0:
            raise ValueError("planted")
        out[...] = x

    net = ag.AsyncNet()
    x = net.input("x", (1 << 18,))
    net.output(good=net.exp(net.exp(x)), bad=net.call(fails, x, shape=x.shape, dtype=x.dtype))
    ones = np.ones(1 << 18, np.float32)
    with net.compile(backend="cpu", mode="streams") as exe:
        before = exe.run(x=ones)
        with pytest.raises(ValueError, match="planted"):
            exe.run(x=-ones)
        assert np.array_equal(exe.run(x=ones)["good"], before["good"])
