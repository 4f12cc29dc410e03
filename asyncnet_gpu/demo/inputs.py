"""Real input that a package on PyPI ships: scikit-learn's photographs and digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncnet_gpu.errors import AsyncNetError, message

Array = np.ndarray[Any, Any]


def _missing(error: ImportError) -> AsyncNetError:
    return AsyncNetError(
        message("demo", "a package is missing", expected="the extra 'demo'", got=str(error),
                remedy="pip install 'asyncnet-gpu[demo]'")
    )  # fmt: skip


def photograph() -> Array:
    """Return a photograph: (1, 3, 854, 1280) float32 in [0, 1], doubled in size."""
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise _missing(error) from error
    pixels = load_sample_image("china.jpg").astype(np.float32) / 255
    larger = pixels.repeat(2, axis=0).repeat(2, axis=1)
    return np.ascontiguousarray(larger.transpose(2, 0, 1)[None])


def digits() -> tuple[Array, Array, tuple[Array, Array], tuple[Array, Array]]:
    """Return unseen rows (898, 64), their labels, and both models fitted to the other half."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import RidgeClassifier
        from sklearn.naive_bayes import MultinomialNB
    except ImportError as error:
        raise _missing(error) from error
    data = load_digits()
    rows, labels = data.data.astype(np.float32), data.target
    half = rows.shape[0] // 2
    ridge = RidgeClassifier().fit(rows[:half], labels[:half])
    bayes = MultinomialNB().fit(rows[:half], labels[:half])
    ridge_model = (ridge.coef_.T.astype(np.float32), ridge.intercept_.astype(np.float32))
    bayes_model = (
        np.ascontiguousarray(bayes.feature_log_prob_.T.astype(np.float32)),
        bayes.class_log_prior_.astype(np.float32),
    )
    contiguous = (np.ascontiguousarray(ridge_model[0]), ridge_model[1])
    return rows[half:], labels[half:], contiguous, bayes_model
