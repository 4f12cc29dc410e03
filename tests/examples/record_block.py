"""Record what PyTorch exports and computes, for machines without it; needs torch and onnxscript.

python tests/examples/record_block.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx

FOLDER = Path(__file__).resolve().parent / "data"
sys.path[:0] = [str(FOLDER.parents[2])]

if __name__ == "__main__":
    from examples import pytorch_model

    path = FOLDER / "block.onnx"
    FOLDER.mkdir(exist_ok=True)
    made = pytorch_model.main("cpu", path)
    model = onnx.load(path)
    # The exporter notes where it ran: stack traces with paths of the machine.
    for entry in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del entry.metadata_props[:]
    for entry in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del entry.metadata_props[:]
    onnx.save(model, path)
    np.savez(path.with_suffix(".npz"), x=made["x"], y=made["theirs"])
