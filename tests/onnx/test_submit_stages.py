"""Runs in flight of models that run in stages: as of any net, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.forks import in_child
from helpers.staged_models import NOTHING_BOUND, counting

import asyncnet_gpu as ag
from asyncnet_gpu.onnx import OnnxExecutable, dynamic, host_runs, load_onnx
from asyncnet_gpu.run import Run

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
#: Results that only one of the stages makes.
FIRST, SECOND = "any", "sums"


class Plant:
    """An operator at the end of a stage that passes its input on, waits or fails when told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.calls = 0

    def __call__(self, xp: Any, a: Any, out: Any) -> None:
        self.calls += 1
        self.entered.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        out[...] = a


@pytest.fixture
def plants(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Plant]]:
    """Both stages get an operator of the test behind one of their results."""
    made = {FIRST: Plant(), SECOND: Plant()}
    original = dynamic.import_model

    def planted(*arguments: Any) -> ag.AsyncNet:
        net = original(*arguments)
        for name in made.keys() & net.outputs.keys():
            spec, blob = net.spec_of(name), net.blob(net.outputs[name])
            net.call(made[name], blob, shape=spec.shape, dtype=spec.dtype, name=f"planted_{name}")
            net.outputs[name] = f"planted_{name}"
        return net

    monkeypatch.setattr(dynamic, "import_model", planted)
    yield made
    for plant in made.values():
        plant.open.set()


def compiled(backend: str = "cpu", **options: Any) -> OnnxExecutable:
    model = counting()
    model.graph.output.append(type(model.graph.output[0])(name=FIRST))
    exe = load_onnx(model, limits=NOTHING_BOUND).compile(
        backend=backend, mode="streams", **options
    )  # fmt: skip
    assert isinstance(exe, OnnxExecutable)
    return exe


def given(n_chosen: int, n: int = 20) -> dict[str, Any]:
    x = np.zeros((n, 8), np.float32)
    x[np.random.default_rng(n_chosen).permutation(n)[:n_chosen]] = n_chosen
    return {"x": x, "limit": np.array(0.5, np.float32)}


def check(outputs: dict[str, Any], n_chosen: int) -> None:
    assert ag.to_numpy(outputs["sums"]).tolist() == [8.0 * n_chosen] * n_chosen
    assert ag.to_numpy(outputs["count"]).tolist() == [n_chosen]


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_in_flight_give_what_single_runs_give(backend: str) -> None:
    with compiled(backend, slots=3) as exe:
        runs = [(n, exe.submit(given(n))) for n in (3, 1, 4, 1, 5, 9, 2, 6)]
        for n, run in runs:
            assert isinstance(run, Run)
            check(run.result(60), n)
            assert run.done()
            assert run.exception() is None
            assert not run.cancel()
        check(exe.run(given(7)), 7)
        assert len(exe.stages) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_caller_does_not_wait(plants: dict[str, Plant], backend: str) -> None:
    with compiled(backend) as exe:
        exe.run(given(3))
        for name in (FIRST, SECOND):
            plants[name].open.clear()
            plants[name].entered.clear()
            run = exe.submit(given(3))
            assert plants[name].entered.wait(30)
            assert not run.done()
            with pytest.raises(ag.DeadlineExceeded, match=f"the stage that makes .*{name}.*Run of"):
                run.result(0.02)
            plants[name].open.set()
            check(run.result(30), 3)


def test_runs_are_awaited() -> None:
    async def main(exe: OnnxExecutable) -> list[dict[str, Any]]:
        return await asyncio.gather(*(asyncio.wait_for(exe.submit(given(n)), 30) for n in (2, 5)))

    with compiled(slots=2) as exe:
        for n, outputs in zip((2, 5), asyncio.run(main(exe)), strict=True):
            check(outputs, n)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_an_error_in_a_stage_names_its_node(
    plants: dict[str, Plant], backend: str, name: str
) -> None:
    plant = plants[name]
    with compiled(backend) as exe:
        plant.error = ZeroDivisionError("boom")
        ended: list[Run] = []
        run = exe.submit(given(3))
        run.add_done_callback(ended.append)
        with pytest.raises(ag.DeviceError, match=f"planted_{name}") as caught:
            run.result(30)
        assert isinstance(caught.value, ZeroDivisionError)
        assert run.exception() is caught.value
        assert plants[SECOND].calls == (name == SECOND)
        with pytest.raises(ag.DeviceError, match=f"planted_{name}"):
            exe.run(given(3))
        plant.error = None
        check(exe.submit(given(4)).result(30), 4)
        assert ended == [run]


