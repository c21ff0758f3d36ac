"""One engine in a process of its own: loads the network, then obeys lines on its standard input.

    worker.py ENGINE --base FOLDER --checkpoint FILE --size N --threads N --cache FOLDER

"picture" makes one picture and answers its times; "save FILE" writes that picture (decoded, float32); the end of the input
ends the process. Answers are one JSON object a line. Text states and the posterior's draw are given, as files.
"""

import argparse
import json
import os
import sys
import time

import numpy as np

PARTS = ("encoder", "denoiser", "decoder")
SCALING_FACTOR = 0.18215  # of SD-Turbo's VAE


def last_alpha():
    """The scheduler's cumulative product at the only timestep, 999."""
    betas = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000, dtype=np.float64) ** 2
    return float(np.prod(1 - betas))


def status_bytes(field):
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def reset_peak_memory():
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


class Parts:
    """An engine that runs the three parts: what stands between them is done here, in NumPy."""

    def __init__(self, inputs):
        self.control, self.text, self.noise = (inputs[name] for name in ("control", "text", "posterior_noise"))

    def picture(self):
        """Encoded, predicted and decoded: the three times in seconds, and the decoded picture."""
        times = [time.perf_counter()]
        moments, skips = self.encode(self.control)
        mean, log_variance = np.split(moments, 2, axis=1)
        latent = ((mean + np.exp(0.5 * np.clip(log_variance, -30, 20)) * self.noise) * SCALING_FACTOR).astype(np.float32)
        times.append(time.perf_counter())
        eps = self.predict(latent, self.text)
        alpha = last_alpha()
        x0 = ((latent - (1 - alpha) ** 0.5 * eps) / alpha ** 0.5 / SCALING_FACTOR).astype(np.float32)
        times.append(time.perf_counter())
        decoded = self.decode(x0, skips)
        times.append(time.perf_counter())
        return np.diff(times), decoded


class OnnxRuntime(Parts):
    def __init__(self, options, inputs):
        super().__init__(inputs)
        import onnxruntime
        self.library = onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.log_severity_level = 3
        folder = os.path.join(options.cache, "onnx")
        self.encoder, self.denoiser, self.decoder = (
            onnxruntime.InferenceSession(os.path.join(folder, part, "model.onnx"), settings, providers=["CPUExecutionProvider"])
            for part in PARTS)
        self.ran_in = "f32"

    def run(self, session, values):
        """Without copies between the parts."""
        feeds = {name: value if isinstance(value, self.library.OrtValue) else self.library.OrtValue.ortvalue_from_numpy(value)
                 for name, value in values.items()}
        return session.run_with_ort_values([output.name for output in session.get_outputs()], feeds)

    def encode(self, control):
        moments, *skips = self.run(self.encoder, {"control": control})
        return moments.numpy(), skips

    def predict(self, latent, text):
        return self.run(self.denoiser, {"latent": latent, "text": text})[0].numpy()

    def decode(self, x0, skips):
        return self.run(self.decoder, {"x0": x0, **{f"skip{index}": skip for index, skip in enumerate(skips)}})[0].numpy()


class OpenVino(Parts):
    def __init__(self, options, inputs):
        super().__init__(inputs)
        import openvino
        self.library = openvino
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": options.precision, "INFERENCE_NUM_THREADS": options.threads,
                    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        requests = []
        for part in PARTS:
            compiled = core.compile_model(os.path.join(options.cache, "openvino", part + ".xml"), "CPU", settings)
            requests.append(compiled.create_infer_request())
        self.encoder, self.denoiser, self.decoder = requests
        effective = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.ran_in = {"bfloat16": "bf16", "float16": "f16"}.get(effective, effective)

    def run(self, request, tensors):
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)
        request.infer()
        return [request.get_output_tensor(index) for index in range(len(request.model_outputs))]

    def encode(self, control):
        moments, *skips = self.run(self.encoder, [self.library.Tensor(control)])
        return moments.data, skips

    def predict(self, latent, text):
        return self.run(self.denoiser, [self.library.Tensor(latent), self.library.Tensor(text)])[0].data

    def decode(self, x0, skips):
        return self.run(self.decoder, [self.library.Tensor(x0), *skips])[0].data


