"""One engine in a process of its own: loads the network, then obeys lines on its standard input.

    worker.py ENGINE --base FOLDER --checkpoint FILE --size N --threads N --cache FOLDER [--profile]

"picture" makes one picture and answers its times; "save FILE" writes that picture (decoded, float32); with --profile "layers"
makes one and answers every layer's time as well (see layers.py); the end of the input ends the process. Answers are one JSON
object a line. Text states and the posterior's draw are given, as files.
"""

import argparse
import json
import os
import sys
import tempfile
import time

import numpy as np

from layers import module_path

PARTS = ("encoder", "denoiser", "decoder")


def read_config(base, *path):
    with open(os.path.join(base, *path), encoding="utf-8") as file:
        return json.load(file)


class Between:
    """What stands between the three parts: the VAE's scaling factor and the scheduler's only step, at timestep 999."""

    def __init__(self, base):
        self.scaling = read_config(base, "vae", "config.json")["scaling_factor"]
        scheduler = read_config(base, "scheduler", "scheduler_config.json")
        if scheduler["beta_schedule"] != "scaled_linear" or scheduler["num_train_timesteps"] != 1000:
            sys.exit("scheduler_config.json: only a scaled_linear schedule of 1000 steps is known here")
        roots = np.linspace(scheduler["beta_start"] ** 0.5, scheduler["beta_end"] ** 0.5, 1000, dtype=np.float64)
        self.alpha = float(np.prod(1 - roots ** 2))
        self.prediction = scheduler.get("prediction_type", "epsilon")
        if self.prediction not in ("epsilon", "v_prediction"):
            sys.exit(f"scheduler_config.json: prediction_type {self.prediction} is not known here")

    def x0(self, latent, predicted):
        """The latent without noise, divided by the scaling factor."""
        signal, noise = self.alpha ** 0.5, (1 - self.alpha) ** 0.5
        if self.prediction == "epsilon":
            clean = (latent - noise * predicted) / signal
        else:
            clean = signal * latent - noise * predicted
        return (clean / self.scaling).astype(np.float32)


def status_bytes(field):
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))


def reset_peak_memory():
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


class Parts:
    """An engine that runs the three parts: what stands between them is done here, in NumPy."""

    def __init__(self, options, inputs):
        self.control, self.text, self.noise = (inputs[name] for name in ("control", "text", "posterior_noise"))
        self.between = Between(options.base)

    def picture(self):
        """Encoded, predicted and decoded: the three times in seconds, and the decoded picture."""
        times = [time.perf_counter()]
        moments, skips = self.encode(self.control)
        mean, log_variance = np.split(moments, 2, axis=1)
        latent = (mean + np.exp(0.5 * np.clip(log_variance, -30, 20)) * self.noise) * self.between.scaling
        latent = latent.astype(np.float32)
        times.append(time.perf_counter())
        x0 = self.between.x0(latent, self.predict(latent, self.text))
        times.append(time.perf_counter())
        decoded = self.decode(x0, skips)
        times.append(time.perf_counter())
        return np.diff(times), decoded


class OnnxRuntime(Parts):
    def __init__(self, options, inputs):
        super().__init__(options, inputs)
        import onnxruntime
        self.library = onnxruntime
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.log_severity_level = 3
        settings.enable_profiling = options.profile
        self.profiles = tempfile.TemporaryDirectory()
        settings.profile_file_prefix = os.path.join(self.profiles.name, "profile")
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

    def layers(self):
        """From the profilers' files, which then end: the nodes of each session's last run."""
        times, _ = self.picture()
        found = []
        for part, session in zip(PARTS, (self.encoder, self.denoiser, self.decoder)):
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
            begin = max(event["ts"] for event in events if event["name"] == "model_run")
            found += [self.layer(part, event) for event in events if event["cat"] == "Node" and event["ts"] >= begin and
                      event["name"].endswith("_kernel_time")]
        return times, found

    @staticmethod
    def layer(part, event):
        name, operator = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
        shapes = {side: [next(iter(value.values())) for value in event["args"][side + "_type_shape"]]
                  for side in ("input", "output")}
        layer = {"part": part, "name": name, "path": module_path(name), "operator": operator, "seconds": event["dur"] / 1e6,
                 "output": shapes["output"][0] if shapes["output"] else []}
        if operator.endswith("Conv"):
            layer["kernel"] = shapes["input"][1][2]
        elif operator.endswith(("MatMul", "Gemm")):
            # Weights are matrices; packed ones are not told at all.
            layer["weighted"] = not (len(shapes["input"]) > 1 and len(shapes["input"][1]) > 2)
            if layer["weighted"]:
                layer["kernel"] = 1
        return layer


