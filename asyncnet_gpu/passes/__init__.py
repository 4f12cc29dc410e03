"""Graph to Graph, one pass a file. Each keeps what a run can observe: outputs, states, barriers."""

from __future__ import annotations

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.passes.affine import fold_affine
from asyncnet_gpu.passes.chains import join_chains
from asyncnet_gpu.passes.constants import fold_constants
from asyncnet_gpu.passes.finish import finish_convolutions
from asyncnet_gpu.passes.inplace import share_dying_inputs
from asyncnet_gpu.passes.prune import drop_dead_nodes

__all__ = [
    "drop_dead_nodes",
    "fold_affine",
    "fold_constants",
    "join_chains",
    "run_passes",
    "share_dying_inputs",
]


def run_passes(graph: Graph, device_kind: str = "") -> Graph:
    """Apply every pass in its order; some are for one kind of device."""
    graph = fold_constants(graph)
    graph = drop_dead_nodes(graph)
    graph = fold_affine(graph)
    if device_kind == "cpu":
        graph = finish_convolutions(graph)
        graph = join_chains(graph)
    return share_dying_inputs(graph)
