"""A real classifier of handwritten digits, trained when the process starts and measured on images it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

PIXELS: Final = 64
"""One image: 8 x 8 grey values, row by row."""
CLASSES: Final = 10
HELD_OUT_SHARE: Final = 0.25
NEIGHBOURS: Final = 5
SPLIT_SEED: Final = 20261123
"""Fixed, so that the story and the server mean the same image by the same number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Images kept away from training, with what a person says they show."""

    images: NDArray[np.float64]
    digits: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the classifier says about a batch: the digit of each image, and the probability of each class."""

    digits: NDArray[np.int64]
    probabilities: NDArray[np.float64]


class _Estimator(Protocol):
    def fit(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> object: ...

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitClassifier:
    """A trained model, its held-out images and its accuracy on them."""

    estimator: _Estimator
    held_out: HeldOut
    accuracy: float

    def predict(self, images: NDArray[np.float64]) -> Prediction:
        """Classify a batch of shape (n, 64)."""
        return _predict(self.estimator, images)


def held_out_images() -> HeldOut:
    """Return the images that training never sees, in an order that is the same in every process."""
    return _split()[1]


def train() -> DigitClassifier:
    """Train on three quarters of scikit-learn's handwritten digits; takes well under a second."""
    (images, digits), held_out = _split()
    estimator: _Estimator = KNeighborsClassifier(n_neighbors=NEIGHBOURS, weights="distance")
    estimator.fit(images, digits)
    right = _predict(estimator, held_out.images).digits == held_out.digits
    return DigitClassifier(estimator=estimator, held_out=held_out, accuracy=float(right.mean()))


def _split() -> tuple[tuple[NDArray[np.float64], NDArray[np.int64]], HeldOut]:
    images, digits = load_digits(return_X_y=True)
    seen, unseen, seen_digits, unseen_digits = train_test_split(
        images, digits, test_size=HELD_OUT_SHARE, random_state=SPLIT_SEED, stratify=digits
    )
    return (seen, seen_digits), HeldOut(images=unseen, digits=unseen_digits)


def _predict(estimator: _Estimator, images: NDArray[np.float64]) -> Prediction:
    probabilities = estimator.predict_proba(images)
    return Prediction(digits=probabilities.argmax(axis=1).astype(np.int64), probabilities=probabilities)
