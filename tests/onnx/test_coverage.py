"""Which operators of ONNX are known in every operator set that we read; each of them, broken."""

import random
from collections import Counter, defaultdict

import pytest
from helpers import onnx_fuzz
from helpers.onnx_mutate import mutated
from onnx import defs
from onnx.backend.test.loader import load_model_tests

from asyncnet_gpu.onnx import mapping

OLDEST = 7
#: Operators of the default domain that have no translation, and why.
UNKNOWN = {
    "ImageDecoder": "decoding of image files belongs in front of a net",
    "MaxRoiPool": "superseded by RoiAlign",
    "RegexFullMatch": "a pattern from an untrusted file can keep Python's re busy for ever",
}


def schemas():
    """Return the versions of each operator of the default domain."""
    found = defaultdict(list)
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name].append(schema)
    return found


def is_known(name, history, opset):
    """Whether a node is translated, defined as a function of simpler ones, or not there at all."""
    current = max((s for s in history if s.since_version <= opset),
                  key=lambda s: s.since_version, default=None)  # fmt: skip
    if current is None or current.deprecated or mapping.find("", name, opset):
        return True
    return current.has_function or current.has_context_dependent_function


def test_every_operator_is_known_in_every_set_or_declared():
    newest = defs.onnx_opset_version()
    missing = {
        name
        for name, history in schemas().items()
        if not all(is_known(name, history, opset) for opset in range(OLDEST, newest + 1))
    }
    assert missing == set(UNKNOWN)


def test_every_translation_is_of_an_operator_that_exists():
    known = {s.name if s.domain == "" else f"{s.domain}::{s.name}"
             for s in defs.get_all_schemas_with_history()}  # fmt: skip
    assert set(mapping.entries()) - known == set()


class SuiteModels:
    """The models of ONNX's suite as a corpus for the mutations: every operator is among them."""

    def __init__(self):
        self.small = [t.model.SerializeToString() for t in load_model_tests(kind="node")
                      if t.model is not None and "_expanded" not in t.name]  # fmt: skip

    def choose(self, rng):
        return rng.choice(self.small)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_operator_broken_is_loaded_or_refused():
    models = SuiteModels()
    verdicts = Counter(onnx_fuzz.check(mutated(random.Random(seed), models))
                       for seed in range(2_000_000, 2_000_600))  # fmt: skip
    refused = sum(n for verdict, n in verdicts.items() if verdict.startswith("refused"))
    # Both happen: otherwise the mutations are too harsh or too timid to show anything.
    assert 200 < refused < 550
    assert verdicts["run"] > 50
