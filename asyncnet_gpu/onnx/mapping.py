"""Which of our operators an ONNX node becomes: found in the files that define it, in no table.

Two places are searched: ``onnx={...}`` of the operators in `asyncnet_gpu.ops` (a node that is the
operator), and ``NODES`` of the modules in `asyncnet_gpu.onnx.nodes` (a node that needs translation
or becomes several), one file per family. A key is the ONNX operator type, with ``domain::`` in
front outside the default domain.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import NamedTuple

from asyncnet_gpu import ops
from asyncnet_gpu.ops.base import OnnxMapping


class Entry(NamedTuple):
    """A mapping and the operator in whose file it was found; "" for a translation."""

    mapping: OnnxMapping
    op: str


@cache
def entries() -> dict[str, tuple[Entry, ...]]:
    """Return every mapping by key; translations come first."""
    from asyncnet_gpu.onnx import nodes

    found: dict[str, list[Entry]] = {}
    for module_info in pkgutil.iter_modules(nodes.__path__):
        module = importlib.import_module(f"{nodes.__name__}.{module_info.name}")
        for key, mapping in getattr(module, "NODES", {}).items():
            several = mapping if isinstance(mapping, tuple) else (mapping,)
            found.setdefault(key, []).extend(Entry(m, "") for m in several)
    for op in ops.registry().values():
        for key, mapping in op.onnx.items():
            found.setdefault(key, []).append(Entry(mapping, op.name))
    return {key: tuple(entry) for key, entry in sorted(found.items())}


def find(domain: str, op_type: str, opset: int) -> Entry | None:
    """Return the mapping of a node in an operator set, or None."""
    key = f"{domain}::{op_type}" if domain else op_type
    for entry in entries().get(key, ()):
        mapping = entry.mapping
        if mapping.since <= opset and (mapping.until is None or opset <= mapping.until):
            return entry
    return None