def test_a_deadline_that_passes_in_the_queue(plants: dict[str, Plant]) -> None:
    plants[SECOND].open.clear()
    with compiled() as exe:
        first = exe.submit(given(3))
        assert plants[SECOND].entered.wait(30)
        late = exe.submit(given(3), deadline_s=0.01)
        in_time = exe.submit(given(2), deadline_s=60)
        with pytest.raises(ag.DeadlineExceeded, match="queued, 2 waiting for 1 slots"):
            late.result(0.02)
        plants[SECOND].open.set()
        check(first.result(30), 3)
        with pytest.raises(ag.DeadlineExceeded, match="before the launch"):
            late.result(30)
        check(in_time.result(30), 2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_between_the_stages(plants: dict[str, Plant], backend: str) -> None:
    plants[FIRST].open.clear()
    with compiled(backend) as exe:
        run, queued = exe.submit(given(3)), exe.submit(given(3))
        assert plants[FIRST].entered.wait(30)
        assert run.cancel()
        assert queued.cancel()
        assert isinstance(queued.exception(1), ag.RunCancelled)  # at once: it has not begun
        plants[FIRST].open.set()
        with pytest.raises(ag.RunCancelled):
            run.result(30)
        assert plants[SECOND].calls == 0
        assert plants[FIRST].calls == 1
        check(exe.submit(given(3)).result(30), 3)


def test_cancelled_in_the_last_stage(plants: dict[str, Plant]) -> None:
    plants[SECOND].open.clear()
    with compiled() as exe:
        run = exe.submit(given(3))
        assert plants[SECOND].entered.wait(30)
        assert run.cancel()
        plants[SECOND].open.set()
        with pytest.raises(ag.RunCancelled):
            run.result(30)


def test_a_stage_that_hangs_is_given_up(plants: dict[str, Plant]) -> None:
    with compiled(timeout_s=0.2) as exe:
        check(exe.run(given(3)), 3)
        plants[SECOND].open.clear()
        with pytest.raises(ag.DeadlineExceeded, match="planted_sums"):
            exe.submit(given(3)).result()
        plants[SECOND].open.set()
        check(exe.submit(given(3)).result(30), 3)


def test_closing_waits_for_what_runs_and_cancels_what_is_queued(plants: dict[str, Plant]) -> None:
    plants[FIRST].open.clear()
    exe = compiled()
    run, queued = exe.submit(given(3)), exe.submit(given(3))
    assert plants[FIRST].entered.wait(30)
    closing = threading.Thread(target=exe.close, daemon=True)
    closing.start()
    assert isinstance(queued.exception(30), ag.RunCancelled)
    assert closing.is_alive()
    plants[FIRST].open.set()
    check(run.result(30), 3)
    closing.join(30)
    assert not closing.is_alive()
    for call in (exe.run, exe.submit):
        with pytest.raises(ag.AsyncNetError, match="closed"):
            call(given(3))


def test_closing_does_not_wait_for_ever(plants: dict[str, Plant]) -> None:
    exe = compiled(timeout_s=0.2)
    check(exe.run(given(3)), 3)
    plants[FIRST].open.clear()
    plants[FIRST].entered.clear()
    run = exe.submit(given(3))
    assert plants[FIRST].entered.wait(30)
    start = time.monotonic()
    exe.close()
    assert isinstance(run.exception(30), ag.DeadlineExceeded | ag.RunCancelled)
    assert time.monotonic() - start < 20


def test_options_are_checked_before_anything_is_queued() -> None:
    with pytest.raises(ag.PlanError, match="bad run options"):
        compiled(slots=0)


def test_a_full_queue_refuses_or_makes_the_caller_wait(plants: dict[str, Plant]) -> None:
    plants[SECOND].open.clear()
    with compiled(queue=1, on_full="raise") as exe:
        runs = [exe.submit(given(3)), exe.submit(given(3))]
        with pytest.raises(ag.QueueFull, match="at most 1 runs waiting"):
            exe.submit(given(3))
        plants[SECOND].open.set()
        for run in runs:
            check(run.result(30), 3)
    plants[SECOND].open.clear()
    with compiled(queue=0) as exe:
        runs = [exe.submit(given(3))]
        expired = exe.submit(given(3), deadline_s=0.02)  # waits for room until then
        assert isinstance(expired.exception(1), ag.DeadlineExceeded)
        waiting = threading.Thread(target=lambda: runs.append(exe.submit(given(2))), daemon=True)
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        plants[SECOND].open.set()
        waiting.join(30)
        check(runs[0].result(30), 3)
        check(runs[1].result(30), 2)


def test_inputs_that_do_not_fit_are_refused_by_submit_itself() -> None:
    with compiled() as exe:
        check(exe.run(given(3)), 3)
        with pytest.raises(ag.ShapeError, match="input 'x'"):
            exe.submit(x=np.zeros((3, 7), np.float32), limit=np.float32(0))
        with pytest.raises(ag.NetError, match="inputs do not fit"):
            exe.submit(x=np.zeros((3, 8), np.float32))


def test_a_callback_may_close_and_barriers_are_refused(plants: dict[str, Plant]) -> None:
    exe, closed = compiled(timeout_s=20), threading.Event()
    plants[FIRST].open.clear()
    runs = [exe.submit(given(n)) for n in (3, 2)]

    def close(_: Run) -> None:
        exe.close()
        closed.set()

    runs[0].add_done_callback(close)
    plants[FIRST].open.set()
    assert closed.wait(10)
    check(runs[0].result(10), 3)
    assert isinstance(runs[1].exception(10), ag.RunCancelled)  # it was queued behind the first
    with pytest.raises(ag.NetError, match="no barrier 'b'"):
        runs[0].barrier_reached("b")


def test_a_thread_that_cannot_be_started_leaves_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with compiled() as exe:
        check(exe.run(given(3)), 3)
        with monkeypatch.context() as patch:
            patch.setattr(host_runs.threading, "Thread", Refused)
            with pytest.raises(RuntimeError, match="new thread"):
                exe.submit(given(3))
        check(exe.submit(given(3)).result(30), 3)


def test_many_threads_submit_and_cancel() -> None:
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for n in rng.integers(1, 5, 12):
                run = exe.submit(given(int(n)))
                cancelled = rng.random() < 0.3 and run.cancel()
                error = run.exception(60)
                if error is None:
                    check(run.result(), int(n))
                else:
                    assert cancelled, error
                    assert isinstance(error, ag.RunCancelled)
        except BaseException as error:
            problems.append(error)

    with compiled(slots=2) as exe:
        threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert not any(thread.is_alive() for thread in threads)
    assert not problems, problems


def test_a_forked_child_has_the_stages_and_none_of_the_runs(plants: dict[str, Plant]) -> None:
    with compiled() as exe:
        exe.run(given(3))
        plants[SECOND].open.clear()
        plants[SECOND].entered.clear()
        runs = [exe.submit(given(n)) for n in (3, 4)]  # one under way, one queued
        assert plants[SECOND].entered.wait(30)

        def child() -> None:
            plants[SECOND].open = threading.Event()
            plants[SECOND].open.set()
            for run in runs:
                with pytest.raises(ag.RunCancelled):
                    run.result(0)
            check(exe.run(given(5)), 5)
            check(exe.submit(given(6)).result(20), 6)
            exe.close()

        stages = exe._stages
        assert stages is not None
        with exe._lock, exe._making, stages._lock:  # as other threads may at that moment
            in_child(child)
        plants[SECOND].open.set()
        for n, run in zip((3, 4), runs, strict=True):
            check(run.result(60), n)
