"""Sounds that a model knows: something close to speech, and notes of an instrument."""

from __future__ import annotations

import numpy as np

Sound = np.ndarray[tuple[int], np.dtype[np.float32]]

#: First three formants in Hz of a, i, u, ae, o of a man's voice (Peterson and Barney, 1952).
_VOWELS = np.array(
    [[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]]
)
#: Gain and half width in Hz of each formant.
_FORMANTS = ((1.0, 80), (0.6, 100), (0.3, 150))


def noise(duration_s: float, rate: int, seed: int, *, level: float = 0.003) -> Sound:
    values = np.random.default_rng(seed).standard_normal(int(duration_s * rate))
    return (level * values).astype(np.float32)


def speech(duration_s: float, rate: int, seed: int = 0) -> Sound:
    """Four syllables a second: harmonics of a gliding pitch under formants of changing vowels."""
    n = int(duration_s * rate)
    t = np.arange(n) / rate
    pitch = 120 * (1 + 0.1 * np.sin(2 * np.pi * 2.1 * t) + 0.02 * np.sin(2 * np.pi * 5.3 * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    syllable, place = np.divmod(4 * t, 1)
    vowel = syllable.astype(int) % len(_VOWELS)
    glide = np.clip((place - 0.6) / 0.4, 0, 1)[:, None]
    formants = _VOWELS[vowel] * (1 - glide) + _VOWELS[(vowel + 1) % len(_VOWELS)] * glide
    sound = np.zeros(n)
    for harmonic in range(1, 40):
        f = harmonic * pitch
        gain = sum(
            a / (1 + ((f - formants[:, k]) / width) ** 2) for k, (a, width) in enumerate(_FORMANTS)
        )
        sound += gain / harmonic**0.3 * np.sin(harmonic * phase) * (f < 0.47 * rate)
    sound *= np.clip(1.6 * np.sin(np.pi * place), 0, 1)
    sound += 0.3 * (place < 0.12) * np.random.default_rng(seed).standard_normal(n)  # consonants
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def note(midi: int, duration_s: float, rate: int) -> Sound:
    """A plucked string: harmonics that die away, the higher the sooner."""
    t = np.arange(int(duration_s * rate)) / rate
    f = 440 * 2 ** ((midi - 69) / 12)
    sound = sum(
        np.sin(2 * np.pi * f * k * t) / k * np.exp(-1.5 * k * t)
        for k in range(1, 9)
        if f * k < 0.45 * rate
    )
    return (0.4 * np.asarray(sound)).astype(np.float32)