class Torch(Parts):
    """Eager PyTorch, channels last, LoRA merged, the text encoder given up."""

    def __init__(self, options, inputs):
        super().__init__(inputs)
        import torch
        from network import merged_parts
        torch.set_grad_enabled(False)
        torch.set_num_threads(options.threads)
        self.torch = torch
        self.type = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.parts = [part.to(dtype=self.type, memory_format=torch.channels_last)
                      for part in merged_parts(options.base, options.checkpoint, options.official)]
        self.ran_in = options.precision

    def tensor(self, array):
        tensor = self.torch.from_numpy(array).to(self.type)
        return tensor.contiguous(memory_format=self.torch.channels_last) if tensor.dim() == 4 else tensor

    def encode(self, control):
        moments, *skips = self.parts[0](self.tensor(control))
        return moments.float().numpy(), skips

    def predict(self, latent, text):
        return self.parts[1](self.tensor(latent), self.tensor(text)).float().numpy()

    def decode(self, x0, skips):
        return self.parts[2](self.tensor(x0), *skips).float().numpy()


class Official:
    """PyTorch as the official code runs it; the time before the VAE's encoder, which is the text encoder's, is not counted."""

    def __init__(self, options, inputs):
        import torch
        from network import PROMPT, load_official
        torch.set_grad_enabled(False)
        torch.set_num_threads(options.threads)
        self.prompt = PROMPT
        _, self.model = load_official(options.base, options.checkpoint, options.official)
        self.model.set_eval()
        type_ = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.model.to(type_)
        self.control = torch.from_numpy(inputs["control"]).to(type_)
        noise = torch.from_numpy(inputs["posterior_noise"]).to(type_)
        distribution = sys.modules[type(self.model.vae).__module__].DiagonalGaussianDistribution
        sys.modules[distribution.__module__].randn_tensor = lambda shape, **_: noise
        self.times = {}
        self.model.vae.encoder.register_forward_pre_hook(lambda *_: self.mark("start"))
        self.model.unet.register_forward_pre_hook(lambda *_: self.mark("encoded"))
        self.model.vae.post_quant_conv.register_forward_pre_hook(lambda *_: self.mark("predicted"))
        self.ran_in = options.precision

    def mark(self, name):
        self.times[name] = time.perf_counter()

    def picture(self):
        output = self.model(self.control, self.prompt)
        self.mark("end")
        return np.diff([self.times[name] for name in ("start", "encoded", "predicted", "end")]), output.float().numpy()


KINDS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "torch": Torch, "official": Official}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine")
    parser.add_argument("--base", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--official")
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", required=True)
    options = parser.parse_args()
    kind, options.precision = options.engine.split("-")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    inputs = {name: np.load(os.path.join(options.cache, "inputs", name + ".npy"))
              for name in ("control", "text", "posterior_noise")}
    start = time.perf_counter()
    engine = KINDS[kind](options, inputs)
    answer(load_s=time.perf_counter() - start, ran_in=engine.ran_in)
    decoded, count = None, 0
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "picture":
            if count == 1:
                process_peak = status_bytes("VmHWM")
                reset_peak_memory()
            times, decoded = engine.picture()
            count += 1
            peak = status_bytes("VmHWM")
            answer(encode_s=times[0], unet_s=times[1], decode_s=times[2], total_s=float(sum(times)),
                   peak_rss=peak if count == 1 else max(peak, process_peak), warm_peak_rss=peak if count > 1 else None)
        elif command == "save":
            np.save(argument, np.clip(decoded, -1, 1))
            answer(saved=argument)


if __name__ == "__main__":
    main()
