"""Real models: those inside PyPI packages, and architectures exported with random weights.

The packages of requirements/models.txt are read as files; nothing of them is imported.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Inputs = dict[str, Array]

#: Exported architectures are kept here: a build output.
EXPORTED = Path(__file__).parents[2] / "build" / "models"


@dataclass(frozen=True, slots=True)
class Model:
    """A model file and one set of inputs of a usual size.

    Attributes
    ----------
    package, file
        Distribution and path inside it; or "" and the name of an exported architecture.
    make
        Inputs from a seeded generator.
    fixed
        Inputs that are settings (a sampling rate): fixed when loading.
    chooses
        The last axis of each output holds scores of which the largest counts.
    """

    name: str
    package: str
    file: str
    make: Callable[[np.random.Generator], Inputs]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    chooses: bool = False

    @property
    def path(self) -> Path:
        """Where the file lies; raises `FileNotFoundError` when it has to be got first."""
        if not self.package:
            found = EXPORTED / f"{self.file}.onnx"
            if not found.exists():
                raise FileNotFoundError(f"{found.name}: python -m benchmarks.models --export")
            return found
        return package_file(self.package, self.file)

    def inputs(self, seed: int = 0) -> Inputs:
        """Inputs that the model takes, without the fixed ones."""
        return self.make(np.random.default_rng(seed))


def package_file(package: str, file: str) -> Path:
    """Return a file of an installed distribution, without importing it."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise FileNotFoundError(f"{package}: pip install -r requirements/models.txt") from error
    for entry in files:
        if entry.as_posix() == file:
            return Path(str(entry.locate()))
    raise FileNotFoundError(f"{package} has no {file}")


def _floats(name: str, *shape: int, scale: float = 1.0) -> Callable[[np.random.Generator], Inputs]:
    def make(random: np.random.Generator) -> Inputs:
        return {name: (scale * random.standard_normal(shape)).astype(np.float32)}

    return make


def _voice(*states: tuple[str, tuple[int, ...]], batch: int = 1) -> Callable[..., Inputs]:
    """36 ms of noise at 16 kHz: 64 samples of the window before and 512 new ones."""

    def make(random: np.random.Generator) -> Inputs:
        sound = 0.1 * random.standard_normal((batch, 576))
        zeros = {name: np.zeros(shape, np.float32) for name, shape in states}
        return {"input": sound.astype(np.float32), **zeros}

    return make


def _bytes(random: np.random.Generator) -> Inputs:
    return {"bytes": random.integers(0, 257, (1, 2048)).astype(np.int32)}


_STATE = ("state", (2, 1, 128))
_HIDDEN = (("h", (1, 1, 128)), ("c", (1, 1, 128)))
_RATE = {"sr": np.array(16000, np.int64)}
_VAD, _OCR = "silero_vad/data", "rapidocr_onnxruntime/models"

PACKAGED = (
    Model("basic_pitch", "basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx",
          _floats("serving_default_input_2:0", 1, 43844, 1, scale=0.1), chooses=True),
    Model("silero_vad", "silero-vad", f"{_VAD}/silero_vad.onnx", _voice(_STATE), _RATE),
    Model("silero_vad_16k_op15", "silero-vad", f"{_VAD}/silero_vad_16k_op15.onnx",
          _voice(_STATE), _RATE),
    Model("silero_vad_16k_sequence", "silero-vad", f"{_VAD}/silero_vad_16k_sequence.onnx",
          _voice(*_HIDDEN, batch=31)),
    Model("silero_vad_half", "silero-vad", f"{_VAD}/silero_vad_half.onnx", _voice(_STATE)),
    Model("silero_vad_op18_ifless", "silero-vad", f"{_VAD}/silero_vad_op18_ifless.onnx",
          _voice(_STATE), _RATE),
    Model("silero_vad_openvino", "silero-vad", f"{_VAD}/silero_vad_openvino_16k.onnx",
          _voice(_STATE)),
    Model("ocr_det", "rapidocr-onnxruntime", f"{_OCR}/ch_PP-OCRv4_det_infer.onnx",
          _floats("x", 1, 3, 480, 640)),
    Model("ocr_rec", "rapidocr-onnxruntime", f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx",
          _floats("x", 1, 3, 48, 320), chooses=True),
    Model("ocr_cls", "rapidocr-onnxruntime", f"{_OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx",
          _floats("x", 1, 3, 48, 192), chooses=True),
    Model("magika", "magika", "magika/models/standard_v3_3/model.onnx", _bytes, chooses=True),
)  # fmt: skip

#: Architecture to the side of its input picture.
_SIDES = {"googlenet": 224, "inception_v3": 299, "nasnetalarge": 331, "resnet50": 224}

EXPORTS = tuple(
    Model(name, "", name, _floats("x", 1, 3, side, side), chooses=True)
    for name, side in _SIDES.items()
)

MODELS: Mapping[str, Model] = {model.name: model for model in (*PACKAGED, *EXPORTS)}


def export(name: str) -> Path:
    """Export an architecture of torchvision or timm with random weights, once.

    torch, torchvision and timm are needed for this alone.
    """
    import torch

    goal = EXPORTED / f"{name}.onnx"
    if goal.exists():
        return goal
    EXPORTED.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    module = _architecture(name)
    side = _SIDES[name]
    part = goal.with_suffix(".part")
    torch.onnx.export(
        module.eval(), (torch.zeros(1, 3, side, side),), str(part), dynamo=False,
        opset_version=17, input_names=["x"], output_names=["y"],
    )  # fmt: skip
    part.rename(goal)
    return goal


def _architecture(name: str) -> Any:
    if "torchvision" not in sys.modules:
        _declare_operators()
    if name == "nasnetalarge":
        import timm

        return timm.create_model(name, pretrained=False)
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if name != "resnet50":
        options |= {"aux_logits": False, "init_weights": False}
    return getattr(torchvision.models, name)(**options)


def _declare_operators() -> None:
    """torchvision's compiled operators do not load beside a torch without CUDA: declare them."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    _KEPT.append(library)  # operators go with the object that declared them


_KEPT: list[Any] = []
