# Run with:  python examples/pytorch_model.py [--backend cpu|cuda]
# Needs PyTorch and its exporter:  pip install "asyncnet-gpu[onnx]" torch onnxscript
"""Export a PyTorch model to ONNX, run it here, and get PyTorch's numbers."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import asyncnet_gpu as ag

SHAPE = (2, 3, 32, 32)


def build_model() -> Any:
    """Return a block of two convolutions side by side, a residual, pooling and a head."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.narrow = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU())
            self.wide = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU())
            self.head = nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            both = torch.cat([self.narrow(x), self.wide(x)], dim=1)
            return self.head(both.mean(dim=(2, 3))).softmax(dim=1)

    torch.manual_seed(0)
    return Block().eval()


def export(model: Any, path: Path) -> None:
    """Write the model as ONNX."""
    import torch

    torch.onnx.export(
        model, (torch.zeros(SHAPE),), path, input_names=["x"], output_names=["y"],
        dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


def run(path: Path, x: np.ndarray, backend: str) -> np.ndarray:
    """Run an ONNX file with input "x" and output "y"."""
    net = ag.load_onnx(path)
    print(net)
    with net.compile(backend=backend, mode="streams") as exe:
        return ag.to_numpy(exe.run(x=x)["y"])


def main(backend: str = "cpu", save: Path | None = None) -> dict[str, Any]:
    """Compare the exported model with PyTorch; `save` names the file if it is to be kept."""
    import torch

    model = build_model()
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    with torch.no_grad():
        theirs = model(torch.from_numpy(x)).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = save or Path(folder, "block.onnx")
        export(model, path)
        ours = run(path, x, backend)
    print(f"largest difference from PyTorch: {np.abs(ours - theirs).max():.1e}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    return {"x": x, "ours": ours, "theirs": theirs}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--save", type=Path, metavar="FILE.onnx", help="keep the model")
    arguments = parser.parse_args()
    main(arguments.backend, arguments.save)
