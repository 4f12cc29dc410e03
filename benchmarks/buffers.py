"""What the size of NumPy's buffers costs and saves: whole nets, and the calls that decide it.

python -m benchmarks.buffers [--rounds N] [--save]

Ratios of the time with each size to that with NumPy's default of 8,192 elements, in one
interleaved run: small is good. The nets run in serial mode; they differ in nothing but the setting.
All calls go through Python (ASYNCNET_NATIVE=0): lists of calls know nothing of NumPy's buffers.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from asyncnet_gpu.backends.cpu import numpy_state
from asyncnet_gpu.backends.cpu.native.library import SWITCH
from benchmarks.harness import QuietRounds, interleave, save
from benchmarks.nets import bert, nasnet, squeezenet
from benchmarks.nets.models import MODELS
from benchmarks.nets.workload import Workload

SIZES = (64, 256, 512, 1024, 8192)
DEFAULT = 8192
_MODELS = ("ocr_cls", "ocr_rec", "basic_pitch", "magika")


def runs_of(net: ag.AsyncNet, inputs: Any) -> dict[str, Callable[[], object]]:
    """Return a run of the net for each size; bound with it, since it belongs to a slot."""
    found: dict[str, Callable[[], object]] = {}
    chosen = numpy_state.BUFFER_SIZE
    for size in SIZES:
        numpy_state.BUFFER_SIZE = size
        exe = net.compile(backend="cpu", mode="serial", blas_threads=1)
        exe.run(inputs)
        found[f"{size}"] = lambda exe=exe: exe.run(inputs)  # type: ignore[misc]
    numpy_state.BUFFER_SIZE = chosen
    return found


def calls() -> dict[str, Callable[[], object]]:
    """Calls that depend on the buffers: broadcasting along rows, and conversion."""
    tall = np.ones((64, 784), np.float32)
    short = np.ones((64, 50), np.float32)
    half, single = np.ones(50_000, np.float16), np.ones(50_000, np.float32)
    return {
        "64 x 784 * column": lambda: np.multiply(tall, tall[:, :1].copy(), out=tall),
        "64 x 50 * column": lambda: np.multiply(short, short[:, :1].copy(), out=short),
        "float32 * float16": lambda: np.multiply(single, half, out=single),
    }


def with_size(size: int, call: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        before = np.setbufsize(size)
        for _ in range(200):
            call()
        np.setbufsize(before)

    return run


def ratios(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    timings = interleave(
        candidates, rounds=rounds, seed=1, quiet=QuietRounds(budget_s=10.0), prime_s=0.0
    )
    base = timings[f"{DEFAULT}"].fastest_s
    return {name: round(timing.fastest_s / base, 3) for name, timing in timings.items()}


def main() -> None:
    os.environ[SWITCH] = "0"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    for name, call in calls().items():
        rows[name] = ratios({f"{s}": with_size(s, call) for s in SIZES}, options.rounds)
    nets: list[Workload] = [bert.build(), nasnet.build(), squeezenet.build()]
    for work in nets:
        rows[work.name] = ratios(runs_of(work.net, work.inputs), options.rounds)
    for name in _MODELS:
        model = MODELS[name]
        inputs = model.inputs()
        shapes = {key: value.shape for key, value in inputs.items()}
        net = ag.load_onnx(model.path, shapes=shapes)
        rows[name] = ratios(runs_of(net, inputs), options.rounds)
    print(f"{'':24}" + "".join(f"{size:>8}" for size in SIZES))
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[str(size)]:8.3f}" for size in SIZES))
    if options.save:
        save("buffers", {"over_default": rows, "rounds": options.rounds})


if __name__ == "__main__":
    main()
