"""A place in the arena for every temporary: liveness over happens-before, not over list order.

Two storages may share bytes only when every use of the one has finished before the node that first
writes the other begins; the clocks of `sync` say so. Later uses of the other depend on that first
write, so nothing else has to be checked.

Placing in issue order, best fit into dead bytes, is near-linear and good; where it leaves much over
the largest sum of live bytes, placing by size (largest first, lowest gap that no conflicting
storage covers) is tried as well and the smaller arena kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncnet_gpu.graph import Graph
from asyncnet_gpu.plan.sync import Synchronised

_GOOD_ENOUGH = 1.05
#: Placing by size compares all pairs: only for nets up to this many storages.
_MOST_BY_SIZE_SERIAL = 6000
_MOST_BY_SIZE = 700


@dataclass(slots=True)
class _Item:
    """A storage to be placed: aligned size, first writer's step, and its last use per stream."""

    storage: int
    nbytes: int
    born: int
    dies: int  # last step in issue order; past the end for outputs
    last: dict[int, int]  # last position on each stream that uses it
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets of all storages (None: not in an arena) and the size of each device's arena."""

    offsets: tuple[int | None, ...]
    arena_bytes: dict[int, int]


def _items(graph: Graph, sync: Synchronised, alignment: int) -> list[_Item]:
    storage_of = {name: blob.storage for name, blob in graph.blobs.items()}
    arena = [s.kind in ("temporary", "output") for s in graph.storages]
    found: dict[int, _Item] = {}
    for index, step in enumerate(sync.steps):
        node = graph.nodes[step.node]
        for storage in {storage_of[n] for n in (*node.reads, *node.writes)}:
            if not arena[storage]:
                continue
            item = found.get(storage)
            if item is None:
                size = graph.storages[storage].nbytes
                aligned = max(alignment, -(-size // alignment) * alignment)
                item = found[storage] = _Item(storage, aligned, index, index, {})
            item.dies = index
            item.last[step.stream] = sync.positions[index]
    for item in found.values():
        if graph.storages[item.storage].kind == "output":
            item.dies = len(sync.steps)
    return sorted(found.values(), key=lambda i: i.born)


def most_live_bytes(items: Sequence[Any]) -> int:
    """Return the largest sum of sizes alive at a time in issue order."""
    changes: dict[int, int] = {}
    for item in items:
        changes[item.born] = changes.get(item.born, 0) + item.nbytes
        changes[item.dies + 1] = changes.get(item.dies + 1, 0) - item.nbytes
    live = most = 0
    for _, change in sorted(changes.items()):
        live += change
        most = max(most, live)
    return most


class _Block:
    """Dead bytes: [start, end) and, for each stream that used them, the last use."""

    __slots__ = ("end", "last", "start")

    def __init__(self, start: int, end: int, last: tuple[tuple[int, int], ...]) -> None:
        self.start, self.end, self.last = start, end, last


def _place_in_order(items: list[_Item], clocks: list[list[int]]) -> tuple[list[int], int]:
    """Best fit in issue order; returns offsets and the arena's size."""
    dying: dict[int, list[_Item]] = {}
    for item in items:
        dying.setdefault(item.dies, []).append(item)
    deaths = sorted(dying)
    free: list[_Block] = []
    top, next_death = 0, 0
    offsets = []
    serial = bool(clocks) and len(clocks[0]) == 1
    for item in items:
        while next_death < len(deaths) and deaths[next_death] < item.born:
            for dead in dying[deaths[next_death]]:
                last = tuple(dead.last.items())
                _release(free, _Block(dead.offset, dead.offset + dead.nbytes, last), serial)
            next_death += 1
        offset = _best_fit(free, item.nbytes, clocks[item.born], serial, top)
        if offset is None:
            offset = top
        _take(free, offset, offset + item.nbytes)
        top = max(top, offset + item.nbytes)
        item.offset = offset
        offsets.append(offset)
    return offsets, top


def _release(free: list[_Block], block: _Block, merge: bool) -> None:
    low, high = 0, len(free)
    while low < high:
        middle = (low + high) // 2
        if free[middle].start < block.start:
            low = middle + 1
        else:
            high = middle
    if merge:  # one stream: whatever is dead is available, neighbours become one block
        if low < len(free) and free[low].start == block.end:
            block.end = free.pop(low).end
        if low and free[low - 1].end == block.start:
            free[low - 1].end = block.end
            return
    free.insert(low, block)


def _best_fit(
    free: list[_Block], nbytes: int, clock: list[int], serial: bool, top: int
) -> int | None:
    """Return the start of the smallest run of available bytes that is large enough.

    A run that ends at the top of the arena may be too small: the arena then grows by the rest.
    """
    best, best_size = None, 1 << 62
    start = end = -1
    at_top: int | None = None
    for block in (*free, None):
        usable = block is not None
        if block is not None and not serial:
            for stream, position in block.last:
                if clock[stream] < position:  # this use may not have finished
                    usable = False
                    break
        if usable and block is not None and block.start == end:
            end = block.end
            continue
        if start >= 0:
            if nbytes <= end - start < best_size:
                best, best_size = start, end - start
            if end == top:
                at_top = start
        start, end = (block.start, block.end) if usable and block is not None else (-1, -1)
    return at_top if best is None else best


def _take(free: list[_Block], start: int, end: int) -> None:
    """Cut [start, end) out of the free blocks."""
    kept: list[_Block] = []
    changed = False
    for block in free:
        if block.end <= start or block.start >= end:
            kept.append(block)
            continue
        changed = True
        if block.start < start:
            kept.append(_Block(block.start, start, block.last))
        if block.end > end:
            kept.append(_Block(end, block.end, block.last))
    if changed:
        free[:] = kept


def _place_by_size(items: list[_Item], sync: Synchronised) -> tuple[list[int], int]:
    """Largest first, each at the lowest offset that no conflicting placed storage covers."""
    n = len(items)
    order = sorted(range(n), key=lambda i: (-items[i].nbytes, items[i].born))
    clocks = np.array([sync.clocks[i.born] for i in items], np.int64).reshape(n, -1)
    last = np.zeros_like(clocks)
    for row, item in zip(last, items, strict=True):
        for stream, position in item.last.items():
            row[stream] = position
        if item.dies == len(sync.steps):  # an output: never free again
            row[:] = 1 << 62
    starts = np.zeros(n, np.int64)
    ends = np.zeros(n, np.int64)
    rank_clocks, rank_last = clocks[order], last[order]
    for rank, index in enumerate(order):
        size = items[index].nbytes
        before = (rank_last[:rank] <= clocks[index]).all(axis=1)
        after = (rank_clocks[:rank] >= last[index]).all(axis=1)
        conflicts = np.nonzero(~(before | after))[0]
        offset = 0
        by_start = conflicts[np.argsort(starts[conflicts], kind="stable")]
        for start, end in zip(starts[by_start].tolist(), ends[by_start].tolist(), strict=True):
            if start - offset >= size:
                break
            offset = max(offset, end)
        starts[rank], ends[rank] = offset, offset + size
    offsets = [0] * n
    for rank, index in enumerate(order):
        offsets[index] = int(starts[rank])
    return offsets, int(ends.max(initial=0))


def lay_out(graph: Graph, sync: Synchronised, alignment: int) -> Layout:
    """Give every temporary and output an offset in the arena of its device."""
    offsets: list[int | None] = [None] * len(graph.storages)
    arenas: dict[int, int] = {}
    by_device: dict[int, list[_Item]] = {}
    for item in _items(graph, sync, alignment):
        by_device.setdefault(graph.storages[item.storage].device, []).append(item)
    n_streams = len(sync.clocks[0]) if sync.clocks else 1
    limit = _MOST_BY_SIZE_SERIAL if n_streams == 1 else _MOST_BY_SIZE
    for device, items in sorted(by_device.items()):
        chosen, size = _place_in_order(items, sync.clocks)
        if size > _GOOD_ENOUGH * most_live_bytes(items) and len(items) <= limit:
            other, other_size = _place_by_size(items, sync)
            if other_size < size:
                chosen, size = other, other_size
        arenas[device] = size
        for item, offset in zip(items, chosen, strict=True):
            offsets[item.storage] = offset
    return Layout(tuple(offsets), arenas)


def lay_out_scratch(
    graph: Graph, sync: Synchronised, n_streams: int, device_kind: str, alignment: int
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """Return, for each step, offsets of its temporaries, and each stream's scratch size.

    Steps of one stream never overlap: they all begin at 0.
    """
    sizes = [0] * n_streams
    offsets = []
    for step in sync.steps:
        node = graph.nodes[step.node]
        wanted = node.op.scratch(
            graph.read_specs(node), graph.write_specs(node), node.attrs, device_kind
        )
        top, mine = 0, []
        for spec in wanted:
            mine.append(top)
            top += -(-spec.nbytes // alignment) * alignment
        offsets.append(tuple(mine))
        sizes[step.stream] = max(sizes[step.stream], top)
    return tuple(offsets), tuple(sizes)
