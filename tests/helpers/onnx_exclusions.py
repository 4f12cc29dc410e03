"""Tests of ONNX's backend suite that we declare not to pass, each with its reason.

Such a test is run all the same: as soon as it passes, the run fails until the line here goes.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Exclusion(NamedTuple):
    """Tests by the whole name, without the device, and why they do not pass."""

    pattern: str
    reason: str


EXCLUSIONS = (
    Exclusion(r"test_image_decoder_.*", "decoding of image files belongs in front of a net"),
    Exclusion(
        r"test_(string|strnorm|regex_full_match|equal_string|ai_onnx_ml_label_encoder).*",
        "strings are not supported",
    ),
    Exclusion(r"test_(loop13_seq|loop16_seq_none)", "a loop whose count a run decides"),
    Exclusion(r"test_(tfidf|ai_onnx_ml_(array|bin|tree)).*", "classical machine learning"),
    Exclusion(
        r"test_(basic_deform|bernoulli|deform|det_|maxunpool|roialign|scatter_with|tensorscatter"
        r"|training_dropout(?!_zero)|gradient).*",
        "no such operator yet",
    ),
    Exclusion(r"test_(attention_4d_causal_fp16|reduce_max_empty_set_bool).*", "wrong"),
)


def exclusion(name: str) -> Exclusion | None:
    """Return what is declared for a test, None where it has to pass."""
    return next((e for e in EXCLUSIONS if re.fullmatch(e.pattern, name)), None)
