"""What the core promises, as ratios of one interleaved run.

python -m benchmarks.core [chain] [matmul] [auto] [--save]

The promises are about the CPU; `matmul` and `auto` can be measured on a GPU as well (chains there:
`benchmarks.cuda_host_cost`).
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import asyncnet_gpu as ag
from benchmarks.harness import interleave, paired_ratio, save
from benchmarks.nets.small import TEN_NETS, chain_net, two_matmul_chains

#: On the CPU nothing is recorded: the graph modes are the other two with staged inputs.
SINGLE_MODES = {
    "cpu": ("serial", "streams"),
    "cuda": ("serial", "streams", "graph-serial", "graph"),
}


def chain(backend: str = "cpu") -> dict[str, Any]:
    """1,000 one-element relu, serial mode, against the bare NumPy loop."""
    n = 1000
    x = np.ones(1, np.float32)
    o = np.empty(1, np.float32)

    def bare() -> None:
        for _ in range(n):
            np.maximum(x, 0, out=o)

    with chain_net(n).compile(backend=backend, mode="serial") as exe:
        timings = interleave({"bare": bare, "serial": lambda: exe.run(x=x)}, rounds=60)
    ratio = paired_ratio(timings, "serial", "bare")
    print(
        f"chain of {n:,} one-element relu: bare loop {1e6 * timings['bare'].median_s:.0f} us, "
        f"serial {1e6 * timings['serial'].median_s:.0f} us, ratio {ratio:.3f} (goal <= 1.3)"
    )
    return {"serial_over_bare": ratio}


def matmul(backend: str = "cpu") -> dict[str, Any]:
    """Two independent chains of twenty 768 x 768 float32 products, one BLAS thread each."""
    net, x = two_matmul_chains(20, 768)
    with (
        net.compile(backend=backend, mode="serial", blas_threads=1) as serial,
        net.compile(backend=backend, mode="streams", blas_threads=1) as streams,
    ):
        a, b = serial.run(x=x), streams.run(x=x)
        for key in a:
            assert np.array_equal(ag.to_numpy(a[key]), ag.to_numpy(b[key])), "modes differ"
        timings = interleave(
            {"serial": lambda: serial.run(x=x), "streams": lambda: streams.run(x=x)}, rounds=9
        )
    ratio = paired_ratio(timings, "serial", "streams")
    quiet = timings["serial"].fastest_s / timings["streams"].fastest_s
    print(
        f"two chains of twenty 768x768 products: serial {1e3 * timings['serial'].median_s:.0f} ms, "
        f"streams {1e3 * timings['streams'].median_s:.0f} ms, "
        f"streams faster by {ratio:.2f}, in the quietest rounds by {quiet:.2f} (goal >= 1.8)"
    )
    return {"serial_over_streams": ratio, "serial_over_streams_fastest": quiet}


def auto(backend: str = "cpu") -> dict[str, Any]:
    """`auto` against the best single mode on ten nets of different shape."""
    worst, rows = 0.0, {}
    single = SINGLE_MODES[backend]
    modes = (*single, "auto")
    for name, make in TEN_NETS.items():
        net, inputs = make()
        exes = {m: net.compile(backend=backend, mode=m) for m in modes}
        for _ in range(100):  # auto decides
            exes["auto"].run(inputs)
        calls: dict[str, Callable[[], object]] = {
            m: partial(exe.run, inputs) for m, exe in exes.items()
        }
        once = min(t.median_s for t in interleave(calls, rounds=3).values())
        timings = interleave(calls, rounds=max(15, min(400, int(0.5 / once))))
        ratio = max(paired_ratio(timings, "auto", m) for m in single)
        worst = max(worst, ratio)
        rows[name] = ratio
        print(
            f"auto {name:22} took {exes['auto'].mode:8} "
            + " ".join(f"{m} {1e3 * timings[m].median_s:8.3f} ms" for m in modes)
            + f"  auto/best {ratio:.3f}"
        )
        for exe in exes.values():
            exe.close()
    print(f"auto over the best single mode: worst {worst:.3f}, median "
          f"{statistics.median(rows.values()):.3f} (goal <= 1.03)")  # fmt: skip
    return {"auto_over_best": rows}


def measure(backend: str) -> dict[str, Any]:
    """Measure all that applies to a backend and return it as JSON-able data."""
    sections = (chain, matmul, auto) if backend == "cpu" else (matmul, auto)
    return {section.__name__: section(backend) for section in sections}


def main(arguments: list[str]) -> None:
    sections = {"chain": chain, "matmul": matmul, "auto": auto}
    chosen = [a for a in arguments if not a.startswith("--")] or list(sections)
    print(f"asyncnet_gpu {ag.__version__}")
    result = {name: sections[name]() for name in chosen}
    if "--save" in arguments:
        print(f"written to {save('core', result)}")


if __name__ == "__main__":
    main(sys.argv[1:])
