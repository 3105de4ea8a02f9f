from diffusion_lit.data.base import ArrayImages, Batch, ImageDataModule, Images
from diffusion_lit.data.digits import DigitsData
from diffusion_lit.data.image_folder import ImageFolderData
from diffusion_lit.data.torchvision import TorchvisionData

__all__ = ["ArrayImages", "Batch", "DigitsData", "ImageDataModule", "ImageFolderData", "Images", "TorchvisionData"]
