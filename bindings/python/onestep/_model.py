"""Models and pictures."""

import ctypes
import os
import threading
import weakref
from ctypes import byref, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
import PIL.Image
import PIL.ImageOps

from . import _library as c
from ._library import library

PathLike = Union[str, "os.PathLike[str]"]
Picture = Union[PIL.Image.Image, np.ndarray, PathLike]
# Called with the fraction done (0 to 1) and the stage ("text", "encode", "unet", "decode"); returning False cancels.
Progress = Callable[[float, str], Optional[bool]]


class OnestepError(Exception):
    """Anything that the library reports; the message names file, tensor or option."""


class FormatError(OnestepError, ValueError):
    """A file is damaged or not what it should be."""


class MismatchError(OnestepError, ValueError):
    """Checkpoint and base, or request and model, do not fit together."""


class UnsupportedError(OnestepError, NotImplementedError):
    """Well-formed, but not something that this version or CPU can do."""


class Cancelled(OnestepError):
    """The progress callback asked to stop."""


class _Argument(OnestepError, ValueError):
    pass


class _Memory(OnestepError, MemoryError):
    pass


class _Io(OnestepError, OSError):
    pass


_EXCEPTIONS = {1: _Argument, 2: _Memory, 3: _Io, 4: FormatError, 5: UnsupportedError, 6: MismatchError, 7: Cancelled}

TASKS: Tuple[str, ...] = tuple(library.onestep_task_name(i).decode() for i in range(6))
_FILES = dict(zip(TASKS, (
    "edge_to_image_loras.pkl", "sketch_to_image_stochastic_lora.pkl", "day2night.pkl", "night2day.pkl",
    "clear2rainy.pkl", "rainy2clear.pkl")))
# A pair of tasks shares one checkpoint; the demo has it under the first task's name only.
_TWINS = {"night2day.pkl": "day2night.pkl", "rainy2clear.pkl": "clear2rainy.pkl"}
_PRECISIONS = ("auto", "f32", "bf16", "int16")
_BACKENDS = ("cpu", "reference")


def version() -> str:
    """The version of the C library."""
    return library.onestep_version().decode()


def store_folder() -> Path:
    """The model store that `onestep models pull` fills."""
    if os.environ.get("ONESTEP_HOME"):
        return Path(os.environ["ONESTEP_HOME"])
    if os.environ.get("XDG_DATA_HOME"):
        return Path(os.environ["XDG_DATA_HOME"]) / "onestep"
    return Path.home() / ".local" / "share" / "onestep"


def demo_folder() -> Path:
    """The built-in demo models inside this package."""
    return Path(__file__).resolve().parent / "demo"


def _check(status: int, error: c.Error) -> None:
    if status != 0:
        raise _EXCEPTIONS.get(status, OnestepError)(error.message.decode("utf-8", "replace"))


def _choice(name: str, value: Optional[str], choices: Sequence[str]) -> int:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(str, choices))}")
    return choices.index(value)


def _encoded(path: Optional[PathLike]) -> Optional[bytes]:
    return None if path is None else os.fsencode(path)


@dataclass
class Result:
    """A translated picture and how it came about."""

    array: np.ndarray
    """H x W x 3, uint8, RGB."""
    control: Optional[np.ndarray]
    """What the network saw (edges white on black), or None."""
    seconds: Dict[str, float]
    """By stage ("text", "encode", "unet", "decode") and in "total"."""

    @property
    def image(self) -> PIL.Image.Image:
        return PIL.Image.fromarray(self.array)


def _array_of(image: c.Image) -> Optional[np.ndarray]:
    if not image.pixels:
        return None
    rows = np.ctypeslib.as_array(
        ctypes.cast(image.pixels, ctypes.POINTER(ctypes.c_uint8)), (image.height, image.stride))
    return rows[:, : image.width * 3].reshape(image.height, image.width, 3).copy()


def _pixels_of(picture: Picture) -> np.ndarray:
    """A contiguous H x W x 3 array, uint8 or float32."""
    if isinstance(picture, (str, os.PathLike)):
        with PIL.Image.open(picture) as opened:
            return _pixels_of(PIL.ImageOps.exif_transpose(opened))
    if isinstance(picture, PIL.Image.Image):
        return np.ascontiguousarray(picture.convert("RGB"))
    array = np.asarray(picture)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"a picture of shape {array.shape}: expected (height, width, 3)")
    if array.dtype != np.uint8:
        if array.dtype.kind != "f":
            raise ValueError(f"a picture of type {array.dtype}: expected uint8, or floats from 0 to 1")
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def _image_of(pixels: np.ndarray) -> c.Image:
    return c.Image(pixels.shape[1], pixels.shape[0], pixels.strides[0], 0 if pixels.dtype == np.uint8 else 1,
                   pixels.ctypes.data)


def _draw_of(name: str, draw: Optional[np.ndarray]) -> Optional[np.ndarray]:
    if draw is None:
        return None
    array = np.ascontiguousarray(draw, dtype=np.float32)
    if array.ndim not in (3, 4):
        raise ValueError(f"{name} of shape {array.shape}: expected (1, 4, H/8, W/8)")
    return array


