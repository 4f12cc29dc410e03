"""Chrome traces in Perfetto's own trace processor: what its SQL finds is what the plan says."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.perfetto_sql import TraceProcessor

import asyncnet_gpu as ag
from asyncnet_gpu.backends.base import Slice
from asyncnet_gpu.backends.sim import GPU
from asyncnet_gpu.timeline import Timeline, TracedRun
from asyncnet_gpu.trace.memory import live_bytes
from asyncnet_gpu.trace.path import critical_path, predecessors

N_RUNS = 4
X = np.linspace(-1, 1, 64 * 32, dtype=np.float32).reshape(64, 32)


def towers(devices: int = 1) -> ag.AsyncNet:
    """Four towers of three products, a barrier, a sum: waits with several reasons."""
    net = ag.AsyncNet("towers")
    x = net.input("x", (64, 32), "float32")
    weights = np.eye(32, dtype=np.float32)
    ends = []
    for t in range(4):
        h = x
        with net.device(t % devices):
            for d in range(3):
                h = net.relu(net.matmul(h, net.constant(weights), name=f"m{t}.{d}"))
        ends.append(h)
    met = net.barrier(*ends, name="meet")
    net.output(net.concat(*ends, axis=1, name="y", after=[met]))
    return net


def traced(net: ag.AsyncNet, *, slots: int = 2, **options: object) -> Timeline:
    with net.compile(mode="streams", slots=slots, **options) as exe:  # type: ignore[arg-type]
        exe.run(x=X)
        with exe.trace() as timeline:
            exe.run(x=X)
            runs = [exe.submit(x=X) for _ in range(N_RUNS - 1)]
            for run in runs:
                run.result(20)
    return timeline


class Loaded:
    """A timeline and what Perfetto makes of it."""

    def __init__(self, timeline: Timeline, folder: Path) -> None:
        self.timeline = timeline
        self.plan = timeline.plan
        file = folder / "trace.json"
        timeline.save(file)
        self.json = json.loads(file.read_text())
        self.sql = TraceProcessor(file)

    @property
    def n_steps(self) -> int:
        return sum(len(run.slices) for run in self.timeline.runs)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    timeline = traced(towers(), backend="cpu", allocator="exact")
    trace = Loaded(timeline, tmp_path_factory.mktemp("trace"))
    with trace.sql:
        yield trace


def test_as_many_slices_as_steps_and_a_flow_for_every_wait(loaded: Loaded) -> None:
    assert len(loaded.timeline.runs) == N_RUNS
    assert loaded.plan.n_waits >= 3
    steps = "select count(*) as v from slice where category = 'step'"
    assert loaded.sql.value(steps) == N_RUNS * len(loaded.plan.steps) == loaded.n_steps
    assert loaded.sql.value("select count(*) as v from flow") == N_RUNS * loaded.plan.n_waits


def test_nothing_is_lost_when_the_trace_is_read(loaded: Loaded) -> None:
    lost = loaded.sql.query("select name, value from stats where value > 0 and severity != 'info'")
    assert [(row.name, row.value) for row in lost] == []
    every = loaded.sql.value("select count(*) as v from slice")
    assert every == Counter(e["ph"] for e in loaded.json["traceEvents"])["B"] + loaded.n_steps


def check_flows(trace: Loaded, n_runs: int = N_RUNS) -> None:
    """Every wait is an arrow from the step that records the event to the step that waits."""
    rows = trace.sql.query(
        "select a.name as source, b.name as sink, a.category as c1, b.category as c2, "
        "a.ts + a.dur as leaves, b.ts as arrives from flow "
        "join slice a on a.id = slice_out join slice b on b.id = slice_in"
    )
    plan = trace.plan
    recorder = {s.records: plan.node_of(s).name for s in plan.steps if s.records is not None}
    wanted = Counter(
        (recorder[event], plan.node_of(step).name) for step in plan.steps for event in step.waits
    )
    assert Counter((r.source, r.sink) for r in rows) == {k: n_runs * n for k, n in wanted.items()}
    assert {r.c1 for r in rows} == {r.c2 for r in rows} == {"step"}
    assert all(r.leaves <= r.arrives + 2 for r in rows)  # 2 ns: no slice is empty


def test_flows_lead_from_the_step_that_records_to_the_step_that_waits(loaded: Loaded) -> None:
    check_flows(loaded)


def test_a_process_is_a_slot_and_a_thread_a_stream(loaded: Loaded) -> None:
    rows = loaded.sql.query(
        "select p.name as process, t.name as thread, count(*) as n from slice s "
        "join thread_track k on k.id = s.track_id join thread t using (utid) "
        "join process p using (upid) where s.category = 'step' group by 1, 2"
    )
    runs_of = Counter(run.slot for run in loaded.timeline.runs)
    steps_of = Counter(step.stream for step in loaded.plan.steps)
    wanted = {
        (f"slot {slot}: towers, streams", f"cpu:0/{stream} compute"): n_runs * n_steps
        for slot, n_runs in runs_of.items()
        for stream, n_steps in steps_of.items()
    }
    assert {(r.process, r.thread): r.n for r in rows} == wanted


def test_host_threads_have_tracks_of_their_own(loaded: Loaded) -> None:
    rows = loaded.sql.query(
        "select t.name as thread, s.category as category, count(*) as n from slice s "
        "join thread_track k on k.id = s.track_id join thread t using (utid) "
        "join process p using (upid) where p.name = 'host' group by 1, 2"
    )
    by_category: Counter[str] = Counter()
    for row in rows:
        by_category[row.category] += row.n
    assert by_category["host run"] == loaded.n_steps
    assert by_category["host wait"] == N_RUNS * loaded.plan.n_waits
    assert any(threading.current_thread().name in row.thread for row in rows)


def test_counters_show_the_live_bytes_and_stay_inside_the_arena(loaded: Loaded) -> None:
    rows = loaded.sql.query(
        "select t.name as name, min(value) as low, max(value) as high from counter c "
        "join process_counter_track t on t.id = c.track_id group by 1"
    )
    assert [row.name for row in rows] == ["live cpu:0 bytes"]
    assert rows[0].low == 0
    assert 0 < rows[0].high <= loaded.plan.arena_bytes[0]
    for run in loaded.timeline.runs:
        points = live_bytes(loaded.plan, run)[0]
        assert points[-1][1] == 0
        assert all(0 <= live <= loaded.plan.arena_bytes[0] for _, live in points)


def test_the_critical_path_is_marked_and_has_a_track(loaded: Loaded) -> None:
    paths = [critical_path(loaded.plan, run) for run in loaded.timeline.runs]
    n_critical = sum(map(len, paths))
    marked = (
        "select count(*) as v from slice join args using (arg_set_id) "
        "where key = 'args.critical' and int_value = 1"
    )
    assert loaded.sql.value(marked) == n_critical
    track = "select count(*) as v from slice where category = 'critical path'"
    assert loaded.sql.value(track) == n_critical


def test_steps_tell_operator_shapes_and_waits(loaded: Loaded) -> None:
    (row,) = loaded.sql.query(
        "select count(*) as n, min(a.string_value) as text from slice s "
        "join args a using (arg_set_id) where s.name = 'm1.0' and a.key = 'args.writes[0]'"
    )
    assert (row.n, row.text) == (N_RUNS, "m1.0: float32[64, 32]")
    reasons = loaded.sql.query(
        "select a.string_value as text from slice s join args a using (arg_set_id) "
        "where s.name = 'meet' and a.key like 'args.waits%'"
    )
    assert len(reasons) == N_RUNS * 3
    assert all("RAW relu" in row.text for row in reasons)


def test_copies_between_devices(tmp_path: Path) -> None:
    timeline = traced(towers(devices=2), backend="cpu")
    assert {stream.kind for stream in timeline.plan.streams} == {"compute", "copy"}
    trace = Loaded(timeline, tmp_path)
    with trace.sql as sql:
        steps = "select count(*) as v from slice where category = 'step'"
        assert sql.value(steps) == trace.n_steps
        assert sql.value("select count(*) as v from flow") == N_RUNS * timeline.plan.n_waits
        counters = sql.query("select distinct name from process_counter_track order by name")
        assert [row.name for row in counters] == ["live cpu:0 bytes", "live cpu:1 bytes"]


def test_a_simulated_run(tmp_path: Path) -> None:
    trace = Loaded(traced(towers(), backend="sim", slots=1), tmp_path)
    with trace.sql as sql:
        check_flows(trace)
        issued = "select count(*) as v from slice where category = 'host issue'"
        assert sql.value(issued) == trace.n_steps


def test_steps_that_follow_without_a_gap_and_steps_without_length(tmp_path: Path) -> None:
    net = towers()
    with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
        timeline = Timeline(exe.plan, GPU)
    levels = [0] * len(timeline.plan.steps)
    for index, before in enumerate(predecessors(timeline.plan)):
        levels[index] = max((levels[other] + 1 for other, _ in before), default=0)
    slices = tuple(Slice(i, 1e-6 * level, 1e-6 * (level + 1)) for i, level in enumerate(levels))
    timeline.runs.append(TracedRun(0, 0.0, slices))
    empty = tuple(Slice(i, 1e-6 * level, 1e-6 * level) for i, level in enumerate(levels))
    timeline.runs.append(TracedRun(0, 1.0, empty))
    trace = Loaded(timeline, tmp_path)
    with trace.sql as sql:
        check_flows(trace, 2)
        assert sql.value("select min(dur) as v from slice") > 0


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [1, 2])
def test_on_cuda(slots: int, tmp_path: Path) -> None:
    trace = Loaded(traced(towers(), backend="cuda", slots=slots), tmp_path)
    with trace.sql as sql:
        steps = "select count(*) as v from slice where category = 'step'"
        assert sql.value(steps) == N_RUNS * len(trace.plan.steps)
        check_flows(trace)
        issued = "select count(*) as v from slice where category = 'host issue'"
        assert sql.value(issued) == trace.n_steps
        lost = sql.query("select name from stats where value > 0 and severity != 'info'")
        assert [row.name for row in lost] == []


def test_a_trace_without_runs_is_an_empty_trace() -> None:
    with towers().compile(backend="cpu") as exe, exe.trace() as timeline:
        pass
    assert timeline.to_chrome()["traceEvents"] == []
