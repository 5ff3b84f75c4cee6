"""User features of contextual bandits: left singular vectors of the ratings."""

import numpy as np


def signed_svd(R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return U `[n, K]`, s `[K]` and V^T `[K, K]` of ratings R `[n, K]`, n >= K.

    A singular vector is known up to its sign; here the entries of each row of V^T sum to no less
    than 0.
    """
    U, s, Vt = np.linalg.svd(R, full_matrices=False)
    sign = np.where(Vt.sum(axis=1) < 0, -1.0, 1.0)
    return U * sign, s, Vt * sign[:, None]


def user_features(U: np.ndarray, d: int) -> np.ndarray:
    """Return the first d left singular vectors times sqrt(n), `[n, d]`.

    Unscaled, the entries are of size 1/sqrt(n), and LinUCB with lambda = 1 hardly learns from them.
    """
    return U[:, :d] * np.sqrt(len(U))