def _destroy(session: Dict[int, c_void_p], handles: Iterable[Tuple[str, c_void_p]], owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child leaves its parent's memory alone
    for handle in session.values():
        library.onestep_session_destroy(byref(handle))
    for name, handle in handles:
        getattr(library, f"onestep_{name}_destroy")(byref(handle))


class Model:
    """A base model with a checkpoint.

    `Model("day_to_night")` takes the task's files from the model store (`onestep models pull day_to_night`);
    `demo=True` the small built-in ones; `checkpoint` and `base` name files of your own.

    A model may be used from several threads at once (each has a session of its own), and a forked child may go on
    using it.

    Args:
        task: one of `onestep.TASKS`, or None with a checkpoint of your own.
        checkpoint: a .pkl or .safetensors file; with a task it replaces the task's.
        base: a diffusers folder, or a name in the model store.
        demo: the built-in models.
        precision: "auto", "f32", "bf16" or "int16".
        threads: 0: the CPUs that this process may use.
        memory_limit: bytes of resident memory to stay under (plus 100 MB); 0: no limit.
        backend: "cpu" or "reference".
        lora_alpha_unet, lora_alpha_vae: overrides for checkpoints trained otherwise than officially.
    """

    def __init__(
        self,
        task: Optional[str] = None,
        *,
        checkpoint: Optional[PathLike] = None,
        base: Optional[PathLike] = None,
        demo: bool = False,
        precision: str = "auto",
        threads: int = 0,
        memory_limit: int = 0,
        backend: str = "cpu",
        lora_alpha_unet: Optional[float] = None,
        lora_alpha_vae: Optional[float] = None,
    ) -> None:
        if task is not None and task not in TASKS:
            raise ValueError(f"task={task!r}: expected one of {', '.join(TASKS)}")
        if task is None and checkpoint is None:
            raise ValueError("give a task or a checkpoint")
        base, checkpoint = _find_files(task, checkpoint, base, demo)
        options = c.EngineOptions()
        library.onestep_engine_options_init(byref(options))
        options.backend = _choice("backend", backend, _BACKENDS)
        options.threads, options.memory_limit = threads, memory_limit
        model_options = c.ModelOptions()
        library.onestep_model_options_init(byref(model_options))
        model_options.task = task.encode() if task else None
        model_options.precision = _choice("precision", precision, _PRECISIONS)
        if lora_alpha_unet is not None:
            model_options.lora_alpha_unet = lora_alpha_unet
        if lora_alpha_vae is not None:
            model_options.lora_alpha_vae = lora_alpha_vae

        self.task = task
        self._engine, self._base, self._model = c_void_p(), c_void_p(), c_void_p()
        self._sessions: Dict[int, c_void_p] = {}
        self._idle: List[int] = []
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._finalizer = weakref.finalize(
            self, _destroy, self._sessions,
            [("model", self._model), ("base", self._base), ("engine", self._engine)], self._process)
        error = c.Error()
        _check(library.onestep_engine_create(byref(self._engine), byref(options), byref(error)), error)
        _check(library.onestep_base_open(byref(self._base), self._engine, _encoded(base), byref(error)), error)
        _check(library.onestep_model_open(
            byref(self._model), self._base, _encoded(checkpoint), byref(model_options), byref(error)), error)

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the weights; the model cannot be used any more."""
        self._finalizer()

    @property
    def stochastic(self) -> bool:
        """Whether gamma and noise count."""
        return bool(library.onestep_model_is_stochastic(self._open()))

    @property
    def family(self) -> str:
        """"paired" or "unpaired"."""
        return ("paired", "unpaired")[library.onestep_model_family(self._open())]

    @property
    def precision(self) -> str:
        """What "auto" came to."""
        return library.onestep_model_precision(self._open()).decode()

    def _open(self) -> c_void_p:
        if not self._model:
            raise ValueError("the model is closed")
        return self._model

    def _take_session(self) -> int:
        self._open()
        with self._lock:
            if os.getpid() != self._process:
                # After fork: the parent's sessions may have been in the middle of something.
                self._process = os.getpid()
                self._sessions.clear()
                self._idle.clear()
            if self._idle:
                return self._idle.pop()
            session, error = c_void_p(), c.Error()
            _check(library.onestep_session_create(byref(session), self._model, byref(error)), error)
            number = len(self._sessions)
            self._sessions[number] = session
            return number

    def translate(self, picture: Picture, prompt: Optional[str] = None, **options: object) -> PIL.Image.Image:
        """Translates one picture and returns it as a PIL image; the options are those of `run`."""
        return self.run(picture, prompt, **options).image  # type: ignore[arg-type]

    def translate_array(self, picture: Picture, prompt: Optional[str] = None, **options: object) -> np.ndarray:
        """Translates one picture and returns H x W x 3, uint8; the options are those of `run`."""
        return self.run(picture, prompt, **options).array  # type: ignore[arg-type]

    def run(
        self,
        picture: Picture,
        prompt: Optional[str] = None,
        *,
        gamma: float = 0.4,
        seed: int = 42,
        rng: str = "cuda",
        posterior: str = "sample",
        direction: Optional[str] = None,
        control: Optional[str] = None,
        image_prep: Optional[str] = None,
        fit: str = "official",
        max_side: int = 0,
        low_threshold: float = 100,
        high_threshold: float = 200,
        noise: Optional[np.ndarray] = None,
        posterior_noise: Optional[np.ndarray] = None,
        progress: Optional[Progress] = None,
    ) -> Result:
        """Translates one picture.

        Args:
            picture: a PIL image, an array (H x W x 3, uint8 or floats 0 to 1) or a path.
            prompt: None: the fixed caption of the unpaired tasks.
            gamma: guidance of the stochastic family, 0 (free) to 1 (as drawn).
            seed: any integer of 64 bits.
            rng: which official generator to reproduce, "cuda" or "cpu".
            posterior: "sample" as the official code, or "mean".
            direction: "a2b" or "b2a", for own unpaired checkpoints.
            control: "image", "canny" or "sketch", for own paired checkpoints.
            image_prep: an official name, for the unpaired family.
            fit: "official" sizes, or "exact": padded to multiples of 8 and cropped back.
            max_side: larger pictures are scaled down first; 0: no limit.
            low_threshold, high_threshold: Canny's.
            noise, posterior_noise: given draws, (1, 4, H/8, W/8).
            progress: called with the fraction done and the stage; return False to cancel.

        Raises:
            OnestepError: or one of the classes derived from it.
        """
        pixels = _pixels_of(picture)
        given, given_posterior = _draw_of("noise", noise), _draw_of("posterior_noise", posterior_noise)
        request, result, error = c.Request(), c.Result(), c.Error()
        library.onestep_request_init(byref(request))
        library.onestep_result_init(byref(result))
        request.image = _image_of(pixels)
        request.prompt = prompt.encode() if prompt is not None else None
        request.gamma = gamma
        request.seed = (seed + 2**63) % 2**64 - 2**63
        request.rng = _choice("rng", rng, ("cuda", "cpu"))
        request.posterior = _choice("posterior", posterior, ("sample", "mean"))
        request.direction = _choice("direction", direction, (None, "a2b", "b2a"))
        request.control = _choice("control", control, (None, "image", "canny", "sketch"))
        request.image_prep = image_prep.encode() if image_prep is not None else None
        request.fit = _choice("fit", fit, ("official", "exact"))
        request.max_side = max_side
        request.low_threshold, request.high_threshold = low_threshold, high_threshold
        if given is not None:
            request.noise, request.noise_count = given.ctypes.data, given.size
        if given_posterior is not None:
            request.posterior_noise, request.posterior_noise_count = given_posterior.ctypes.data, given_posterior.size
        raised: List[BaseException] = []

        def on_progress(_: object, fraction: float, stage: bytes) -> int:
            try:
                return int(progress(fraction, stage.decode()) is False)  # type: ignore[misc]
            except BaseException as exception:  # ctypes would only print it
                raised.append(exception)
                return 1

        callback = c.PROGRESS(on_progress) if progress else c.PROGRESS()
        request.progress = callback
        number = self._take_session()
        process = self._process
        try:
            status = library.onestep_translate(self._sessions[number], byref(request), byref(result), byref(error))
        finally:
            with self._lock:
                if process == self._process:
                    self._idle.append(number)
        if raised:
            raise raised[0]
        _check(status, error)
        try:
            array = _array_of(result.image)
            assert array is not None
            seconds = {name: getattr(result, name + "_seconds") for name in ("text", "encode", "unet", "decode", "total")}
            return Result(array, _array_of(result.control), seconds)
        finally:
            library.onestep_result_free(byref(result))


def _find_files(
    task: Optional[str], checkpoint: Optional[PathLike], base: Optional[PathLike], demo: bool
) -> Tuple[PathLike, PathLike]:
    """Base folder and checkpoint file, from the arguments, the demo or the model store."""
    folder = demo_folder() if demo else store_folder()
    hint = "" if demo else f": `onestep models pull {task or 'sd-turbo'}` fetches it; demo=True works without"
    if base is None:
        base = folder / "base" if demo else folder / "bases" / "sd-turbo"
    elif not os.path.isdir(base) and not demo and os.sep not in str(base):
        base = folder / "bases" / str(base)
    if not os.path.isdir(base):
        raise _Io(f"{base}: no base model there{hint}")
    if checkpoint is None:
        assert task is not None
        name = _FILES[task]
        place = folder if demo else folder / "checkpoints"
        if demo and not (place / name).exists():
            name = _TWINS.get(name, name)
        checkpoint = place / name
    if not os.path.exists(checkpoint):
        raise _Io(f"{checkpoint}: no checkpoint there{hint}")
    return base, checkpoint
