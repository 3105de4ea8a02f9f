"""The mean and the covariance of features."""

import zlib
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

__all__ = ["Moments", "moments", "read_moments"]

ROWS = 4096  # converted to float64 at a time


class Moments(NamedTuple):
    """What a Frechet distance is computed from."""

    mean: Tensor
    """float64 [d]."""
    covariance: Tensor
    """float64 [d, d], with N - 1 in the denominator."""


def moments(features: Tensor) -> Moments:
    """The moments of features [N, d], N >= 2, in float64."""
    num, dim = features.shape
    mean = torch.zeros(dim, dtype=torch.float64, device=features.device)
    covariance = torch.zeros(dim, dim, dtype=torch.float64, device=features.device)
    for rows in torch.split(features, ROWS):
        mean += rows.double().sum(0) / num
    for rows in torch.split(features, ROWS):
        centred = rows.double() - mean
        covariance.addmm_(centred.T, centred, alpha=1 / (num - 1))
    return Moments(mean, covariance)


def read_moments(path: str | Path) -> Moments:
    """The moments in an .npz file of published reference statistics, with the entries `mu` [d] and `sigma` [d, d].

    Raises:
        ValueError: if it is not such a file, or not all numbers in it are finite.
    """
    try:
        with np.load(path) as file:
            mean, covariance = torch.from_numpy(file["mu"]).double(), torch.from_numpy(file["sigma"]).double()
    except (OSError, KeyError, ValueError, BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} must be an .npz file with the arrays mu [d] and sigma [d, d], as pytorch-fid, clean-fid and EDM "
            f"write them: {error}"
        ) from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{path} must hold mu of shape [d] and sigma of shape [d, d], got {list(mean.shape)} and "
            f"{list(covariance.shape)}"
        )
    if not (mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError(f"{path} holds numbers that are not finite (NaN or infinity): take an undamaged copy of it")
    return Moments(mean, covariance)
