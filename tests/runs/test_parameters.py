"""Parameters between runs: reading and setting them waits for the runs under way."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import asyncnet_gpu as ag

X = np.ones(4, np.float32)


class Gated:
    """A net that waits in its first operator, then adds a parameter."""

    def __init__(self, *, devices: int = 1) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.net = ag.AsyncNet("gated")
        x = self.net.input("x", (4,), "float32")
        w = self.net.parameter("w", np.full(4, 10, np.float32))
        h = self.net.call(self._wait, x, shape=4, dtype="float32", name="h")
        for device in range(devices):
            with self.net.device(device):
                self.net.output(**{f"y{device}": self.net.add(h, w)})

    def _wait(self, xp: Any, a: Any, out: Any) -> None:
        self.entered.set()
        assert self.open.wait(30)
        out[...] = a


@pytest.mark.parametrize("what", ["get", "set"])
def test_a_parameter_is_touched_only_between_runs(what: str) -> None:
    gated = Gated()
    with gated.net.compile(backend="cpu", mode="serial") as exe:
        run = exe.submit(x=X)
        assert gated.entered.wait(10)
        done: list[Any] = []

        def touch() -> None:
            if what == "set":
                exe.set_parameter("w", np.full(4, 20, np.float32))
            done.append(exe.get_parameter("w")[0])

        thread = threading.Thread(target=touch)
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()
        assert not done
        gated.open.set()
        thread.join(10)
        assert run.result(5)["y0"].tolist() == [11, 11, 11, 11]
        assert done == [20.0 if what == "set" else 10.0]
        assert exe.run(x=X)["y0"][0] == (21 if what == "set" else 11)


@pytest.mark.parametrize("mode", ["serial", "auto"])
def test_waiting_for_the_runs_has_a_limit(mode: str) -> None:
    gated = Gated()
    with gated.net.compile(backend="cpu", mode=mode, timeout_s=0.3) as exe:
        exe.submit(x=X)
        assert gated.entered.wait(10)
        with pytest.raises(ag.DeadlineExceeded, match="runs under way do not end"):
            exe.get_parameter("w")
        gated.open.set()


def test_every_device_that_reads_a_parameter_gets_the_new_value() -> None:
    gated = Gated(devices=3)
    gated.open.set()
    with gated.net.compile(backend="cpu", mode="streams") as exe:
        assert {k: v[0] for k, v in exe.run(x=X).items()} == {"y0": 11, "y1": 11, "y2": 11}
        exe.set_parameter("w", np.full(4, 20, np.float32))
        assert {k: v[0] for k, v in exe.run(x=X).items()} == {"y0": 21, "y1": 21, "y2": 21}


def test_wrong_parameters_are_refused() -> None:
    gated = Gated()
    gated.open.set()
    with gated.net.compile(backend="cpu", mode="serial") as exe:
        with pytest.raises(ag.NetError, match="expected one of w"):
            exe.get_parameter("v")
        for value in (np.zeros(3, np.float32), np.zeros(4)):
            with pytest.raises(ag.ShapeError, match=r"expected float32\[4\]"):
                exe.set_parameter("w", value)
        assert exe.get_parameter("w").tolist() == [10] * 4
