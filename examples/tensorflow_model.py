# Run with:  python examples/tensorflow_model.py [--backend cpu|cuda]
# Needs a TensorFlow model exported to ONNX, and ONNX Runtime to compare with:
#   pip install "asyncnet-gpu[onnx]" onnxruntime && pip install --no-deps basic-pitch==0.4.0
"""Basic Pitch, a TensorFlow model that hears notes, on a chord that we synthesise."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

import asyncnet_gpu as ag

SAMPLE_RATE = 22_050  # in Hz
N_SAMPLES = 43_844  # of one window, about two seconds
LOWEST_NOTE = 21  # A0; numbers of notes as in MIDI
CHORD = (57, 61, 64)  # A3, C#4, E4

INPUT, NOTES = "serving_default_input_2:0", "StatefulPartitionedCall:1"


def model_file() -> Path:
    """Return the ONNX file that the package basic-pitch carries; the package is not imported."""
    found = importlib.util.find_spec("basic_pitch")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("pip install --no-deps basic-pitch==0.4.0")
    return Path(found.submodule_search_locations[0], "saved_models/icassp_2022/nmp.onnx")


def play(notes: tuple[int, ...]) -> np.ndarray:
    """Return (1, samples, 1) float32: plucked tones with five overtones each, in faint noise.

    Without the noise the model would take logarithms of what is only rounding.
    """
    time_s = np.arange(N_SAMPLES) / SAMPLE_RATE
    sound = np.zeros(N_SAMPLES)
    for note in notes:
        hertz = 440 * 2 ** ((note - 69) / 12)
        for overtone in range(1, 6):
            sound += np.sin(2 * np.pi * overtone * hertz * time_s) / overtone**2
    sound *= np.exp(-time_s) / np.abs(sound).max()
    sound += 1e-3 * np.random.default_rng(0).standard_normal(N_SAMPLES)
    return sound.astype(np.float32)[None, :, None]


def main(backend: str = "cpu") -> dict[str, Any]:
    """Run the model here and in ONNX Runtime; both must hear the chord, and agree."""
    import onnxruntime

    path, sound = model_file(), play(CHORD)
    net = ag.load_onnx(path)
    with net.compile(backend=backend, mode="streams") as exe:
        ours = {name: ag.to_numpy(value) for name, value in exe.run({INPUT: sound}).items()}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    theirs = dict(zip(names, session.run(names, {INPUT: sound}), strict=True))
    for name in names:
        difference = np.abs(ours[name] - theirs[name]).max()
        print(f"{name}: {ours[name].shape}, largest difference {difference:.1e}")

    loudness = ours[NOTES][0].mean(axis=0)  # (88,): how sure of each note, over all frames
    heard = tuple(sorted(int(i) + LOWEST_NOTE for i in loudness.argsort()[-len(CHORD) :]))
    print(f"played {CHORD}, heard {heard}")
    return {"ours": ours, "theirs": theirs, "heard": heard}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cpu", choices=["cpu", "cuda"])
    main(parser.parse_args().backend)
