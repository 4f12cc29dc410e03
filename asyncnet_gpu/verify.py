"""The proof that every plan must pass before it may run.

Nothing here is taken from the planner: happens-before is derived again from steps, streams and
events, dependencies again from what nodes read and write. Checked are, in this order: the form of
the plan; that every dependency is covered by stream order and events; that bytes of the arena are
given to another storage only after every use of the former; and, for exact plans, that no wait is
redundant. O(steps x streams + operands x log).

Reuse of bytes is proven by a sweep in issue order, keeping for every byte range the storage that
holds it. When B takes bytes from A, every use of A must happen before B's first write. All later
uses of B depend on that write (already proven), and whoever takes the bytes from B comes after all
of B: so the order between A and anything later on the same bytes follows, and no pair has to be
compared twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import final

from asyncnet_gpu.errors import VerificationError
from asyncnet_gpu.plan.types import Plan


def verify(plan: Plan) -> None:
    """Prove a plan.

    Raises
    ------
    VerificationError
        With the counter-example: which step may overtake which, over which blob or bytes.
    """
    proof = _Proof(plan)
    proof.check_form()
    proof.build_clocks()
    proof.check_dependencies()
    if plan.mode in ("serial", "graph-serial"):
        proof.check_total_order()
    proof.check_places()
    proof.check_reuse()
    if plan.allocator == "exact" and plan.mode in ("streams", "graph"):
        proof.check_no_redundant_wait()


def _fail(text: str, remedy: str = "This plan must not run; please report it.") -> None:
    raise VerificationError(f"[verify] {text}. {remedy}")


@final
class _Proof:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.graph = plan.graph
        self.storage_of = {name: b.storage for name, b in plan.graph.blobs.items()}
        self.step_of: dict[int, int] = {}
        self.recorder: dict[int, int] = {}
        self.clocks: list[list[int]] = []  # per step: finished positions before it starts
        self.position: list[int] = []  # per step: its own, from 1

    def name(self, step: int) -> str:
        """Say which step this is, for a counter-example."""
        s = self.plan.steps[step]
        node = self.graph.nodes[s.node]
        device = self.plan.device_name(self.plan.streams[s.stream].device)
        return f"step {step} {node.op.kind} {node.name!r} on {device}/{s.stream}"

    def happens_before(self, first: int, then: int) -> bool:
        """Whether step `first` has finished before step `then` starts."""
        return self.clocks[then][self.plan.steps[first].stream] >= self.position[first]

    # -- form --------------------------------------------------------------------------------

    def check_form(self) -> None:
        plan = self.plan
        if sorted(s.node for s in plan.steps) != list(range(len(self.graph.nodes))):
            _fail("steps are not a permutation of the nodes: expected each node once")
        for index, step in enumerate(plan.steps):
            self.step_of[step.node] = index
            if not 0 <= step.stream < len(plan.streams):
                _fail(f"step {index} is on stream {step.stream}: expected one of the plan's")
            if plan.streams[step.stream].device != self.graph.nodes[step.node].device:
                _fail(f"{self.name(index)} runs a node of another device")
            for event in step.waits:
                if event not in self.recorder:
                    _fail(f"{self.name(index)} waits for event {event}: no earlier step records it")
            if step.records is not None:
                if step.records in self.recorder:
                    _fail(f"event {step.records} is recorded twice, again by {self.name(index)}")
                self.recorder[step.records] = index
        if sorted(self.recorder) != list(range(plan.n_events)):
            _fail(f"events recorded are {sorted(self.recorder)}: expected 0..{plan.n_events - 1}")

    def build_clocks(self) -> None:
        n = len(self.plan.streams)
        known = [[0] * n for _ in range(n)]
        for step in self.plan.steps:
            clock = known[step.stream][:]
            for event in step.waits:
                other = self.recorder[event]
                for stream, position in enumerate(self.clocks[other]):
                    if position > clock[stream]:
                        clock[stream] = position
                stream = self.plan.steps[other].stream
                clock[stream] = max(clock[stream], self.position[other])
            self.clocks.append(clock)
            self.position.append(known[step.stream][step.stream] + 1)
            known[step.stream] = clock[:]
            known[step.stream][step.stream] = self.position[-1]

    # -- dependencies ------------------------------------------------------------------------

    def check_dependencies(self) -> None:
        """Each use of a storage comes after the last write; each write after all uses since it."""
        writer: dict[int, int] = {}
        readers: dict[int, list[int]] = {}
        for node in self.graph.nodes:
            step = self.step_of[node.id]
            for other in node.after:
                self._need(self.step_of[other], step, "must come after it by request (after=)")
            written = {self.storage_of[name]: name for name in node.writes}
            for name in node.reads:
                storage = self.storage_of[name]
                if storage in writer:
                    self._need(writer[storage], step, f"reads `{name}`, which the other writes")
                elif self.plan.offsets[storage] is not None:
                    _fail(f"{self.name(step)} reads `{name}` before anything has written it")
                readers.setdefault(storage, []).append(step)
            for storage, name in written.items():
                for reader in readers.pop(storage, ()):
                    if reader != step:
                        self._need(reader, step, f"may overwrite `{name}` while the other reads it")
                if storage in writer:
                    self._need(writer[storage], step, f"writes `{name}`, which the other writes")
                writer[storage] = step

    def _need(self, first: int, then: int, what: str) -> None:
        if not self.happens_before(first, then):
            _fail(
                f"{self.name(then)} {what}: the other is {self.name(first)}, and no path of stream "
                "order and events leads from it to there"
            )

    def check_total_order(self) -> None:
        """A serial plan is the oracle of the others: nothing in it may overlap."""
        for step in range(1, len(self.plan.steps)):
            self._need(step - 1, step, "must come after it in a serial plan")

    # -- memory ------------------------------------------------------------------------------

    def check_places(self) -> None:
        """Offsets inside the arena, views inside their storage, scratch inside its block."""
        plan = self.plan
        for storage in self.graph.storages:
            offset = plan.offsets[storage.id]
            in_arena = storage.kind in ("temporary", "output")
            if offset is None:
                continue
            if offset % plan.alignment:
                _fail(
                    f"storage {storage.id} at byte {offset} breaks the alignment {plan.alignment}"
                )
            size = plan.arena_bytes.get(storage.device, 0)
            if not in_arena or offset < 0 or offset + storage.nbytes > size:
                _fail(
                    f"storage {storage.id} ({storage.kind}) at byte {offset} with "
                    f"{storage.nbytes} bytes lies outside the arena of "
                    f"{plan.device_name(storage.device)} ({size} bytes)"
                )
        names = {n for node in self.graph.nodes for n in (*node.reads, *node.writes)}
        for storage_id in {self.storage_of[n] for n in names}:
            storage = self.graph.storages[storage_id]
            if storage.kind in ("temporary", "output") and plan.offsets[storage_id] is None:
                _fail(f"storage {storage_id} ({storage.kind}) has no place in the arena")
        for blob in self.graph.blobs.values():
            if not blob.spec.size:
                continue
            spans = [(e - 1) * s for e, s in zip(blob.spec.shape, blob.strides, strict=True)]
            low = blob.offset + sum(s for s in spans if s < 0)
            high = blob.offset + sum(s for s in spans if s > 0) + blob.spec.dtype.itemsize
            if low < 0 or high > self.graph.storages[blob.storage].nbytes:
                _fail(f"blob `{blob.name}` reaches outside its storage {blob.storage}")
        self._check_scratch()

    def _check_scratch(self) -> None:
        for index, step in enumerate(self.plan.steps):
            node = self.graph.nodes[step.node]
            wanted = node.op.scratch(
                self.graph.read_specs(node), self.graph.write_specs(node), node.attrs,
                self.plan.device_kind,
            )  # fmt: skip
            end = 0
            for spec, offset in zip(wanted, self.plan.scratch[index], strict=True):
                if offset < end or offset + spec.nbytes > self.plan.scratch_bytes[step.stream]:
                    _fail(f"{self.name(index)} has overlapping or too little scratch memory")
                end = offset + spec.nbytes

    def check_reuse(self) -> None:
        """Sweep the arenas in issue order; see the module's docstring for why this is enough."""
        users: dict[int, list[int]] = {}
        for index, step in enumerate(self.plan.steps):
            node = self.graph.nodes[step.node]
            for storage in {self.storage_of[n] for n in (*node.reads, *node.writes)}:
                if self.plan.offsets[storage] is not None:
                    users.setdefault(storage, []).append(index)
        maps: dict[int, _Bytes] = {}
        for storage, steps in sorted(users.items(), key=lambda item: item[1][0]):
            info = self.graph.storages[storage]
            offset = self.plan.offsets[storage]
            assert offset is not None
            holders = maps.setdefault(info.device, _Bytes()).claim(
                offset, offset + info.nbytes, storage
            )
            for holder in holders:
                self._check_taken_over(holder, users[holder], storage, steps[0])

    def _check_taken_over(self, old: int, users: list[int], new: int, first: int) -> None:
        if self.graph.storages[old].kind == "output":
            _fail(f"{self.name(first)} overwrites the bytes of an output (storage {old})")
        for user in users:
            if not self.happens_before(user, first):
                blobs = [n for n, s in self.storage_of.items() if s == old]
                _fail(
                    f"{self.name(first)} may overwrite `{blobs[0]}` while {self.name(user)} uses "
                    f"it: storages {old} and {new} share bytes and no path of stream order and "
                    "events leads from the one to the other"
                )

    # -- exactness ---------------------------------------------------------------------------

    def check_no_redundant_wait(self) -> None:
        """Each wait must tell its step something that stream order and its other waits do not."""
        last: dict[int, int] = {}
        for index, step in enumerate(self.plan.steps):
            before, last[step.stream] = last.get(step.stream), index
            for event in step.waits:
                other = self.recorder[event]
                stream, position = self.plan.steps[other].stream, self.position[other]
                told = [
                    max(self.clocks[o][stream], self.position[o] if same else 0)
                    for e in step.waits
                    if e != event
                    for o in [self.recorder[e]]
                    for same in [self.plan.steps[o].stream == stream]
                ]
                if before is not None:
                    told.append(self.clocks[before][stream])
                if max(told, default=0) >= position:
                    _fail(f"{self.name(index)} waits for event {event} although it need not")


@final
class _Bytes:
    """Which storage holds which byte range: sorted, disjoint pieces."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.holders: list[int] = []

    def claim(self, start: int, end: int, holder: int) -> list[int]:
        """Give [start, end) to `holder`; return who held parts of it."""
        if start == end:
            return []
        low = bisect_right(self.ends, start)
        high = bisect_left(self.starts, end)
        former = list(dict.fromkeys(self.holders[low:high]))
        starts, ends, holders = [start], [end], [holder]
        if low < high:
            if self.starts[low] < start:
                starts.insert(0, self.starts[low])
                ends.insert(0, start)
                holders.insert(0, self.holders[low])
            if self.ends[high - 1] > end:
                starts.append(end)
                ends.append(self.ends[high - 1])
                holders.append(self.holders[high - 1])
        self.starts[low:high] = starts
        self.ends[low:high] = ends
        self.holders[low:high] = holders
        return former
