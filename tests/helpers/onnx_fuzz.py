"""Hold the importer to its promise on files that lie: load or refuse, nothing else.

    PYTHONPATH=tests python -m helpers.onnx_fuzz --count 100000 --workers 2

Each seed is one file: a mutated model (`onnx_mutate`) or an invented one (`onnx_invent`). It must
be loaded, or refused with `OnnxImportError` naming the place; small nets that load are compiled and
run as well, where any error of this library is an answer. A worker is a process of its own: when it
dies or no longer answers, its seed is reported and another goes on behind it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from helpers.onnx_invent import invented
from helpers.onnx_mutate import Corpus, mutated
from onnx import TensorProto, helper

from asyncnet_gpu.errors import (
    AsyncNetError,
    DeviceError,
    InternalError,
    OnnxImportError,
    VerificationError,
)
from asyncnet_gpu.net import AsyncNet
from asyncnet_gpu.onnx import Limits, OnnxNet, StructuredNet, load_onnx
from asyncnet_gpu.onnx.context import NeedsValue
from asyncnet_gpu.onnx.ports import text_bytes

#: Small, so that a hostile size is refused by its number and not by the machine.
LIMITS = Limits(
    max_nodes=4000, max_tensor_bytes=1 << 24, max_constant_bytes=1 << 26, max_fold_bytes=1 << 22,
    max_fold_flops=1e7, max_loop_count=200, max_unrolled_nodes=400,
)  # fmt: skip
#: What one file may add to the memory in use, and to the address space reserved.
MOST_RESIDENT_BYTES = 4 * LIMITS.max_constant_bytes
MOST_RESERVED_BYTES = 1 << 30
TIMEOUT_S = 20
TEXTS = text_bytes(np.array(["a b", ""], object))
#: Nets beyond this are loaded only.
RUN_NODES, RUN_BYTES = 60, 1 << 22
#: A refusal caused by one of these came too late, whatever it was wrapped in.
TOO_LATE = (MemoryError, RecursionError, AssertionError, SystemError)


class Hang(BaseException):
    """Raised by the alarm; no `except Exception` in between can swallow it."""


def _alarm(*_: object) -> None:
    raise Hang


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `Hang` in the main thread when the block takes too long; end the process if stuck."""
    before = signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _layout(type_: Any) -> Any:
    """Return a layout that fits the type of an input: two elements, nothing left out."""
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        return (_layout(type_.sequence_type.elem_type),) * 2
    return _layout(type_.optional_type.elem_type) if kind == "optional_type" else "tensor"


def _bind(net: OnnxNet) -> AsyncNet | None:
    """Bind free dimensions to small ones, and the values that the importer asks for to ones."""
    shapes = {
        name: tuple(e if isinstance(e, int) else 2 for e in extents or ())
        for name, (_, extents) in net.inputs.items()
    }
    for _ in range(5):
        values = {
            n: TEXTS if n in net.texts else np.ones(shapes[n], net.inputs[n][0])
            for n in net.bound
            if np.prod([max(1, e) for e in shapes[n]]) < 1e5
        }
        given = {n: s for n, s in shapes.items() if n not in values}
        try:
            return net.bind(given, values)
        except NeedsValue as needed:
            if needed.inputs <= set(values):
                raise
            net.bound.update(needed.inputs)
            if not needed.inputs:
                return None
    return None


def _run(net: AsyncNet) -> str:
    """Compile and run a small net on values that fit its inputs."""
    if len(net.definitions) > RUN_NODES:
        return "loaded"
    specs = [net.spec_of(name) for d in net.definitions for name in d.outputs]
    if sum(s.nbytes for s in specs) > RUN_BYTES:
        return "loaded"
    rng = np.random.default_rng(0)
    inputs = {
        s.name: (3 * rng.standard_normal(s.spec.shape)).astype(s.spec.dtype)
        for s in net.sources
        if s.kind == "input"
    }
    try:
        with net.compile(backend="cpu", mode="serial", timeout_s=TIMEOUT_S) as exe:
            exe.run(inputs)
        return "run"
    except (InternalError, VerificationError) as error:
        raise AssertionError(f"{error}") from error
    except DeviceError as error:
        return f"failed: {_cause(error)}"
    except AsyncNetError as error:
        return f"not compiled: {_cause(error)}"


def _some_value(kind: Any) -> Any:
    """Return a value for an input of some type: small, and of the right kind."""
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return [_some_value(kind.sequence_type.elem_type)] * 2
    if which == "optional_type":
        return _some_value(kind.optional_type.elem_type)
    tensor = kind.tensor_type
    shape = [min(max(d.dim_value, 1), 4) for d in tensor.shape.dim][:8]
    if tensor.elem_type == TensorProto.STRING:
        return np.full(shape, "text", object)
    try:
        return np.ones(shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError):
        return None


def _run_structured(net: StructuredNet) -> str:
    """Bind, compile and run a model with inputs that are more than arrays."""
    inputs = {name: _some_value(kind) for name, kind in net.types.items()}
    try:
        with net.compile(backend="cpu", mode="serial", timeout_s=TIMEOUT_S) as exe:
            exe.run(inputs)
        return "run"
    except (InternalError, VerificationError) as error:
        raise AssertionError(f"{error}") from error
    except AsyncNetError as error:
        return f"not run: {_cause(error)}"


