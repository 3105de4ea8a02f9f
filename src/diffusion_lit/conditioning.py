"""What training may know of its images, or hide, with the network that it has."""

from diffusion_lit.augmentation import Augmentation
from diffusion_lit.data import ImageDataModule
from diffusion_lit.denoiser import Denoiser

__all__ = ["check_augmentation", "check_hidden_classes", "check_labelled"]


def check_augmentation(augmentation: Augmentation, denoiser: Denoiser) -> None:
    """Raise a ValueError if the network does not take the augment label, or works on latents."""
    name, network, known = type(augmentation).__name__, denoiser.network, denoiser.network.augmentation_dim
    if augmentation.num_draws > 0 and not denoiser.space.bounded:  # a mirror image's latents are not mirror images
        raise ValueError(f"{name} is for images, and this model works on latents: use augmentation=none")
    if augmentation.dim != known:
        raise ValueError(
            f"{name} conditions the network on {augmentation.dim} numbers of an image, and {type(network).__name__} "
            f"takes {known}: leave model.augmentation_dim at auto; a network without it needs augmentation=flip or none"
        )


def check_hidden_classes(label_dropout: float, denoiser: Denoiser) -> None:
    """Raise a ValueError if classes are to be hidden from a network that cannot do without."""
    if label_dropout and denoiser.num_classes is not None and not denoiser.null_class:
        raise ValueError(
            f"label_dropout={label_dropout} hides classes, and the network has no embedding for a hidden one "
            "(model.null_class=false): use label_dropout=0, or model.null_class=true"
        )


def check_labelled(data: ImageDataModule, denoiser: Denoiser) -> None:
    """Raise a ValueError if images have no class and the network cannot do without, as far as is known beforehand."""
    if denoiser.num_classes is None or denoiser.null_class:
        return
    for split in ("train", "val"):
        counts = data.class_counts(split)
        if counts is not None and sum(counts) < (total := len(data.splits[split])):
            raise ValueError(
                f"{total - sum(counts)} of the {total} images of {split} have no class, and the network has no "
                "embedding for that (model.null_class=false): use model.null_class=true, or leave them out"
            )
