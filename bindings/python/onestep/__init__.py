"""One-step image-to-image translation (pix2pix-turbo, CycleGAN-turbo) without PyTorch.

>>> import onestep
>>> model = onestep.Model("day_to_night", demo=True)
>>> night = model.translate("street.png")          # a PIL.Image
>>> night.save("night.png")

Pictures go in as PIL images, NumPy arrays (H x W x 3, uint8, or float from 0 to 1) or paths, and
come out as PIL images (`translate`) or uint8 arrays (`translate_array`).
"""

from ._model import (
    TASKS,
    Cancelled,
    FormatError,
    MismatchError,
    Model,
    OnestepError,
    Result,
    UnsupportedError,
    demo_folder,
    store_folder,
    version,
)
from .compatibility import CycleGAN_Turbo, Pix2Pix_Turbo

__version__ = "0.1.0"
__all__ = [
    "TASKS", "Cancelled", "CycleGAN_Turbo", "FormatError", "MismatchError", "Model", "OnestepError", "Pix2Pix_Turbo",
    "Result", "UnsupportedError", "demo_folder", "store_folder", "version",
]
