"""A plan read back from JSON (schema 1), as far as a proof needs it: no operator can run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncnet_gpu.errors import InternalError, PlanError, message
from asyncnet_gpu.graph import BlobInfo, Graph, Node, Storage
from asyncnet_gpu.ops.base import Arrays, Attrs, Launch, Op, Specs
from asyncnet_gpu.plan.types import ALLOCATORS, MODES, Plan, Step, StreamInfo
from asyncnet_gpu.specs import contiguous_strides, spec

_FIELDS = ("streams", "nodes", "blobs", "storages", "steps", "events", "arena_bytes")


def is_plan(contents: object) -> bool:
    """Whether a JSON document is a plan rather than a net."""
    return isinstance(contents, dict) and "steps" in contents and "streams" in contents


def plan_from_dict(stored: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_dict` wrote.

    Notes
    -----
    The form does not tell where a view lies in its storage, nor temporaries of operators: blobs
    count as lying at the first byte, and there is no scratch memory.

    Raises
    ------
    PlanError
        If the document is not a plan of schema 1.
    """
    if stored.get("schema") != 1:
        raise not_a_plan(f"schema {stored.get('schema')!r}", "schema 1")
    missing = [name for name in _FIELDS if name not in stored]
    if missing:
        raise not_a_plan(f"no {', '.join(missing)}", ", ".join(_FIELDS))
    try:
        return _build(stored)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise not_a_plan(f"{type(error).__name__}: {error}", "the published form") from error


def not_a_plan(got: str, expected: str) -> PlanError:
    """Return the error of a document that is something else."""
    return PlanError(
        message("verify", "this is no plan", expected=expected, got=got,
                remedy="Write one with `asyncnet plan NET --json`.")
    )  # fmt: skip


def _build(stored: Mapping[str, Any]) -> Plan:
    mode, allocator = stored["mode"], stored["allocator"]
    if mode not in MODES or allocator not in ALLOCATORS:
        raise not_a_plan(f"mode {mode!r}, allocator {allocator!r}", "those of the library")
    graph = _graph(stored)
    names = [entry["device"] for entry in (*stored["streams"], *stored["storages"])]
    kind = names[0].rpartition(":")[0] if names else "cpu"
    return Plan(
        graph, kind, mode, allocator,
        tuple(StreamInfo(s["id"], _device(s), s["kind"], s.get("priority", 0))
              for s in stored["streams"]),
        tuple(Step(s["node"], s["stream"], tuple(s["waits"]), s["records"])
              for s in stored["steps"]),
        stored["events"],
        tuple(s["offset"] for s in stored["storages"]),
        {int(name.rpartition(":")[2]): size for name, size in stored["arena_bytes"].items()},
        tuple(() for _ in stored["steps"]),
        tuple(0 for _ in stored["streams"]),
    )  # fmt: skip


def _device(entry: Mapping[str, Any]) -> int:
    return int(entry["device"].rpartition(":")[2])


def _graph(stored: Mapping[str, Any]) -> Graph:
    kinds = {blob["storage"]: blob["kind"] for blob in stored["blobs"]}
    storages = tuple(
        Storage(s["id"], _device(s), s["bytes"], kinds.get(s["id"], "temporary"))
        for s in stored["storages"]
    )
    blobs: dict[str, BlobInfo] = {}
    for blob in stored["blobs"]:
        shape = spec(blob["shape"], blob["dtype"], where="verify")
        strides = contiguous_strides(shape.shape, shape.dtype.itemsize)
        blobs[blob["name"]] = BlobInfo(
            blob["name"], shape, blob["storage"], 0, strides, blob["kind"]
        )
    nodes = tuple(
        Node(n["id"], n["name"], _op(n["op"]), {}, _device(n), tuple(n["reads"]),
             tuple(n["writes"]), tuple(n["after"]), "")
        for n in stored["nodes"]
    )  # fmt: skip
    inputs = tuple(b["name"] for b in stored["blobs"] if b["kind"] == "input")
    return Graph(stored["net"], nodes, blobs, storages, inputs, dict(stored.get("outputs", {})), {})


def _op(kind: str) -> Op:
    """Return an operator that has a name and nothing else."""
    return Op(
        name=kind, kind=kind, doc="", n_inputs=(0, None), infer=_infer, bind=_bind,
        reference=_reference,
    )  # fmt: skip


def _infer(ins: Specs, attrs: Attrs) -> Specs:
    raise InternalError("[verify] a plan read from a file was extended: it can only be checked")


def _bind(xp: Any, ins: Arrays, outs: Arrays, attrs: Attrs, scratch: Arrays) -> Launch:
    raise InternalError("[verify] a plan read from a file was bound: it can only be checked")


def _reference(ins: Arrays, attrs: Attrs) -> tuple[Any, ...]:
    raise InternalError("[verify] a plan read from a file was run: it can only be checked")
