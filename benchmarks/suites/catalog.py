"""Which workload belongs to which suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from ..nets import (
    bert,
    black_scholes,
    cg,
    chains,
    dl,
    hits,
    img,
    inception,
    ml,
    nasnet,
    randwire,
    squeezenet,
    taskbench,
    vec,
    wavefront,
)
from ..nets.workload import Workload

Build = Callable[[float], Workload]

#: Suites whose rows are workloads in every mode beside rivals.
WORKLOADS: Mapping[str, Mapping[str, Build]] = {
    "grcuda": {
        "VEC": vec.build,
        "B&S": black_scholes.build,
        "ML": ml.build,
        "HITS": hits.build,
        "IMG": img.build,
        "CG": cg.build,
        "DL": dl.build,
    },
    "interop": {
        "inception block": inception.build,
        "NASNet cells": nasnet.build,
        "RandWire": randwire.build,
        "BERT block": bert.build,
        "SqueezeNet": squeezenet.build,
    },
    "wavefront": {"LSTM wavefront": wavefront.build},
    "taskbench": {
        f"taskbench {p}": partial(taskbench.build, pattern=p) for p in taskbench.PATTERNS
    },
    "launch": {"chain": chains.chain, "eight chains": chains.eight_chains},
}
#: All suites: the last two have tables of their own.
SUITES = (*WORKLOADS, "requests", "overhead")
