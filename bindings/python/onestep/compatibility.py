"""Stand-ins for the official classes, with NumPy arrays in the place of tensors.

    from onestep import Pix2Pix_Turbo            # was: from pix2pix_turbo import Pix2Pix_Turbo
    model = Pix2Pix_Turbo("edge_to_image")
    output = model(control, "a blue bird")       # [B, 3, H, W] from 0 to 1  ->  [B, 3, H, W] from -1 to 1

Arrays are float, channels first, in the official ranges. `.cuda()`, `.eval()` and `.half()` are accepted and do
nothing. The posterior's draw comes from `seed` (officially from torch's global generator).
"""

from typing import Optional, Sequence, Union

import numpy as np

from ._model import Model, PathLike


class _Turbo:
    def __init__(self, pretrained_name: Optional[str], pretrained_path: Optional[PathLike], **options: object) -> None:
        self.model = Model(pretrained_name, checkpoint=pretrained_path, **options)  # type: ignore[arg-type]

    def cuda(self) -> "_Turbo":
        return self

    eval = half = set_eval = cuda

    def to(self, *_: object, **__: object) -> "_Turbo":
        return self


def _to_floats(array: np.ndarray) -> np.ndarray:
    """uint8 H x W x 3 to [3, H, W] from -1 to 1."""
    return array.transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


def _batch(array: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(array, dtype=np.float32)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[1] != 3 or array.shape[2] % 8 or array.shape[3] % 8:
        raise ValueError(f"{name} of shape {array.shape}: expected (B, 3, H, W), H and W multiples of 8")
    return array


class Pix2Pix_Turbo(_Turbo):
    """`Pix2Pix_Turbo(name)(c_t, prompt)` as the official class is called.

    `c_t` is the prepared control, [B, 3, H, W] from 0 to 1 (edges white on black; sketch lines 1). The output has the
    precision of its 8-bit picture.
    """

    def __init__(self, pretrained_name: Optional[str] = None, pretrained_path: Optional[PathLike] = None,
                 **options: object) -> None:
        super().__init__(pretrained_name, pretrained_path, **options)

    def __call__(
        self,
        c_t: np.ndarray,
        prompt: Union[str, Sequence[str]],
        deterministic: bool = True,
        r: float = 1.0,
        noise_map: Optional[np.ndarray] = None,
        seed: int = 42,
    ) -> np.ndarray:
        batch = _batch(c_t, "c_t")
        prompts = [prompt] * len(batch) if isinstance(prompt, str) else list(prompt)
        if len(prompts) != len(batch):
            raise ValueError(f"{len(prompts)} prompts for {len(batch)} pictures")
        if deterministic == self.model.stochastic:
            raise ValueError(f"deterministic={deterministic}, but the model is {'' if self.model.stochastic else 'not '}"
                             "stochastic")
        outputs = []
        for i, picture in enumerate(batch):
            noise = None if noise_map is None else np.asarray(noise_map)[i % len(noise_map)][None]
            outputs.append(_to_floats(self.model.translate_array(
                picture.transpose(1, 2, 0), prompts[i], control="image", gamma=r, noise=noise, seed=seed)))
        return np.stack(outputs)


class CycleGAN_Turbo(_Turbo):
    """`CycleGAN_Turbo(name)(x_t)` as the official class is called; `x_t` is [B, 3, H, W] from -1 to 1."""

    def __init__(self, pretrained_name: Optional[str] = None, pretrained_path: Optional[PathLike] = None,
                 **options: object) -> None:
        super().__init__(pretrained_name, pretrained_path, **options)

    def __call__(self, x_t: np.ndarray, direction: Optional[str] = None, caption: Optional[str] = None,
                 seed: int = 42) -> np.ndarray:
        batch = (_batch(x_t, "x_t") + 1) / 2
        if self.model.task is not None:
            direction = None  # the task's own
        return np.stack([_to_floats(self.model.translate_array(
            picture.transpose(1, 2, 0), caption, direction=direction, image_prep="no_resize", seed=seed))
            for picture in batch])
