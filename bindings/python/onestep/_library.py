"""The C library through ctypes: structures as in include/onestep.h, functions with their types."""

import ctypes
import os
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path

PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, c_double, c_char_p)
LOG = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)


class Error(Structure):
    _fields_ = [("code", c_int), ("message", c_char * 1020)]


class EngineOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("backend", c_int),
        ("threads", c_uint),
        ("memory_limit", c_uint64),
        ("log", LOG),
        ("log_user_data", c_void_p),
        ("log_level", c_int),
        ("isa", c_char_p),
    ]


class ModelOptions(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("task", c_char_p),
        ("precision", c_int),
        ("lora_alpha_unet", c_double),
        ("lora_alpha_vae", c_double),
    ]


class Image(Structure):
    _fields_ = [("width", c_uint32), ("height", c_uint32), ("stride", c_size_t), ("type", c_int), ("pixels", c_void_p)]


class Request(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("image", Image),
        ("prompt", c_char_p),
        ("gamma", c_double),
        ("seed", c_int64),
        ("rng", c_int),
        ("posterior", c_int),
        ("direction", c_int),
        ("control", c_int),
        ("image_prep", c_char_p),
        ("fit", c_int),
        ("max_side", c_uint32),
        ("low_threshold", c_double),
        ("high_threshold", c_double),
        ("noise", c_void_p),
        ("posterior_noise", c_void_p),
        ("noise_count", c_size_t),
        ("posterior_noise_count", c_size_t),
        ("progress", PROGRESS),
        ("progress_user_data", c_void_p),
        ("dump", c_void_p),
        ("dump_user_data", c_void_p),
    ]


class Result(Structure):
    _fields_ = [
        ("size", c_size_t),
        ("image", Image),
        ("control", Image),
        ("text_seconds", c_double),
        ("encode_seconds", c_double),
        ("unet_seconds", c_double),
        ("decode_seconds", c_double),
        ("total_seconds", c_double),
        ("operations", c_uint64),
    ]


def _find() -> str:
    named = os.environ.get("ONESTEP_LIBRARY")
    own = Path(__file__).resolve().parent / "libonestep.so"
    return named or (str(own) if own.exists() else "libonestep.so.0")


def _declare(library: ctypes.CDLL) -> None:
    status, pointer, error = c_int, POINTER(c_void_p), POINTER(Error)
    for name, result, arguments in [
        ("version", c_char_p, []),
        ("status_text", c_char_p, [c_int]),
        ("task_name", c_char_p, [c_size_t]),
        ("engine_options_init", None, [POINTER(EngineOptions)]),
        ("engine_create", status, [pointer, POINTER(EngineOptions), error]),
        ("engine_destroy", None, [pointer]),
        ("engine_threads", c_uint, [c_void_p]),
        ("engine_isa", c_char_p, [c_void_p]),
        ("base_open", status, [pointer, c_void_p, c_char_p, error]),
        ("base_destroy", None, [pointer]),
        ("model_options_init", None, [POINTER(ModelOptions)]),
        ("model_open", status, [pointer, c_void_p, c_char_p, POINTER(ModelOptions), error]),
        ("model_destroy", None, [pointer]),
        ("model_family", c_int, [c_void_p]),
        ("model_is_stochastic", c_int, [c_void_p]),
        ("model_precision", c_char_p, [c_void_p]),
        ("session_create", status, [pointer, c_void_p, error]),
        ("session_destroy", None, [pointer]),
        ("request_init", None, [POINTER(Request)]),
        ("result_init", None, [POINTER(Result)]),
        ("result_free", None, [POINTER(Result)]),
        ("translate", status, [c_void_p, POINTER(Request), POINTER(Result), error]),
        ("translate_batch", status, [c_void_p, POINTER(Request), c_size_t, POINTER(Result), error]),
    ]:
        function = getattr(library, "onestep_" + name)
        function.restype, function.argtypes = result, arguments


# CDLL, not PyDLL: Python's global lock is released during every call.
library = ctypes.CDLL(_find())
_declare(library)

for _struct, _init in [(EngineOptions, "engine_options_init"), (ModelOptions, "model_options_init"),
                       (Request, "request_init"), (Result, "result_init")]:
    _probe = _struct()
    getattr(library, "onestep_" + _init)(byref(_probe))
    if _probe.size != ctypes.sizeof(_struct):
        raise ImportError(
            f"onestep: the library ({library.onestep_version().decode()}) has another {_struct.__name__} "
            f"({_probe.size} bytes) than this package ({ctypes.sizeof(_struct)}): install both from one version"
        )
