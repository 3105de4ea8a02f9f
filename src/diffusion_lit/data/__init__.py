from diffusion_lit.data.base import ImageDataModule
from diffusion_lit.data.batch import ArrayImages, Batch, Images
from diffusion_lit.data.digits import DigitsData
from diffusion_lit.data.hugging_face import HuggingFaceData
from diffusion_lit.data.image_folder import ImageFolderData
from diffusion_lit.data.memmap import MemmapData
from diffusion_lit.data.stream import StreamData
from diffusion_lit.data.torchvision import TorchvisionData
from diffusion_lit.data.webdataset import WebDatasetData

__all__ = [
    "ArrayImages",
    "Batch",
    "DigitsData",
    "HuggingFaceData",
    "ImageDataModule",
    "ImageFolderData",
    "Images",
    "MemmapData",
    "StreamData",
    "TorchvisionData",
    "WebDatasetData",
]
