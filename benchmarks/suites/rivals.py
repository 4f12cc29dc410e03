"""Rivals on the CPU, each from the same plain code: NumPy, concurrent.futures, dask, PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from asyncnet_gpu.backends.cpu.cores import usable_cores

from ..nets.workload import Workload
from .candidate import Candidate, NotHereError, Outputs
from .tasks import Task, store, tasks_of

#: OpenBLAS and OpenMP threads spin for up to 2^26 cycles after their work.
SPIN_S = 0.03


def numpy_plain(workload: Workload) -> Candidate:
    """Straight-line NumPy."""
    arrays = workload.arrays()
    return Candidate("numpy", lambda: workload.plain(np, arrays), rest_s=SPIN_S)


def named_outputs(workload: Workload, values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[blob] for key, blob in workload.net.outputs.items()}


def futures(workload: Workload) -> Candidate:
    """A pool of threads; every task is a future that waits for those it needs.

    The pool's queue is in program order, so what a task waits for has always begun before it.
    """
    tasks, arrays = tasks_of(workload.net, np), workload.arrays()
    pool = ThreadPoolExecutor(usable_cores())

    def work(task: Task, sources: list[Any]) -> Any:
        return task.run(*[s() if callable(s) else s for s in sources])

    def run() -> Outputs:
        made: dict[str, Callable[[], Any]] = {}
        for task in tasks:
            sources = [made.get(name, arrays.get(name)) for name in task.inputs]
            future = pool.submit(work, task, sources)
            if len(task.outputs) == 1:
                made[task.outputs[0]] = future.result
            else:
                for i, name in enumerate(task.outputs):
                    made[name] = _item(future, i)
        return {key: made[blob]() for key, blob in workload.net.outputs.items()}

    return Candidate("futures", run, rest_s=SPIN_S, close=lambda: pool.shutdown(wait=True))


def _item(future: Future[Any], index: int) -> Callable[[], Any]:
    return lambda: future.result()[index]


def dask_threaded(workload: Workload) -> Candidate:
    """The threaded scheduler of dask on a graph with one key for each task."""
    if importlib.util.find_spec("dask") is None:
        raise NotHereError("dask is not installed")
    import dask.threaded

    tasks, arrays = tasks_of(workload.net, np), workload.arrays()
    graph: dict[str, Any] = dict(arrays)
    for task in tasks:
        if len(task.outputs) == 1:
            graph[task.outputs[0]] = (task.run, *task.inputs)
            continue
        graph[f"{task.name} all"] = (task.run, *task.inputs)
        for i, name in enumerate(task.outputs):
            graph[name] = (_part, f"{task.name} all", i)
    keys = list(workload.net.outputs)
    blobs = [workload.net.outputs[key] for key in keys]

    def run() -> Outputs:
        found = dask.threaded.get(graph, blobs, num_workers=usable_cores())
        return dict(zip(keys, found, strict=True))

    return Candidate("dask", run, rest_s=SPIN_S)


def _part(made: Any, index: int) -> Any:
    return made[index]


def torch_eager(workload: Workload) -> Candidate:
    """PyTorch, one call for each node, without gradients."""
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("PyTorch is not installed")
    import torch

    from .torch_table import tensors_of, torch_tasks

    tasks = torch_tasks(workload)
    values = tensors_of(workload, torch.device("cpu"))

    def run() -> Outputs:
        with torch.inference_mode():
            made = dict(values)
            for task in tasks:
                store(made, task, task.run(*[made[name] for name in task.inputs]))
        return {k: v.numpy() for k, v in named_outputs(workload, made).items()}

    return Candidate("torch", run, rest_s=SPIN_S)


CPU_RIVALS = {
    "numpy": numpy_plain, "futures": futures, "dask": dask_threaded, "torch": torch_eager
}  # fmt: skip


def cpu_rivals(workload: Workload) -> Iterator[Candidate | tuple[str, str]]:
    """Yield each rival, or its name and why it is not here."""
    for name, make in CPU_RIVALS.items():
        try:
            yield make(workload)
        except NotHereError as reason:
            yield name, str(reason)
