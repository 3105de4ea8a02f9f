"""Do the samples of a digits run read as their labels, and are they more than copies of the training set?

    python benchmark/digits.py RUN_OR_FILE [--guidance 2] [--num-samples 500]

A support vector classifier that saw only real digits reads each sample. Each sample's distance to the nearest training
image is set against the same distance of real held-out digits: copies would lie at 0, originals as far off as new real
digits do. Exits with 1 if fewer than 95% are read as their label, or if the median distance is under half of the real
digits'.
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.svm import SVC

from diffusion_lit.checkpoint import load_denoiser
from diffusion_lit.data import ArrayImages, DigitsData
from diffusion_lit.denoiser import Denoiser
from diffusion_lit.generate import default_labels, generate
from diffusion_lit.guidance import guided
from diffusion_lit.sampler import DDIMSampler, Sampler


@dataclass(frozen=True)
class Verdict:
    """Accuracies are shares of images read as their label; distances are Euclidean, over pixels 0..255."""

    real_accuracy: float
    sample_accuracy: float
    real_distance: float
    sample_distance: float
    nearest_real: float
    nearest_sample: float


def judge(images: torch.Tensor, labels: list[int]) -> Verdict:
    """Judge samples, uint8 [N, 1, 8, 8]."""
    data = DigitsData()
    data.setup()
    train, test = data.splits["train"], data.splits["test"]
    assert isinstance(train, ArrayImages) and train.labels is not None
    assert isinstance(test, ArrayImages) and test.labels is not None
    classifier = reader(train)
    real, drawn = nearest(test.images, train.images), nearest(images, train.images)
    return Verdict(
        real_accuracy=float(classifier.score(flat(test.images), test.labels)),
        sample_accuracy=float(classifier.score(flat(images), labels)),
        real_distance=float(np.median(real)),
        sample_distance=float(np.median(drawn)),
        nearest_real=float(real.min()),
        nearest_sample=float(drawn.min()),
    )


def draw(denoiser: Denoiser, sampler: Sampler, num_samples: int, guidance: float) -> tuple[torch.Tensor, list[int]]:
    labels = default_labels(denoiser, range(num_samples))
    assert labels is not None
    return generate(guided(denoiser, guidance), sampler, range(num_samples), labels, seed=1), labels


def reader(train: ArrayImages) -> SVC:
    """A classifier that has seen `train`."""
    return SVC(gamma="scale", C=10).fit(flat(train.images), train.labels)


def flat(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()


def nearest(images: torch.Tensor, train: torch.Tensor) -> np.ndarray:
    """Each image's distance to the nearest training image."""
    return torch.cdist(torch.from_numpy(flat(images)), torch.from_numpy(flat(train))).min(1).values.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", help="a run's folder or a checkpoint file")
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--num-steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--guidance", type=float, default=1.0, help="classifier-free guidance; 1 is none")
    args = parser.parse_args()

    denoiser, _ = load_denoiser(args.ckpt)
    verdict = judge(*draw(denoiser, DDIMSampler(args.num_steps, clip=1.0), args.num_samples, args.guidance))
    print(f"{args.num_samples} samples by {args.num_steps}-step DDIM, guidance {args.guidance:g}")
    print("                                            samples  real held-out")
    print(f"read as their label                        {verdict.sample_accuracy:8.1%} {verdict.real_accuracy:14.1%}")
    print(f"nearest training image, median distance    {verdict.sample_distance:8.0f} {verdict.real_distance:14.0f}")
    print(f"nearest training image, least distance     {verdict.nearest_sample:8.0f} {verdict.nearest_real:14.0f}")
    sys.exit(verdict.sample_accuracy < 0.95 or verdict.sample_distance < 0.5 * verdict.real_distance)


if __name__ == "__main__":
    main()
