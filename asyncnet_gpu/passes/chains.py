"""Join elementwise nodes into chains that go through memory once.

For the CPU, where a pass over an array larger than the cache costs more than its arithmetic. What
is joined: a path of nodes of one shape, of which all but the last are read by the others alone. So
no concurrency is taken away. Two neighbours that both cost more arithmetic than memory stay apart,
since joining saves them nothing; and so do nodes that read an input of the net: they are bound anew
for each array of the caller, and binding a chain takes longer.

Source: loop fusion as in Allen and Kennedy, "Optimizing Compilers for Modern Architectures", 2001,
section 6.2.
"""

from __future__ import annotations

from dataclasses import replace

from asyncnet_gpu.graph import PERSISTENT_KINDS, Gone, Graph, Node, keep_nodes
from asyncnet_gpu.ops.activations import OPS as ACTIVATIONS
from asyncnet_gpu.ops.bitwise import OPS as BITWISE
from asyncnet_gpu.ops.chain import Member, make_chain
from asyncnet_gpu.ops.elementwise import OPS as ELEMENTWISE
from asyncnet_gpu.ops.remainder import OPS as REMAINDER
from asyncnet_gpu.passes.users import Users, covers

_ELEMENTWISE = frozenset(op.name for op in (*ELEMENTWISE, *ACTIVATIONS, *BITWISE, *REMAINDER))

#: Smaller arrays stay in the cache from one node to the next anyhow.
SMALLEST_JOINED_BYTES = 1 << 17

#: Operations for each element that a pass over memory leaves time for.
MOST_CHEAP_FLOPS = 6

#: So that a chain is still a step that others can wait for.
LONGEST_CHAIN = 32


class _Chains:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = Users(graph)
        self.producer = {name: node for node in graph.nodes for name in node.writes}
        self.taken: set[int] = set()

    def joins(self, node: Node) -> bool:
        """Whether a node may be part of a chain at all."""
        blobs, storages = self.graph.blobs, self.graph.storages
        if node.op.name not in _ELEMENTWISE or node.id in self.taken:
            return False
        out = blobs[node.writes[0]]
        return (
            out.spec.nbytes >= SMALLEST_JOINED_BYTES
            and out.kind not in PERSISTENT_KINDS
            and covers(self.graph, out)
            and self.users.writers[out.storage] == [node.id]
            and self.users.ordered_freely(node)
            and all(storages[blobs[name].storage].kind != "input" for name in node.reads)
        )

    def goes_before(self, node: Node, chain: set[int], head: Node, last: Node) -> bool:
        """Whether a node that `head` reads can be computed together with the chain."""
        out = node.writes[0]
        shape = self.graph.blobs[last.writes[0]].spec.shape
        return (
            self.joins(node)
            and node.device == last.device
            and self.graph.blobs[out].spec.shape == shape
            and (self.is_cheap(node) or self.is_cheap(head))
            and self.users.only_between(out, node.id, chain)
            and all(self.users.steady(name, node.id, last.id) for name in node.reads)
        )

    def is_cheap(self, node: Node) -> bool:
        """Whether the node waits for memory more than for arithmetic."""
        (out,) = self.graph.write_specs(node)
        cost = node.op.cost(self.graph.read_specs(node), (out,), node.attrs)
        return cost.flops <= MOST_CHEAP_FLOPS * out.size

    def grown_from(self, last: Node) -> list[Node]:
        """Return the nodes of the chain that ends in `last`, in program order."""
        found, chain = [last], {last.id}
        while len(found) < LONGEST_CHAIN:
            # Only what the head reads: then no two members could have run at the same time.
            before = [p for p in self.producers(found[-1]) if p.id not in chain]
            before = [p for p in before if self.goes_before(p, chain, found[-1], last)]
            if not before:
                break
            found.append(max(before, key=lambda p: p.id))
            chain.add(found[-1].id)
        return found[::-1]

    def producers(self, node: Node) -> list[Node]:
        return [self.producer[name] for name in node.reads if name in self.producer]

    def join(self, nodes: list[Node]) -> Node:
        """Return the node that does the work of all, in the place of the last."""
        graph, last = self.graph, nodes[-1]
        made = {node.writes[0]: i for i, node in enumerate(nodes)}
        inputs = list(dict.fromkeys(r for node in nodes for r in node.reads if r not in made))
        position = {name: i for i, name in enumerate(inputs)}
        position |= {name: len(inputs) + i for name, i in made.items()}
        members = [
            Member(
                node.op,
                node.attrs,
                tuple([position[name] for name in node.reads]),
                graph.blobs[node.writes[0]].spec.dtype,
            )
            for node in nodes
        ]
        specs = tuple([graph.blobs[name].spec for name in inputs])
        op = make_chain(members, specs, graph.blobs[last.writes[0]].spec)
        return replace(last, op=op, attrs={}, reads=tuple(inputs))


def join_chains(graph: Graph) -> Graph:
    """Replace elementwise nodes that feed one another by chains; O(nodes + operands)."""
    chains = _Chains(graph)
    nodes, keep = list(graph.nodes), [True] * len(graph.nodes)
    gone: dict[int, Gone] = {}
    for node in reversed(graph.nodes):
        if not chains.joins(node):
            continue
        found = chains.grown_from(node)
        chains.taken.update(member.id for member in found)
        if len(found) > 1:
            nodes[node.id] = chains.join(found)
            for member in found[:-1]:
                keep[member.id] = False
                gone[member.id] = Gone(f"computed together with {node.name!r}", node.name)
    if all(keep):
        return graph
    changed = replace(graph, nodes=tuple(nodes))
    return keep_nodes(changed, keep, graph.values, gone)
