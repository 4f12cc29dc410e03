"""What the commands around plans share: a plan without a device, runs to look at."""

from __future__ import annotations

from typing import Any

from asyncnet_gpu import backends
from asyncnet_gpu.cli.models import bound_net, inputs_of, make_inputs, open_net
from asyncnet_gpu.errors import DeviceError, PlanError, message
from asyncnet_gpu.executor import Executable
from asyncnet_gpu.graph import build_graph
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.passes import run_passes
from asyncnet_gpu.place import place
from asyncnet_gpu.plan import make_plan
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.plan.types import Plan

#: Mode auto decides after a few runs of each mode.
_MOST_RUNS = 100


def load_bound(
    target: str, shapes: list[str] | None, given: list[str] | None, seed: int = 0
) -> tuple[AsyncNet, dict[str, Any]]:
    """Return the net with all its shapes known, and an array for each input that is left."""
    net = open_net(target)
    arrays = make_inputs(inputs_of(net), given, shapes, seed)
    bound = bound_net(net, arrays)
    names = {source.name for source in bound.sources if source.kind == "input"}
    return bound, {name: array for name, array in arrays.items() if name in names}


def _prices(backend: str) -> tuple[str, DeviceModel, int]:
    """Return device kind, rates and alignment; CUDA without a device has those of a data centre."""
    if backend in ("cuda", "auto"):
        try:
            loaded = backends.load(backend)
        except DeviceError:
            from asyncnet_gpu.backends.sim import GPU

            return "cuda", GPU, 256
    else:
        loaded = backends.load(backend)
    try:
        return loaded.name, loaded.model(), loaded.alignment()
    finally:
        loaded.close()


def plan_net(
    target: str, shapes: list[str] | None, given: list[str] | None, *, backend: str, mode: str,
    allocator: str, max_streams: int | None,
) -> Plan:  # fmt: skip
    """Return the plan of a net; nothing is allocated and nothing runs."""
    if mode == "auto":
        raise PlanError(
            message("plan", "mode auto is decided by running", expected="a mode", got="auto",
                    remedy="Give --mode serial, streams, graph or graph-serial.")
        )  # fmt: skip
    net, _ = load_bound(target, shapes, given)
    kind, model, alignment = _prices(backend)
    graph = place(run_passes(build_graph(net), kind))
    return make_plan(
        graph, device_kind=kind, model=model, mode=mode, allocator=allocator,
        max_streams=max_streams, alignment=alignment,
    )  # fmt: skip


def settled(exe: Executable, arrays: dict[str, Any]) -> Executable:
    """Run until mode auto has decided, so that what is looked at is what will be used."""
    for _ in range(_MOST_RUNS):
        if not exe.why.startswith("predicted"):
            break
        exe.run(arrays)
    return exe