class OpenVino(Parts):
    def __init__(self, options, inputs):
        super().__init__(options, inputs)
        import openvino
        self.library = openvino
        core = openvino.Core()
        settings = {"INFERENCE_PRECISION_HINT": options.precision, "INFERENCE_NUM_THREADS": options.threads,
                    "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "PERF_COUNT": options.profile}
        models = [os.path.join(options.cache, "openvino", part + ".xml") for part in PARTS]
        self.compiled = [core.compile_model(model, "CPU", settings) for model in models]
        self.encoder, self.denoiser, self.decoder = (compiled.create_infer_request() for compiled in self.compiled)
        self.kernels = [self.kernels_of(core.read_model(model)) for model in models] if options.profile else None
        self.pictures = 0
        effective = self.compiled[0].get_property("INFERENCE_PRECISION_HINT").to_string()
        self.ran_in = {"bfloat16": "bf16", "float16": "f16"}.get(effective, effective)

    def run(self, request, tensors):
        for index, tensor in enumerate(tensors):
            request.set_input_tensor(index, tensor)
        request.infer()
        return [request.get_output_tensor(index) for index in range(len(request.model_outputs))]

    def encode(self, control):
        self.pictures += 1
        moments, *skips = self.run(self.encoder, [self.library.Tensor(control)])
        return moments.data, skips

    def predict(self, latent, text):
        return self.run(self.denoiser, [self.library.Tensor(latent), self.library.Tensor(text)])[0].data

    def decode(self, x0, skips):
        return self.run(self.decoder, [self.library.Tensor(x0), *skips])[0].data

    @staticmethod
    def kernels_of(model):
        """Kernel sizes of the convolutions as they stand in the file, by name."""
        return {operation.get_friendly_name(): operation.input(1).get_partial_shape()[-1].get_length()
                for operation in model.get_ops() if operation.get_type_name() == "Convolution"}

    def layers(self):
        """Every node that was executed, and what was put into it. Its time is told as the mean of all pictures so far: that of
        this one is what it added to their sum."""
        requests = (self.encoder, self.denoiser, self.decoder)
        earlier, before = self.pictures, [self.mean_seconds(request) for request in requests]
        times, _ = self.picture()
        found = []
        for part, request, compiled, kernels, means in zip(PARTS, requests, self.compiled, self.kernels, before):
            nodes = {node.get_friendly_name(): node for node in compiled.get_runtime_model().get_ops()}
            for node in self.executed(request):
                seconds = self.pictures * node.real_time.total_seconds() - earlier * means.get(node.node_name, 0)
                found.append(self.layer(part, node, max(seconds, 0.0), nodes.get(node.node_name), kernels))
        return times, found

    def executed(self, request):
        return [node for node in request.get_profiling_info() if node.status == self.library.ProfilingInfo.Status.EXECUTED]

    def mean_seconds(self, request):
        return {node.node_name: node.real_time.total_seconds() for node in self.executed(request)}

    @staticmethod
    def layer(part, node, seconds, compiled, kernels):
        layer = {"part": part, "name": node.node_name, "path": module_path(node.node_name), "operator": node.node_type,
                 "seconds": seconds}
        if compiled is not None:
            layer["output"] = [int(size) for size in compiled.get_output_shape(0)] if compiled.get_output_size() else []
            names = compiled.get_rt_info()["originalLayersNames"].astype(str).split(",")
            layer["fused"] = [name for name in names if name]
        if node.node_type == "Convolution":
            layer["kernel"] = next((kernels[name] for name in layer.get("fused", []) if name in kernels), None)
        elif node.node_type == "FullyConnected":
            layer["kernel"] = 1
        elif node.node_type == "MatMul":  # with a weight it would be FullyConnected
            layer["weighted"] = False
        return layer


class Eager:
    """What both ways of running PyTorch do to tell every layer's time."""

    def time_operators(self, roots):
        from timed import OperatorTimer
        self.timer = OperatorTimer(roots)

    def layers(self):
        with self.timer:
            times, _ = self.picture()
        return times, self.timer.layers


class Torch(Eager, Parts):
    """Eager PyTorch, channels last, LoRA merged, the text encoder given up."""

    def __init__(self, options, inputs):
        super().__init__(options, inputs)
        import torch
        from network import merged_parts
        torch.set_grad_enabled(False)
        torch.set_num_threads(options.threads)
        self.torch = torch
        self.type = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.parts = [part.to(dtype=self.type, memory_format=torch.channels_last)
                      for part in merged_parts(options.base, options.checkpoint, options.official)]
        self.ran_in = options.precision
        if options.profile:
            self.time_operators({name: {"": part} for name, part in zip(PARTS, self.parts)})

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


class Official(Eager):
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
        if options.profile:
            vae = self.model.vae
            self.time_operators({"encoder": {"encoder": vae.encoder, "quant_conv": vae.quant_conv},
                                 "denoiser": {"unet": self.model.unet},
                                 "decoder": {"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}})

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
    parser.add_argument("--profile", action="store_true")
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
        elif command == "layers":
            times, layers = engine.layers()
            answer(total_s=float(sum(times)), layers=layers)
        elif command == "save":
            np.save(argument, np.clip(decoded, -1, 1))
            answer(saved=argument)


if __name__ == "__main__":
    main()
