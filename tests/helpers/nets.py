"""Nets for planning tests: synthetic operators with a stated cost, random and NASNet-like nets."""

from __future__ import annotations

import random

import numpy as np

from asyncnet_gpu.blob import Blob
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.ops.base import Arrays, Attrs, Cost, Launch, Op, Specs
from asyncnet_gpu.plan.cost import DeviceModel
from asyncnet_gpu.specs import spec

#: Cheap events, eight lanes.
CUDA_LIKE = DeviceModel(10e12, 1e12, 1.5e-6, 3e-6, 1.5e-6, 50e9, 8)
#: A hand-over is a thread switch.
CPU_LIKE = DeviceModel(
    30e9, 6e9, 1e-6, 1e-6, 60e-6, 6e9, 2, threads=True, shortest_unlocked_s=60e-6
)


def _infer_mix(ins: Specs, attrs: Attrs) -> Specs:
    return tuple(spec((size,), "float32") for size in attrs["sizes"])


def _bind_mix(xp: object, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    def launch() -> None:
        total = sum((float(a.sum()) for a in ins), start=0.0)
        for i, out in enumerate(outs):
            out[...] = np.sin(total) + i

    return launch


def _reference_mix(ins: Arrays, attrs: Attrs) -> tuple[np.ndarray, ...]:
    total = sum((float(a.sum()) for a in ins), start=0.0)
    return tuple(np.full(size, np.sin(total) + i) for i, size in enumerate(attrs["sizes"]))


def _scratch_mix(ins: Specs, outs: Specs, attrs: Attrs, device_kind: str) -> Specs:
    return tuple(spec((n,), "uint8") for n in attrs["scratch"])


def _cost_mix(ins: Specs, outs: Specs, attrs: Attrs) -> Cost:
    return Cost(flops=attrs["flops"], bytes=0.0)


MIX = Op(
    name="mix", kind="Mix", doc="Any inputs to any outputs.", n_inputs=(0, None),
    attrs={"sizes": (16,), "flops": 1e6, "scratch": ()}, infer=_infer_mix, bind=_bind_mix,
    reference=_reference_mix, scratch=_scratch_mix, cost=_cost_mix,
)  # fmt: skip

UPDATE = Op(
    name="update", kind="Update", doc="Update the first input in place.", n_inputs=(1, None),
    infer=lambda ins, attrs: (ins[0],), bind=_bind_mix, reference=_reference_mix, mutates=(0,),
)  # fmt: skip

HALF = Op(
    name="half", kind="Half", doc="View of the first or second half.", n_inputs=(1, 1),
    attrs={"second": False},
    infer=lambda ins, attrs: (spec((ins[0].shape[0] // 2,), ins[0].dtype),),
    bind=_bind_mix, reference=_reference_mix,
    view=lambda a, attrs: (
        a[a.shape[0] // 2 : 2 * (a.shape[0] // 2)] if attrs["second"] else a[: a.shape[0] // 2]
    ),
)  # fmt: skip


def mix(net: AsyncNet, *blobs: Blob, name: str | None = None, **attrs: object) -> Blob:
    """Add one `MIX` node with one output."""
    after = attrs.pop("after", ())
    return net.add_node(MIX, blobs, attrs, name=name, after=after)[0]  # type: ignore[arg-type]


def dag_net(edges: dict[int, list[int]], n: int) -> AsyncNet:
    """Return a net whose nodes n0 .. depend exactly as `edges` (node to predecessors) says."""
    net = AsyncNet("dag")
    made: list[Blob] = []
    for node in range(n):
        made.append(mix(net, *[made[p] for p in edges.get(node, [])], name=f"n{node}"))
    net.output(*made)
    return net


def random_net(seed: int, n_nodes: int, n_devices: int = 1) -> AsyncNet:
    """Return a net with branches, views, updates of parameters, barriers and control edges."""
    rng = random.Random(seed)
    net = AsyncNet(f"random{seed}")
    blobs = [net.input("x", (64,)), net.constant(np.ones(8, np.float32), name="c")]
    states: list[tuple[Blob, int]] = []
    for device in range(n_devices):
        with net.device(device):
            states.append((net.parameter(f"s{device}", np.zeros(8, np.float32)), device))
    blobs.append(net.parameter("w", np.zeros(32, np.float32)))
    mixes: list[Blob] = []
    for i in range(n_nodes):
        device = rng.randrange(n_devices)
        with net.device(device):
            dice = rng.random()
            recent = blobs[-12:] if rng.random() < 0.7 else blobs
            ins = rng.sample(recent, min(len(recent), rng.randrange(1, 4)))
            if dice < 0.08:
                state, home = rng.choice(states)
                with net.device(home):
                    net.add_node(UPDATE, (state, *ins), {}, name=f"u{i}")
            elif dice < 0.16:
                if ins[0].shape[0] >= 2:
                    attrs = {"second": rng.random() < 0.5}
                    blobs.append(net.add_node(HALF, ins[:1], attrs, name=f"v{i}")[0])
            elif dice < 0.22:
                net.barrier(*ins, name=f"b{i}")
            elif dice < 0.24:
                net.barrier(name=f"all{i}")
            else:
                if rng.random() < 0.2:
                    ins.append(rng.choice(states)[0])
                after = rng.sample(mixes, 1) if mixes and rng.random() < 0.1 else ()
                sizes = [rng.choice([0, 1, 8, 64, 300, 1000]) for _ in range(rng.choice([1, 1, 2]))]
                attrs = {
                    "sizes": sizes, "flops": 10 ** rng.uniform(4, 9),
                    "scratch": tuple([rng.randrange(1, 900)] * rng.choice([0, 0, 1, 2])),
                }  # fmt: skip
                outs = net.add_node(MIX, ins, attrs, name=f"n{i}", after=after)
                blobs.extend(outs)
                mixes.extend(outs[:1])
    mixes = mixes or [mix(net, blobs[0], name="only")]
    net.output(*rng.sample(mixes, min(len(mixes), 3)))
    return net


def nasnet_like(n_nodes: int, seed: int = 0) -> AsyncNet:
    """Return cells of five blocks over the two cells before, as in NASNet, of about `n_nodes`."""
    rng = random.Random(seed)
    net = AsyncNet(f"nasnet{n_nodes}")
    before = last = net.input("x", (4096,))
    count, cell = 0, 0
    while count < n_nodes:
        size = rng.choice([1024, 2048, 4096])
        states = [mix(net, before, sizes=(size,), flops=4e7), mix(net, last, sizes=(size,))]
        count += 2
        for _ in range(5):
            halves = []
            for state in rng.sample(states, 2):
                for _ in range(rng.choice([1, 2, 4])):  # identity-like, pooling, separable conv
                    state = mix(net, state, sizes=(size,), flops=10 ** rng.uniform(6, 8))
                    count += 1
                halves.append(state)
            states.append(mix(net, *halves, sizes=(size,), flops=1e5))
            count += 1
        before, last = last, mix(net, *states[2:], sizes=(size * 5,), flops=1e5)
        count, cell = count + 1, cell + 1
    net.output(last)
    return net
