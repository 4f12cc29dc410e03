"""Rivals on CUDA: plain CuPy, CuPy with streams placed by hand, CuPy's own graph capture, PyTorch.

Hand-placed streams keep every array alive until all streams are joined: CuPy's pool hands a freed
block back to the stream that allocated it, with no event.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..nets.workload import Workload
from .candidate import Candidate, NotHereError, Outputs
from .rivals import named_outputs
from .tasks import store, tasks_of

Issue = Callable[[], Callable[[], object]]


def _timed(stream: Any, issue: Callable[[], object]) -> float:
    """Return milliseconds on the device; `issue` joins its streams into `stream` at its end."""
    import cupy

    first, last = cupy.cuda.Event(), cupy.cuda.Event()
    stream.synchronize()
    first.record(stream)
    issue()
    last.record(stream)
    last.synchronize()
    return float(cupy.cuda.get_elapsed_time(first, last))


def _candidate(
    name: str, stream: Any, start: Callable[[], Outputs], close: Callable[[], None] | None = None
) -> Candidate:
    """Wrap `start`, which enqueues everything so that the end of `stream` is the end of the job."""
    alive: list[Outputs] = []

    def issue() -> Callable[[], object]:
        alive[:] = [start()]
        return stream.synchronize  # type: ignore[no-any-return]

    def run() -> Outputs:
        outputs = start()
        stream.synchronize()
        return outputs

    return Candidate(
        name, run, issue=issue, device_ms=lambda: _timed(stream, start),
        close=close or (lambda: alive.clear()),
    )  # fmt: skip


def on_device(workload: Workload, *, resident: bool) -> Callable[[], dict[str, Any]]:
    """Return a function that gives inputs and parameters on the device.

    Parameters are always there; inputs are copied at each call unless `resident`.
    """
    import cupy

    kept = {k: cupy.asarray(v) for k, v in workload.arrays().items()}
    # Hazard: uploads are on the default stream, which non-blocking streams do not wait for.
    cupy.cuda.get_current_stream().synchronize()
    if resident:
        return lambda: kept
    return lambda: {**kept, **{k: cupy.asarray(v) for k, v in workload.inputs.items()}}


def cupy_plain(workload: Workload, *, resident: bool) -> Candidate:
    """Straight-line CuPy on one stream."""
    import cupy

    stream, arrays = cupy.cuda.Stream(non_blocking=True), on_device(workload, resident=resident)

    def start() -> Outputs:
        with stream:
            return workload.plain(cupy, arrays())

    return _candidate("cupy", stream, start)


def cupy_streams(workload: Workload, *, resident: bool) -> Candidate:
    """CuPy with a stream for each branch that a person sees, and an event for each crossing."""
    import cupy

    tasks = tasks_of(workload.net, cupy, hand=workload.hand)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(len(workload.hand) + 1)]
    main, arrays = streams[0], on_device(workload, resident=resident)
    maker = {name: task for task in tasks for name in task.outputs}
    crossing = {
        maker[name].name
        for task in tasks
        for name in task.inputs
        if name in maker and maker[name].stream != task.stream
    }
    used = sorted({task.stream for task in tasks} - {0})

    def start() -> Outputs:
        with main:
            values = dict(arrays())
        begun = main.record()
        for index in used:
            streams[index].wait_event(begun)  # hazard: the inputs are still being copied
        events: dict[str, Any] = {}
        for task in tasks:
            stream = streams[task.stream]
            for name in task.inputs:
                source = maker.get(name)
                if source is not None and source.stream != task.stream:
                    stream.wait_event(events[source.name])  # hazard: read before it is written
            with stream:
                store(values, task, task.run(*[values[name] for name in task.inputs]))
            if task.name in crossing:
                events[task.name] = stream.record()
        for index in used:
            main.wait_event(streams[index].record())  # joined: the end of main is the end of all
        return {**named_outputs(workload, values), "_alive": values}

    return _candidate("cupy streams", main, start)


def cupy_graph(workload: Workload, *, resident: bool) -> Candidate:
    """The plain code captured once by CuPy and replayed, with a pool of its own kept alive."""
    import cupy

    if not resident:
        raise NotHereError("a captured graph reads fixed addresses: inputs cannot come as NumPy")
    stream, arrays = cupy.cuda.Stream(non_blocking=True), on_device(workload, resident=True)()
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc), stream:
        workload.plain(cupy, arrays)  # compiles kernels, fills the pool
        stream.synchronize()
        stream.begin_capture()
        try:
            outputs = workload.plain(cupy, arrays)
        except Exception as error:  # CuPy refuses libraries, transfers and synchronisation
            stream.end_capture()
            raise NotHereError(f"CuPy does not capture this: {error}") from error
        graph = stream.end_capture()

    def start() -> Outputs:
        graph.launch(stream)
        # The graph knows addresses only: whoever holds it holds its inputs and its pool.
        return {**outputs, "_alive": (arrays, pool)}

    return _candidate("cupy graph", stream, start)


def torch_on_cuda(workload: Workload, *, resident: bool, graph: bool) -> Candidate:
    """PyTorch, eager or captured."""
    if importlib.util.find_spec("torch") is None:
        raise NotHereError("PyTorch is not installed")
    import torch

    if not torch.cuda.is_available():
        raise NotHereError("this build of PyTorch finds no CUDA device")
    if graph and not resident:
        raise NotHereError("a captured graph reads fixed addresses: inputs cannot come as NumPy")
    from .torch_table import tensors_of, torch_tasks

    tasks, values = torch_tasks(workload), tensors_of(workload, torch.device("cuda"))
    names = [] if resident else list(workload.inputs)

    def forward() -> dict[str, Any]:
        made = dict(values)
        with torch.inference_mode():
            made.update({k: torch.from_numpy(workload.inputs[k]).cuda() for k in names})
            for task in tasks:
                store(made, task, task.run(*[made[name] for name in task.inputs]))
        return named_outputs(workload, made)

    if not graph:
        return _torch_candidate("torch", torch, forward)
    forward()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        outputs = forward()

    def replay() -> dict[str, Any]:
        captured.replay()
        return outputs

    return _torch_candidate("torch graph", torch, replay)


def _torch_candidate(name: str, torch: Any, start: Callable[[], dict[str, Any]]) -> Candidate:
    def issue() -> Callable[[], object]:
        start()
        return torch.cuda.synchronize  # type: ignore[no-any-return]

    def run() -> Outputs:
        outputs = start()
        torch.cuda.synchronize()
        return {k: v.cpu().numpy() for k, v in outputs.items()}

    def device_ms() -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        start()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))

    return Candidate(name, run, issue=issue, device_ms=device_ms)


def cuda_rivals(workload: Workload, *, resident: bool) -> Iterator[Candidate | tuple[str, str]]:
    """Yield each rival, or its name and why it is not here."""
    makers: Mapping[str, Callable[[], Candidate]] = {
        "cupy": lambda: cupy_plain(workload, resident=resident),
        "cupy streams": lambda: cupy_streams(workload, resident=resident),
        "cupy graph": lambda: cupy_graph(workload, resident=resident),
        "torch": lambda: torch_on_cuda(workload, resident=resident, graph=False),
        "torch graph": lambda: torch_on_cuda(workload, resident=resident, graph=True),
    }
    for name, make in makers.items():
        try:
            yield make()
        except NotHereError as reason:
            yield name, str(reason)
