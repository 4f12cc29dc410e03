"""ML of the GrCUDA suite: ridge regression beside naive Bayes, both averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncnet_gpu.demo.nets import ensemble_net

from .plain import softmax
from .workload import Workload, normal, scaled, uniform

N_FEATURES, N_CLASSES = 200, 10


def plain(xp: Any, a: Mapping[str, Any]) -> dict[str, Any]:
    one = softmax(xp, a["x"] @ a["ridge.w"] + a["ridge.b"], axis=1)
    two = softmax(xp, a["x"] @ a["bayes.w"] + a["bayes.b"], axis=1)
    probability = (one + two) * 0.5
    return {"probability": probability, "label": probability.argmax(axis=1)}


def build(scale: float = 1.0) -> Workload:
    rows = scaled(40_000, scale)
    ridge = normal(1, N_FEATURES, N_CLASSES, size=0.3), normal(2, N_CLASSES)
    bayes = normal(3, N_FEATURES, N_CLASSES, size=0.3), normal(4, N_CLASSES)
    net = ensemble_net(rows, ridge, bayes)
    net.name = "ML"
    net.output(net.argmax(net.blob("probability"), axis=1, name="label"))
    return Workload(
        "ML", net, {"x": uniform(5, rows, N_FEATURES)}, plain, hand=("bayes",),
        sizes=f"{rows:,} rows, {N_FEATURES} features, {N_CLASSES} classes",
    )  # fmt: skip
