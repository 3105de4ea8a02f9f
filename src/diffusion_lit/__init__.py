"""Train, sample and evaluate image diffusion models on PyTorch Lightning and Hydra."""

__version__ = "0.1.0"
