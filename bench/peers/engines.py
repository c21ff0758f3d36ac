"""The engines that are compared, by name. Nothing heavy is imported here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    name: str
    label: str       # in table and chart
    precision: str   # what is asked for
    needs: str = ""  # a CPU flag without which it would only emulate the precision


ENGINES = {engine.name: engine for engine in (
    Engine("onestep-f32", "onestep", "f32"),
    Engine("onestep-auto", "onestep, default", "auto"),
    Engine("onestep-int16", "onestep", "int16"),
    Engine("onestep-bf16", "onestep", "bf16", "avx512_bf16"),
    Engine("onnxruntime-f32", "ONNX Runtime", "f32"),
    Engine("openvino-f32", "OpenVINO", "f32"),
    Engine("openvino-bf16", "OpenVINO", "bf16"),
    Engine("openvino-f16", "OpenVINO", "f16"),
    Engine("torch-f32", "PyTorch, channels last, LoRA merged", "f32"),
    Engine("torch-bf16", "PyTorch, channels last, LoRA merged", "bf16", "avx512_bf16"),
    Engine("official-f32", "PyTorch, official code", "f32"),
    Engine("official-bf16", "PyTorch, official code", "bf16", "avx512_bf16"),
)}
DEFAULT = [name for name in ENGINES if name not in ("onestep-auto", "onestep-bf16")]


def is_own(name):
    return name.startswith("onestep-")


def cpu_information():
    """(model name, flags) of the first CPU."""
    model, flags = "unknown", frozenset()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = frozenset(value.split())
                break
    return model, flags
