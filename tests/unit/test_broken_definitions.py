"""Definitions that somebody else wrote: whatever is in them, the error is one of ours."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.public_net import FUNCTIONS, build

import asyncnet_gpu as ag
from asyncnet_gpu.ops import registry

VALUES: list[Any] = [
    None, -1, 0, 1, 2**70, 1.5, float("nan"), "", "x", "relu", "h", True, [], {}, [1], ["x", "x"],
    {"tuple": [1]}, {"function": "os.system"}, {"array": "@@"}, {"dtype": "q"},
    {"dtype": "object"}, {"scalar": "float32", "value": "z"}, {"scalar": "O", "value": 1},
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def broken(data: Any, rng: random.Random) -> Any:
    """Return a copy in which one or two places are removed or replaced."""
    made = copy.deepcopy(data)
    for _ in range(rng.choice([1, 1, 2])):
        path = rng.choice(list(places(made)))
        holder = made
        for key in path[:-1]:
            holder = holder[key]
        if rng.random() < 0.3:
            del holder[path[-1]]
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(VALUES))
    return made


@pytest.mark.parametrize("block", range(4))
def test_a_broken_definition_is_refused_or_harmless(block: int) -> None:
    data = json.loads(json.dumps(build()[0].to_dict()))
    refused = compiled = 0
    for seed in range(100 * block, 100 * block + 100):
        made = broken(data, random.Random(seed))
        try:
            net = ag.AsyncNet.from_dict(made, functions=FUNCTIONS)
            with net.compile(backend="cpu", mode="streams"):
                compiled += 1
        except ag.AsyncNetError:
            refused += 1
    assert refused > 50
    assert compiled > 3


@pytest.mark.parametrize(
    ("attrs", "text"),
    [
        ({"fn": 3}, "fn: expected a function"),
        ({"shapes": ()}, "outputs"),
        ({"shapes": ((3,), (4,))}, "expected 2 dtypes, got 1"),
        ({"shapes": ((2**40, 2**40),)}, "too large"),
    ],
)
def test_attributes_of_calls_are_checked(attrs: dict[str, Any], text: str) -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    full = {"fn": build, "shapes": ((3,),), "dtypes": ("float32",), **attrs}
    with pytest.raises(ag.ShapeError, match=text):
        net.add_node(registry()["call"], (x,), full)


@pytest.mark.parametrize(
    ("attrs", "text"),
    [
        ({"args": (None, None)}, "args: expected 1 blobs"),
        ({"args": 7}, "args"),
        ({"cpu": "os.system"}, "cpu: expected a function or None"),
        ({"grid": (1, 1)}, "grid: expected three extents"),
        ({"block": (1, 1, 0)}, "block: expected three extents"),
        ({"source": None}, "source: expected text"),
        ({"shared_bytes": -1}, "shared_bytes"),
    ],
)
def test_attributes_of_kernels_are_checked(attrs: dict[str, Any], text: str) -> None:
    net = ag.AsyncNet()
    x = net.input("x", (3,), "float32")
    full = {
        "source": "", "entry": "k", "args": (None,), "grid": (1, 1, 1), "block": (1, 1, 1),
        "shapes": ((3,),), "dtypes": ("float32",), **attrs,
    }  # fmt: skip
    with pytest.raises(ag.ShapeError, match=text):
        net.add_node(registry()["kernel"], (x,), full)
