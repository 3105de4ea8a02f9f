"""A mixture of round Gaussians, each around an image."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_lit.metrics.distance import squared_distances

__all__ = ["ImageMixture"]

BATCH_SIZE = 10_000
HELD = 2**29
"""Distances up to which all are held in memory, 2 GiB: 50,000 training images to 10,000; more are computed anew."""
IN_CACHE = 2**19  # terms at a time
LEARNING_RATE = 0.5
MAX_EPOCHS = 50
MAX_LOG_VARIANCE = 40.0  # either way, for images that are copies
BACKGROUND = 0.81  # factor of the squared distances to the mean of all images
TOLERANCE = 5e-4  # between the last five epochs' losses


class ImageMixture:
    """p(x) = mean over j of N(x; c_j, v_j I), whose variances v_j are fitted (Jiralerspong et al. 2023, section 3.2,
    arXiv:2302.04440).

    Args:
        centres: the images' features c_j [M, d].
    """

    def __init__(self, centres: Tensor) -> None:
        self.centres, self.dim = centres, centres.shape[1]
        self.log_variances = torch.zeros(len(centres), dtype=centres.dtype, device=centres.device)

    def fit(self, features: Tensor, rng: np.random.RandomState) -> "ImageMixture":
        """Fit the variances to features [N, d] by Adam, as the paper's code does.

        While fitting, a Gaussian around the mean of all features is added, so that none is infinitely unlikely.
        """
        x = features[rng.permutation(len(features))]
        held = [*self.batches(x)] if len(x) * len(self.centres) <= HELD else None
        smallest = torch.stack([squares.amin(0) for squares in held or self.batches(x)]).amin(0)
        log_variances = ((smallest + 1e-3) / self.dim).log()
        log_variances[-1] = 0
        log_weights = torch.full_like(log_variances, -math.log(len(self.centres)))
        log_weights[-1] = 0
        parameter = nn.Parameter(log_variances, requires_grad=False)
        optimizer = torch.optim.Adam([parameter], lr=LEARNING_RATE)
        losses: list[float] = []
        for _ in range(MAX_EPOCHS):
            epoch = []
            for batch in held or self.batches(x):
                loss, parameter.grad = self.loss_and_gradient(batch, parameter, log_weights)
                optimizer.step()
                parameter[:-1].clamp_(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
                epoch.append(loss)
            losses.append(float(np.mean(epoch)))
            if len(losses) > 6 and max(abs(loss - losses[-1]) for loss in losses[-5:]) < TOLERANCE:
                break
        self.log_variances = parameter.detach()[:-1]
        return self

    def batches(self, x: Tensor) -> Iterator[Tensor]:
        """Squared distances [batch, M + 1] of features [N, d] to the centres, and for the background to their mean."""
        middle = x.mean(0)
        for part in torch.split(x, BATCH_SIZE):
            squares = x.new_empty(len(part), len(self.centres) + 1)
            for rows, found in squared_distances(part, self.centres):
                squares[rows, :-1] = found
            squares[:, -1] = BACKGROUND * (part - middle).square().sum(1)
            yield squares

    def log_terms(self, squares: Tensor, log_variances: Tensor, log_weights: Tensor | float) -> Tensor:
        """log (w_j N(x; c_j, v_j I)) [N, M] from squared distances to the centres [N, M]."""
        constant = log_weights - self.dim / 2 * (log_variances + math.log(2 * math.pi))
        return torch.addcmul(constant, squares, log_variances.neg().exp(), value=-0.5)

    def loss_and_gradient(self, squares: Tensor, log_variances: Tensor, log_weights: Tensor) -> tuple[float, Tensor]:
        """The mean negative log-likelihood in nats per dimension, and its gradient by the logarithms of variances."""
        log_p, count, spread = 0.0, torch.zeros_like(log_variances), torch.zeros_like(log_variances)
        for rows in torch.split(squares, max(1, IN_CACHE // squares.shape[1])):
            logs = self.log_terms(rows, log_variances, log_weights)
            shares = logs.softmax(1)  # of each Gaussian in each image
            log_p += float((logs.amax(1) - shares.amax(1).log()).sum())
            count += shares.sum(0)
            spread += shares.mul_(rows).sum(0)
        gradient = self.dim * count - spread / log_variances.exp()
        num = self.dim * len(squares)
        return -log_p / num, gradient / (2 * num)

    def nll(self, features: Tensor) -> float:
        """The mean negative log-likelihood of features [N, d], in nats per dimension."""
        log_weight = -math.log(len(self.centres))
        logs = [
            self.log_terms(squares, self.log_variances, log_weight).logsumexp(1)
            for _, squares in squared_distances(features, self.centres)
        ]
        return -float(torch.cat(logs).mean()) / self.dim
