"""A file of nets for the command line, as a user would write it."""

from __future__ import annotations

from pathlib import Path

TEXT = """
import numpy as np

import asyncnet_gpu as ag


def towers():
    net = ag.AsyncNet("towers")
    x = net.input("x", (16, 32), "float32")
    weights = np.eye(32, dtype=np.float32)
    ends = []
    for t in range(3):
        h = x
        for d in range(2):
            h = net.matmul(h, net.constant(weights), name=f"m{t}.{d}")
            h = net.relu(h, name=f"r{t}.{d}")
        ends.append(h)
    net.output(net.concat(*ends, axis=1, name="y"))
    return net


def chain():
    net = ag.AsyncNet("chain")
    h = net.input("x", (1 << 16,), "float32")
    for i in range(5):
        h = net.sigmoid(h, name=f"s{i}")
    net.output(h)
    return net
"""


def write_nets(folder: Path) -> Path:
    """Write the file and return its path."""
    file = folder / "nets_of_the_user.py"
    file.write_text(TEXT)
    return file