def _cause(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, TOO_LATE):
        raise AssertionError(f"refused too late: {cause!r}") from error
    return type(error if cause is None else cause).__name__


def attempt(data: bytes) -> str:
    """Load a file and say what came of it. Anything unforeseen is a bug and raises."""
    try:
        net = load_onnx(data, limits=LIMITS)
        if isinstance(net, StructuredNet):
            net = net.of_layout({name: _layout(type_) for name, type_ in net.types.items()})
        bound = _bind(net) if isinstance(net, OnnxNet) else net
    except OnnxImportError as error:
        if not str(error).startswith("[onnx"):
            raise AssertionError(f"names no place: {error}") from error
        return f"refused: {_cause(error)}"
    return "loaded" if bound is None else _run(bound)


def check(data: bytes) -> str:
    """Try one file within its time and memory."""
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with limited(TIMEOUT_S), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            verdict = attempt(data)
    except Hang:
        raise AssertionError(f"no answer within {TIMEOUT_S} s") from None
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    grown = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_bytes
    if grown > MOST_RESIDENT_BYTES:
        raise AssertionError(f"{grown} bytes of memory")
    return verdict


class Files:
    """The file of each seed."""

    def __init__(self, kind: str, *, large: bool) -> None:
        self.kind = kind
        self._corpus = Corpus(large=large) if kind == "mutated" else None

    def __getitem__(self, seed: int) -> bytes:
        rng = random.Random(seed)
        return invented(rng) if self._corpus is None else mutated(rng, self._corpus)


# -- workers -------------------------------------------------------------------------------------


def reserve_little() -> None:
    """Make an allocation far over the limits fail at once: as a MemoryError it is noticed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + MOST_RESERVED_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def work(files: Files, first: int, last: int, place: Path) -> None:
    """Try seeds; the one at hand stands in `place`, the answers go to stdout."""
    verdicts: Counter[str] = Counter()
    reserve_little()
    with place.open("r+b") as file, mmap.mmap(file.fileno(), 8) as memory:
        for seed in range(first, last):
            struct.pack_into("q", memory, 0, seed)
            try:
                verdicts[check(files[seed])] += 1
            except AssertionError as error:
                print(f"BAD {seed}: {' '.join(str(error).split())[:600]}", flush=True)
    for verdict, count in verdicts.items():
        print(f"{count} {verdict}")
    print("END")


@dataclass
class Score:
    """What came of a range of seeds."""

    verdicts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def take(self, output: str) -> bool:
        """Count the answers of a worker; whether it came to its end."""
        for line in output.splitlines():
            if line.startswith("BAD "):
                self.bad.append(line)
            elif line[:1].isdigit():
                count, _, verdict = line.partition(" ")
                self.verdicts[verdict] += int(count)
        return output.endswith("END\n")

    def add(self, other: Score) -> None:
        """Add the score of another range."""
        self.verdicts += other.verdicts
        self.bad += other.bad


def try_range(kind: str, first: int, last: int, *, large: bool) -> Score:
    """Try seeds in a child process, and in another behind each seed that ends one."""
    score = Score()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "seed"
        while first < last:
            place.write_bytes(struct.pack("q", first))
            command = [sys.executable, "-m", "helpers.onnx_fuzz", "--kind", kind, "--seed",
                       str(first), "--count", str(last - first), "--place", str(place)]  # fmt: skip
            done = subprocess.run(
                [*command, *(["--large"] if large else [])], capture_output=True, text=True,
                timeout=4 * TIMEOUT_S * (last - first), check=False, env=_environment(),
            )  # fmt: skip
            if score.take(done.stdout):
                break
            seed = struct.unpack("q", place.read_bytes())[0]
            score.bad.append(f"BAD {seed}: exit status {done.returncode}\n{done.stderr[-2000:]}")
            first = seed + 1
    return score


def _environment() -> dict[str, str]:
    tests = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("mutated", "invented"), default="mutated")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunk", type=int, default=2500, help="seeds of one process")
    parser.add_argument("--large", action="store_true", help="also pretrained models")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Try many seeds and print the score."""
    options = _options()
    first, last = options.seed, options.seed + options.count
    if options.place is not None:
        work(Files(options.kind, large=options.large), first, last, options.place)
        return 0
    start, total = time.perf_counter(), Score()
    with ThreadPoolExecutor(options.workers) as pool:
        ranges = [
            pool.submit(try_range, options.kind, at, min(at + options.chunk, last),
                        large=options.large)
            for at in range(first, last, options.chunk)
        ]  # fmt: skip
        for future in ranges:
            score = future.result()
            total.add(score)
            for line in score.bad:
                print(line, flush=True)
    elapsed_s = time.perf_counter() - start
    for verdict, count in total.verdicts.most_common():
        print(f"{count:8d} {verdict}")
    print(f"{options.count} {options.kind} files in {elapsed_s:.0f} s: {len(total.bad)} bad")
    return bool(total.bad)


if __name__ == "__main__":
    sys.exit(main())
