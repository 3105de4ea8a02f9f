"""Which way up a picture is: cameras store it as the sensor lay, and say in EXIF's tag Orientation how to turn it."""

from PIL import ExifTags, Image
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

__all__ = ["upright", "upright_size"]

TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""What sets a picture upright, by the tag's value (Pillow turns anticlockwise)."""


def upright(image: Image.Image) -> Image.Image:
    """The picture, decoded and turned.

    Pillow's `exif_transpose` also writes the EXIF data anew, which fails where one tag of a sound photo is of another
    type than usual.
    """
    image.load()  # a PNG may have its EXIF data after its pixels
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of a picture that is not decoded, once it is turned, as far as what precedes its pixels says."""
    if isinstance(image, TiffImageFile):  # has them so already
        return image.size
    exif = Image.Image.getexif(image)  # a PNG's own method decodes it
    turned = exif.get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size
