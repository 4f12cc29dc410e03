"""Compiled kernels are kept on disk by what they were compiled from: headers belong to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import asyncnet_gpu as ag

pytestmark = pytest.mark.gpu


def test_another_header_is_another_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncnet_gpu.backends.cuda import launch

    for file in launch.kernel_folder().glob("*.cu*"):
        (tmp_path / file.name).write_text(file.read_text())
    header = tmp_path / "elementwise_functions.cuh"
    monkeypatch.setattr(launch, "kernel_folder", lambda: tmp_path)
    cached = launch.load_function, launch.kernel_source, launch.header_version
    net = ag.AsyncNet("square")
    net.output(y=net.square(net.input("x", (3,), "float32")))
    found = []
    try:
        for formula in ("x + C(7)", "x + C(8)"):
            text = header.read_text().splitlines()
            text = [f"UNARY(Square, {formula})" if "UNARY(Square," in t else t for t in text]
            header.write_text("\n".join(text) + "\n")
            for function in cached:  # as in a new process
                function.cache_clear()
            with net.compile(backend="cuda") as exe:
                found.append(ag.to_numpy(exe.run(x=np.ones(3, np.float32))["y"]).tolist())
    finally:
        for function in cached:
            function.cache_clear()
    assert found == [[8, 8, 8], [9, 9, 9]]
