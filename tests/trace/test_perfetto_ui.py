"""A trace in the interface of Perfetto itself, in Chromium: the tracks that people will see."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from helpers.chromium import Page
from helpers.perfetto_sql import engine_folder

import asyncnet_gpu as ag


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve Perfetto's interface, and beside it the files of `tmp_path`, on loopback."""
    interface = engine_folder().parent

    class Handler(SimpleHTTPRequestHandler):
        def translate_path(self, path: str) -> str:
            beside = tmp_path / path.split("?")[0].lstrip("/")
            return str(beside) if beside.is_file() else super().translate_path(path)

        def log_message(self, *_: object) -> None:
            pass

    def make(*arguments: object) -> Handler:
        return Handler(*arguments, directory=str(interface))  # type: ignore[arg-type]

    server = ThreadingHTTPServer(("127.0.0.1", 0), make)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
@pytest.mark.slow
def test_perfetto_shows_slots_streams_critical_path_and_memory(
    address: str, tmp_path: Path
) -> None:
    net = ag.AsyncNet("shown")
    x = net.input("x", (64, 64), "float32")
    net.output(net.add(net.matmul(x, x, name="left"), net.softmax(x, name="right")))
    with net.compile(backend="cpu", mode="streams", allocator="exact") as exe:
        with exe.trace() as timeline:
            exe.run(x=np.eye(64, dtype=np.float32))
        timeline.save(tmp_path / "trace.json")
    words = "document.body.innerText"
    with Page(width=1400, height=900) as page:
        page.open(f"{address}/#!/?url={address}/trace.json")
        until = time.monotonic() + 60
        while "slot 0: shown" not in page.value(words) and time.monotonic() < until:
            time.sleep(0.3)
        row = (
            "[...document.querySelectorAll('*')].find(e => e.children.length === 0 && "
            "e.textContent.includes('slot 0: shown')).getBoundingClientRect()"
        )
        x_at, y_at = page.value(f"{row}.x + 5"), page.value(f"{row}.y + 5")
        while "critical path" not in page.value(words) and time.monotonic() < until:
            page.click(x_at, y_at)
            time.sleep(1)
        shown = page.value(words)
        page.screenshot(tmp_path / "perfetto.png")
    for track in ("critical path", "cpu:0/0 compute", "cpu:0/1 compute", "live cpu:0 bytes"):
        assert track in shown
