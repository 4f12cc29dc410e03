"""The public interface, literally as it was promised, on every backend and in every mode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers.public_net import FUNCTIONS, build, given, wanted

import asyncnet_gpu as ag

CPU = [("cpu", mode) for mode in ("serial", "streams", "graph", "graph-serial", "auto")]
CUDA = [
    pytest.param(("cuda", mode), marks=pytest.mark.gpu)
    for mode in ("serial", "streams", "graph", "graph-serial", "auto")
]


@pytest.fixture(params=[*CPU, *CUDA], ids=lambda p: "-".join(p))
def made(request: pytest.FixtureRequest) -> Iterator[tuple[ag.Executable, ag.AsyncNetBarrier]]:
    backend, mode = request.param
    net, ready = build()
    options = {"devices": [0, 0]} if backend == "cuda" else {}
    with net.compile(
        backend=backend,
        mode=mode,
        max_streams=8,
        allocator="cost",
        slots=2,
        timeout_s=60,
        **options,
    ) as exe:
        assert exe.backend == backend
        yield exe, ready


def check(outputs: dict[str, Any], x: np.ndarray) -> None:
    right = wanted(x)
    assert outputs.keys() == right.keys()
    for name, array in right.items():
        found = ag.to_numpy(outputs[name])
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.float32
        assert np.array_equal(found, array), name


def test_run_by_keyword_and_by_mapping(made: tuple[ag.Executable, ag.AsyncNetBarrier]) -> None:
    exe, _ = made
    for seed in range(3):
        x = given(seed)
        check(exe.run(x=x), x)
        check(exe.run({"x": x}), x)


def test_submit_result_barrier_and_done(made: tuple[ag.Executable, ag.AsyncNetBarrier]) -> None:
    exe, ready = made
    x = given(1)
    run = exe.submit(x=x)
    ready.wait(run, timeout_s=30)
    assert ready.reached(run)
    check(run.result(timeout_s=30), x)
    assert run.done()
    assert run.exception() is None
    assert run.cancel() is False


def test_await(made: tuple[ag.Executable, ag.AsyncNetBarrier]) -> None:
    exe, ready = made

    async def main() -> None:
        runs = {seed: exe.submit(x=given(seed)) for seed in range(4)}
        await ready.of(runs[0])
        for seed, run in runs.items():
            check(await run, given(seed))

    asyncio.run(main())


def test_cancel_gives_one_of_two_ends_and_the_next_run_is_right(
    made: tuple[ag.Executable, ag.AsyncNetBarrier],
) -> None:
    exe, _ = made
    x = given(2)
    runs = [exe.submit(x=x) for _ in range(6)]
    for run in runs:
        run.cancel()
    for run in runs:
        error = run.exception(30)
        assert error is None or isinstance(error, ag.RunCancelled)
        if error is None:
            check(run.result(), x)
        else:
            with pytest.raises(ag.RunCancelled):
                run.result()
    check(exe.run(x=x), x)


def test_plan_is_data_and_explains_itself(
    made: tuple[ag.Executable, ag.AsyncNetBarrier],
) -> None:
    exe, _ = made
    data = json.loads(json.dumps(exe.plan.to_dict()))
    assert data["schema"] == 1
    assert data["net"] == "towers"
    assert {"h", "ready", "y", "z"} <= {node["name"] for node in data["nodes"]}
    assert exe.plan.explain("h", "y").startswith("y waits for h: ")
    assert "ready" in exe.plan.describe()
    assert exe.why


def test_definition_travels_as_json(made: tuple[ag.Executable, ag.AsyncNetBarrier]) -> None:
    exe, _ = made
    net, _ = build()
    text = json.dumps(net.to_dict())
    again = ag.AsyncNet.from_dict(json.loads(text), functions=FUNCTIONS)
    options = {"devices": [0, 0]} if exe.backend == "cuda" else {}
    with again.compile(backend=exe.backend, mode="streams", **options) as other:
        check(other.run(x=given(3)), given(3))


def test_closing_twice_is_harmless_and_using_it_then_is_an_error(
    made: tuple[ag.Executable, ag.AsyncNetBarrier],
) -> None:
    exe, _ = made
    exe.close()
    exe.close()
    with pytest.raises(ag.AsyncNetError, match="closed"):
        exe.run(x=given())
    with pytest.raises(ag.AsyncNetError, match="closed"):
        exe.submit(x=given())


def test_nothing_but_data_is_in_a_definition() -> None:
    net, _ = build()

    def walk(value: Any) -> None:
        assert type(value) in (dict, list, str, int, float, bool, type(None))
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                walk(item)

    walk(net.to_dict())
