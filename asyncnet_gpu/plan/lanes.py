"""What both allocators share: which streams a node may go to, and their answer."""

from __future__ import annotations

from dataclasses import dataclass

from asyncnet_gpu.graph import Graph, Node
from asyncnet_gpu.plan.types import StreamInfo

#: Copy streams of a receiving device where streams are counted: its link is one.
COPY_STREAMS = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """Result of an allocator.

    Attributes
    ----------
    streams
        Streams in use.
    stream_of
        For each node its stream.
    order
        Node ids in issue order, topological.
    """

    streams: tuple[StreamInfo, ...]
    stream_of: list[int]
    order: list[int]


def lane_kinds(graph: Graph) -> list[tuple[int, str]]:
    """Return for every node the device and kind of stream that it needs.

    Copies between devices have streams of their own on the receiving device.
    """
    kinds = []
    for node in graph.nodes:
        kinds.append((node.device, "copy" if is_transfer(graph, node) else "compute"))
    return kinds


def is_transfer(graph: Graph, node: Node) -> bool:
    """Whether a node moves a blob between devices."""
    if node.op.name != "copy":
        return False
    source = graph.storages[graph.blobs[node.reads[0]].storage]
    return source.device != node.device


def serial(graph: Graph) -> Assignment:
    """One stream per device, program order."""
    devices = sorted({node.device for node in graph.nodes}) or [0]
    index = {device: i for i, device in enumerate(devices)}
    streams = tuple(StreamInfo(i, device, "compute") for i, device in enumerate(devices))
    return Assignment(
        streams, [index[n.device] for n in graph.nodes], list(range(len(graph.nodes)))
    )
