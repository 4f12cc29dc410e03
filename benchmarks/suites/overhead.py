"""Microseconds per step that does nothing, ours against everybody who runs graphs from Python.

A chain of `N_STEPS` steps on one element. Each system does what is cheapest for it: we and one of
the NumPy loops write into memory that is there. All take turns in one run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu.cores import usable_cores

from ..harness import QuietRounds, interleave, paired_ratio
from ..nets.small import chain_net
from .measure import Options, Row

N_STEPS = 1000

#: What a step costs in a loop of runs is asked, not what it costs to fetch everything from memory
#: after ten other systems: each runs so long before its run is timed.
_PRIME_S = 0.02
Call = Callable[[], object]


def _ours(net: ag.AsyncNet, x: Any, stack: ExitStack) -> Iterator[tuple[str, Call]]:
    exe = stack.enter_context(net.compile(backend="cpu", mode="serial"))
    yield "asyncnet_gpu, inline", lambda: exe.run(x=x)
    yield "asyncnet_gpu, thread", lambda: exe.run(x=x, timeout_s=60.0)
    yield "asyncnet_gpu, submit", lambda: exe.submit(x=x).result(60.0)


def _bound_loop(x: Any) -> Call:
    out, maximum = np.empty_like(x), np.maximum

    def run() -> Any:
        for _ in range(N_STEPS):
            maximum(x, 0, out=out)
        return out

    return run


def _allocating_loop(x: Any) -> Call:
    def run() -> Any:
        h = x
        for _ in range(N_STEPS):
            h = np.maximum(h, 0)
        return h

    return run


def _futures(x: Any, stack: ExitStack) -> Call:
    pool = stack.enter_context(ThreadPoolExecutor(usable_cores()))

    def step(source: Any) -> Any:
        return np.maximum(source.result() if hasattr(source, "result") else source, 0)

    def run() -> Any:
        h = x
        for _ in range(N_STEPS):
            h = pool.submit(step, h)
        return h.result()

    return run


def _dask(x: Any) -> Call | str:
    if importlib.util.find_spec("dask") is None:
        return "dask is not installed"
    import dask.threaded

    graph: dict[str, Any] = {"h0": x}
    for i in range(N_STEPS):
        graph[f"h{i + 1}"] = (_relu, f"h{i}")
    return lambda: dask.threaded.get(graph, f"h{N_STEPS}", num_workers=usable_cores())


def _relu(h: Any) -> Any:
    return np.maximum(h, 0)


def _onnxruntime(x: Any) -> Call | str:
    """All graph optimisations off: a chain of relu would be folded away."""
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        return "onnxruntime (and onnx to write the model) is not installed"
    import onnxruntime
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Relu", [f"h{i}"], [f"h{i + 1}"]) for i in range(N_STEPS)]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        for name in ("h0", f"h{N_STEPS}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"h0": x})[0]


def _torch_calls(x: Any) -> Iterator[tuple[str, Call | str]]:
    if importlib.util.find_spec("torch") is None:
        yield "torch, eager", "PyTorch is not installed"
        return
    import torch
    from torch import fx

    class Chain(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, h: Any) -> Any:
            for _ in range(N_STEPS):
                h = torch.relu(h)
            return h

    tensor, module = torch.from_numpy(x), Chain().eval()
    traced = fx.symbolic_trace(module)
    interpreter = fx.Interpreter(traced)

    def without_gradient(function: Callable[[Any], Any]) -> Call:
        def run() -> Any:
            with torch.inference_mode():
                return function(tensor)

        return run

    yield "torch, eager", without_gradient(module)
    yield "torch.fx, generated code", without_gradient(traced)
    yield "torch.fx, interpreter", without_gradient(interpreter.run)


#: In the table for scale; they schedule in C++ or schedule nothing.
NOT_SCHEDULERS = ("numpy loop, out=", "numpy loop", "onnxruntime", "torch, eager",
                  "torch.fx, generated code")  # fmt: skip


def candidates(stack: ExitStack) -> tuple[dict[str, Call], dict[str, str]]:
    """Return what takes part, and what does not and why."""
    x = np.ones(1, np.float32)
    made: dict[str, Call | str] = {"numpy loop, out=": _bound_loop(x)}
    made |= _ours(chain_net(N_STEPS), x, stack)
    made |= {
        "numpy loop": _allocating_loop(x),
        "concurrent.futures": _futures(x, stack),
        "dask.threaded": _dask(x),
        "onnxruntime": _onnxruntime(x),
        **dict(_torch_calls(x)),
    }
    calls = {name: call for name, call in made.items() if callable(call)}
    return calls, {name: why for name, why in made.items() if isinstance(why, str)}


def measure_overhead(options: Options) -> tuple[list[Row], dict[str, str]]:
    """Return a row for each system, and who is absent."""
    with ExitStack() as stack:
        calls, absent = candidates(stack)
        for name, call in calls.items():
            result = call()
            end = next(iter(result.values())) if isinstance(result, dict) else result
            if np.asarray(end).tolist() != [1.0]:
                raise AssertionError(f"[bench overhead] {name}: wrong output {end!r}")
        quiet = QuietRounds(budget_s=options.seconds)
        timings = interleave(
            calls, rounds=options.rounds or 31, seed=options.seed, quiet=quiet, warm_ups=2,
            prime_s=_PRIME_S,
        )  # fmt: skip
    rows = []
    for name, timing in timings.items():
        rows.append(
            {
                "system": name,
                "us_per_step": 1e6 * timing.median_s / N_STEPS,
                "spread": timing.spread if len(timing.seconds) > 1 else 0.0,
                "over_inline": paired_ratio(timings, name, "asyncnet_gpu, inline"),
                "schedules": name not in NOT_SCHEDULERS,
                "checked": "same value",
            }
        )
    return rows, absent
