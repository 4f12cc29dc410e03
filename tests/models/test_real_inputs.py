"""Pretrained models on what they were made for: speech, music, pictures of text, files."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.model_oracle import assert_close, load, oracle
from helpers.pictures import as_input, read_ctc, scaled_to, text_boxes, text_picture
from helpers.sounds import noise, note, speech
from PIL import Image

import asyncnet_gpu as ag
from benchmarks.nets.models import MODELS, package_file

BACKENDS = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
RATE = 16000
ROOT = Path(__file__).parents[2]


# -- silero-vad: is there speech? --------------------------------------------------------------


def windows(sound: np.ndarray) -> Iterator[np.ndarray]:
    """Each 512 samples, with the 64 before them."""
    padded = np.concatenate([np.zeros(64, np.float32), sound])
    for start in range(0, len(sound) - 511, 512):
        yield padded[None, start : start + 576]


@pytest.mark.parametrize("backend", BACKENDS)
def test_speech_is_told_from_noise_window_by_window(backend: str) -> None:
    model = MODELS["silero_vad"]
    quiet = 0.3 if backend == "cuda" else 1.0
    lasts = 0.6 if backend == "cuda" else 2.0
    sound = np.concatenate([noise(quiet, RATE, 1), speech(lasts, RATE), noise(quiet, RATE, 2)])
    state = theirs = np.zeros((2, 1, 128), np.float32)
    heard = []
    with load(model, model.inputs()).compile(backend=backend, mode="streams") as exe:
        for window in windows(sound):
            got = exe.run(input=window, state=state)
            expected = oracle(model, {"input": window, "state": theirs})
            assert_close(model, got, expected)
            state, theirs = ag.to_numpy(got["stateN"]), expected["stateN"]
            heard.append(float(ag.to_numpy(got["output"])[0, 0]))
    times_s = np.arange(len(heard)) * 512 / RATE
    is_speech = (times_s > quiet + 0.15) & (times_s < quiet + lasts - 0.05)
    assert min(np.array(heard)[is_speech]) > 0.5
    assert max(np.array(heard)[(times_s > 0.1) & (times_s < quiet - 0.05)]) < 0.2


def test_a_sequence_in_one_run_hears_what_its_windows_do() -> None:
    model = MODELS["silero_vad_16k_sequence"]
    sound = np.concatenate([noise(0.5, RATE, 1), speech(0.7, RATE)])
    inputs = {"input": np.concatenate(list(windows(sound)))}
    inputs |= {name: np.zeros((1, 1, 128), np.float32) for name in "hc"}
    with load(model, inputs).compile(backend="cpu", mode="streams") as exe:
        got = exe.run(inputs)
    assert_close(model, got, oracle(model, inputs))
    heard = got["speech_probs"]
    assert heard[3:14].max() < 0.2
    assert heard[24:].min() > 0.5


# -- basic-pitch: which notes? -----------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_notes_of_a_chord_are_found(backend: str) -> None:
    model = MODELS["basic_pitch"]
    rate, lowest = 22050, 21  # the net hears from A0 up
    chord = (57, 61, 64)
    # With the hiss of a recording: the logarithm of digital silence is nothing but rounding, where
    # float64 tells that we come closer to the truth than the oracle.
    sound = noise(2, rate, 3)[:43844] + sum(note(midi, 2, rate)[:43844] for midi in chord)
    (name,) = model.inputs()
    inputs = {name: np.ascontiguousarray(sound[None, :, None])}
    with load(model, inputs).compile(backend=backend, mode="streams") as exe:
        got = exe.run(inputs)
    assert_close(model, got, oracle(model, inputs))
    sounding = ag.to_numpy(got["StatefulPartitionedCall:1"])[0, 20:60].mean(0)
    assert {lowest + int(i) for i in np.flatnonzero(sounding > 0.3)} == set(chord)


# -- rapidocr: what is written? ----------------------------------------------------------------

LINES = ["asyncnet plans streams", "Events order blobs 2026"]


def ocr_alphabet() -> list[str]:
    import onnx

    path = MODELS["ocr_rec"].path
    entries = onnx.load(path, load_external_data=False).metadata_props
    return [*{e.key: e.value for e in entries}["character"].splitlines(), " "]


def compile_ocr(name: str, inputs: Any, backend: str, stack: ExitStack) -> Any:
    exe = load(MODELS[name], {"x": inputs}).compile(backend=backend, mode="streams")
    return stack.enter_context(exe)


def run_ocr(name: str, exe: Any, picture: Any) -> Any:
    got = exe.run(x=picture)
    assert_close(MODELS[name], got, oracle(MODELS[name], {"x": picture}))
    (scores,) = got.values()
    return ag.to_numpy(scores)[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_of_text_is_found_turned_and_read(backend: str) -> None:
    lines, width = (LINES, 480) if backend == "cpu" else (["net 42"], 160)
    picture = text_picture(lines, width, 64 * len(lines))
    with ExitStack() as stack:
        whole = as_input(picture)
        found = run_ocr("ocr_det", compile_ocr("ocr_det", whole, backend, stack), whole)
        boxes = text_boxes(found[0])
        assert len(boxes) == len(lines)
        shape = (48, 400) if backend == "cpu" else (48, 128)
        crops = [scaled_to(picture[box], *shape) for box in boxes]
        reader = compile_ocr("ocr_rec", crops[0], backend, stack)
        alphabet = ocr_alphabet()
        assert [read_ctc(run_ocr("ocr_rec", reader, c), alphabet) for c in crops] == lines

        upright = scaled_to(picture[boxes[0]], 48, 192)
        turned = scaled_to(picture[boxes[0]][::-1, ::-1].copy(), 48, 192)
        judge = compile_ocr("ocr_cls", upright, backend, stack)
        assert [run_ocr("ocr_cls", judge, c).argmax() for c in (upright, turned)] == [0, 1]


# -- magika: what kind of file? ----------------------------------------------------------------


def png_file() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(text_picture(LINES, 300, 100)).save(buffer, "png")
    return buffer.getvalue()


def zip_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("notes.txt", "more/data.bin"):
            archive.writestr(name, np.random.default_rng(1).bytes(3000))
    return buffer.getvalue()


FILES = {
    "markdown": lambda: (ROOT / "README.md").read_bytes(),
    "python": lambda: (ROOT / "asyncnet_gpu" / "graph.py").read_bytes(),
    "makefile": lambda: (ROOT / "Makefile").read_bytes(),
    "toml": lambda: (ROOT / "pyproject.toml").read_bytes(),
    "png": png_file,
    "zip": zip_file,
}


def magika_input(content: bytes, config: dict[str, Any]) -> np.ndarray:
    """Begin and end of a file, stripped, as numbers; what is missing is the padding token."""
    block, size = config["block_size"], config["beg_size"]
    begin = list(content[:block].lstrip()[:size])
    end = list(content[-block:].rstrip()[-config["end_size"] :])
    padding = [config["padding_token"]]
    numbers = begin + padding * (size - len(begin))
    numbers += padding * (config["end_size"] - len(end)) + end
    return np.array([numbers], np.int32)


@pytest.mark.parametrize("backend", BACKENDS)
def test_files_are_named(backend: str) -> None:
    model = MODELS["magika"]
    path = package_file("magika", "magika/models/standard_v3_3/config.min.json")
    config = json.loads(path.read_text())
    kinds = list(FILES) if backend == "cpu" else ["python", "png"]
    with load(model, model.inputs()).compile(backend=backend, mode="streams") as exe:
        for kind in kinds:
            inputs = {"bytes": magika_input(FILES[kind](), config)}
            got = exe.run(inputs)
            assert_close(model, got, oracle(model, inputs))
            scores = ag.to_numpy(got["target_label"])[0]
            assert config["target_labels_space"][scores.argmax()] == kind
