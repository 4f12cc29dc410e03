"""The table of operators for the documentation, from the definitions alone.

python -m ci.operators_table [PATH]     writes docs/operators.md
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from asyncnet_gpu import ops
from asyncnet_gpu.ops.barrier import BARRIERS
from asyncnet_gpu.ops.base import ANY, FLOATS, INTEGERS, NUMBERS, REQUIRED, Op

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/operators.md"
OVERRIDES = ROOT / "asyncnet_gpu/backends/cuda/overrides"

#: These are methods of `AsyncNet` with signatures of their own.
WRITTEN_OUT = {
    "call": "fn, *blobs, shape, dtype",
    "kernel": "source, entry, args, out, grid, block, cpu=None, shared_bytes=0",
    **dict.fromkeys(BARRIERS, "*blobs, outputs=None"),
}

HEAD = """# Operators

Each is a method of `AsyncNet`: blobs by position, attributes by keyword, and optionally `name=` and
`after=[...]`; `help(net.matmul)` says the rest. Made by `python -m ci.operators_table`.

- **dtypes** of the first input: *float* is float16, float32 and float64; *integer* is int8 to int64
  and uint8 to uint64; *any* adds bool.
- **memory**: *view* shares the bytes of its first input where the layout allows it; *over `x`* may
  write its result over an input that nobody reads later; *updates `w`* changes a parameter for all
  later runs.
- **CUDA**: *kernel* is one of our own (`kernels/`), *library* is cuBLAS or cuDNN; else NumPy's
  functions as CuPy has them. These run too where an array has more than 8 axes that cannot
  be merged. Bodies of `cond` and `loop` are carried out as the net around them is.
- **ONNX**: nodes with the same meaning. The importer composes many more from several of these.

| operator | dtypes | memory | CUDA | ONNX |
| --- | --- | --- | --- | --- |
"""


def documented_names(op: Op) -> Iterator[str]:
    """Yield the names that the section "Parameters" of an operator's text explains."""
    text = inspect.cleandoc(op.doc)
    found = re.search(
        r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n---|\Z)", text, re.DOTALL | re.MULTILINE
    )
    for line in found[1].splitlines() if found else ():
        if re.match(r"\w", line):
            yield from re.split(r",\s*", line.partition(":")[0].strip())


def inputs(op: Op) -> list[str]:
    """Return names of the inputs; optional ones have a default."""
    low, high = op.n_inputs
    names = [name for name in documented_names(op) if name.isidentifier() and name not in op.attrs]
    if high is None:
        rest = low if len(names) > low else 0
        return [*names[:rest], f"*{names[rest] if names else 'blobs'}"]
    if len(names) < min(low, 3):
        names = ["a", "b", "c"][:high] if high > 1 else ["x"]
    names += [f"x{i}" for i in range(len(names), high)]
    return [name if i < low else f"{name}=None" for i, name in enumerate(names[:high])]


def signature(op: Op) -> str:
    """Return how the method is called."""
    if op.name in WRITTEN_OUT:
        return f"`{op.name}({WRITTEN_OUT[op.name]})`"
    attrs = [k if v is REQUIRED else f"{k}={v!r}" for k, v in op.attrs.items()]
    arguments = inputs(op)
    if attrs and not arguments[-1].startswith("*"):
        arguments.append("*")
    return f"`{op.name}({', '.join([*arguments, *attrs])})`"


def dtypes(op: Op) -> str:
    """Return the dtypes of the first input, by groups."""
    if op.dtypes is None or op.dtypes >= ANY:
        return "any"
    words, left = [], set(op.dtypes)
    for word, group in (("number", NUMBERS), ("float", FLOATS), ("integer", INTEGERS)):
        if left >= group:
            words.append(word)
            left -= group
    if "number" in words:
        words = ["float", "integer"]
    return ", ".join([*words, *sorted(left)])


def memory(op: Op) -> str:
    """Return what an operator does with the bytes of its inputs."""
    names = [name.partition("=")[0] for name in inputs(op)]
    found = ["view"] if op.view is not None else []
    if op.mutates:
        found.append("updates " + ", ".join(f"`{names[i]}`" for i in op.mutates))
    if op.inplace:
        found.append("over " + " or ".join(f"`{names[i]}`" for i in op.inplace))
    return ", ".join(found)


def cuda(op: Op) -> str:
    """Return what carries an operator out on CUDA."""
    if op.name in BARRIERS:
        return "events"
    found = ["library"] if (OVERRIDES / f"{op.name}.py").exists() and op.name != "copy" else []
    if op.name == "copy":
        found.append("peer copy")
    if op.kernel is not None:
        found.append("the user's" if op.name == "kernel" else "kernel")
    return ", ".join(found)


def table() -> str:
    """Return the whole page."""
    rows = [
        f"| {signature(op)} | {dtypes(op)} | {memory(op)} | {cuda(op)} | {', '.join(op.onnx)} |"
        for op in ops.registry().values()
    ]
    return HEAD + "\n".join(rows) + f"\n\n{len(rows)} operators.\n"


def main(arguments: list[str]) -> None:
    """Write the page."""
    path = Path(arguments[0]) if arguments else PAGE
    path.write_text(table())
    print(f"written to {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
