"""onestep beside PyTorch, OpenVINO and ONNX Runtime: the same network, the same machine, the same number of threads.

    python bench/peers --models FOLDER [--sizes 512,256] [--runs 3] [--engines LIST] [--output FILE.json] [--chart FILE.svg]
                       [--layers] [--roofline FILE.svg]

FOLDER holds full-f32, full-f16 and full_edge.pkl (tools/oracle/make_full_size.py makes them); Python needs
bench/peers/requirements.txt and ONESTEP_OFFICIAL_CODE the official code. One engine at a time, in its own process, is
loaded, makes one picture to get warm, and then each of its pictures alternates with one of each onestep engine in the list,
while it is stopped. Best times count; text states are known beforehand, image files are not counted. What is measured is
kept in --output after every engine, and a second call goes on from there. The exported networks (8 GB a size) are kept in
--cache. PSNR: of the decoded picture against the official code's in float32, for the same input, text and noise.

--layers asks every engine once, after its times, what each layer takes: in another process with the engine's own profiler
on, the second picture, nothing alternating. `onestep bench --plan --json`, OpenVINO's PERF_COUNT, ONNX Runtime's profile,
and for PyTorch a clock around every operator. All layers are sorted by the rules of layers.py into stage x kind (3x3
convolutions by resolution, 1x1 and linear, attention, the rest). A fused node counts for what its name says: in onestep
normalisation, activation and residual sum are inside the convolutions, in the others only some of them. --roofline draws
onestep's layers below this machine's roofs; the memory's is measured by copying (memory.py), the peak by `onestep bench`.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

import layers
import memory
import report
import roofline
from engines import DEFAULT, ENGINES, cpu_information, is_own

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ("torch", "diffusers", "peft", "onnxruntime", "openvino", "numpy")
TASK, PROMPT = "edge_to_image", "a blue bird!"


class Failure(Exception):
    """An engine could not do something; the message goes into the results."""


def last_line(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "no message"


class Worker:
    """The process of one engine."""

    def __init__(self, name, size, cache, options, *more):
        self.log = tempfile.TemporaryFile("w+")
        self.started = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "worker.py"), name, "--base", options.base, "--checkpoint", options.checkpoint,
             "--size", str(size), "--threads", str(options.threads), "--cache", cache,
             *(["--official", options.official] if options.official else []), *more],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment)

    def answer(self, seconds):
        """The next answer, within so many seconds."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        if line:
            return json.loads(line)
        if not ready:
            raise Failure(f"no answer in {seconds:.0f} s")
        self.process.wait()
        self.log.seek(0)
        raise Failure(f"ended with {self.process.returncode}: {last_line(self.log.read())}")

    def ask(self, text, seconds):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        answer = self.answer(seconds)
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


def own_arguments(options, precision):
    return ["-b", options.own_base, "-t", TASK, "-c", options.checkpoint, "--precision", precision,
            "--threads", str(options.threads)]


def run_own(arguments, seconds):
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise Failure(f"no answer in {seconds:.0f} s") from error
    if done.returncode:
        raise Failure(last_line(done.stderr))
    return done.stdout


def own_bench(name, size, options, *more):
    """One warm picture of onestep: what `onestep bench --json` says."""
    return json.loads(run_own([options.program, "bench", *own_arguments(options, ENGINES[name].precision), "--size", str(size),
                               "--runs", "1", "--json", *more], 4 * options.limit + 60))


def psnr(picture, reference):
    """Of pictures whose values go from -1 to 1, in dB."""
    error = np.mean((picture.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(4 / error)) if error else None


def reference_picture(cache):
    return np.clip(np.load(os.path.join(cache, "inputs", "decoded.npy")).astype(np.float64), -1, 1)


def own_psnr(name, cache, options):
    with tempfile.TemporaryDirectory() as folder:
        run_own([options.program, "translate", "-q", *own_arguments(options, ENGINES[name].precision), "-p", PROMPT, "-s", "42",
                 "-i", os.path.join(cache, "inputs", "input.png"), "--no-canny", "-o", os.path.join(folder, "output.png"),
                 "--dump", folder], 4 * options.limit + 60)
        return psnr(np.clip(np.load(os.path.join(folder, "decoded.npy")), -1, 1), reference_picture(cache))


def measure_own(name, size, cache, options, done):
    """An onestep engine by itself: its fidelity, and its times when it did not alternate with a peer."""
    measured = {"psnr": own_psnr(name, cache, options)}
    if not report.own_runs(done, name):
        measured["runs"] = [own_bench(name, size, options) for _ in range(options.runs)]
    return measured


def measure_peer(name, size, cache, options):
    """One peer and the onestep engines, alternating."""
    worker = Worker(name, size, cache, options)
    beside = {own: [] for own in options.engines if is_own(own)}
    try:
        loaded = worker.answer(options.load_limit)
        first = worker.ask("picture", 4 * options.limit)
        cold_seconds = time.perf_counter() - worker.started
        runs = [] if first["total_s"] <= options.limit else [first]
        for _ in range(options.runs if not runs else 0):
            for own, measured in beside.items():
                try:
                    measured.append(own_bench(own, size, options))
                except Failure as failure:
                    print(f"  {own}: {failure}", file=sys.stderr)
            runs.append(worker.ask("picture", 4 * options.limit))
            print(f"  {name} {runs[-1]['total_s']:.2f} s  " +
                  "  ".join(f"{own} {measured[-1]['total_s']:.2f} s" for own, measured in beside.items() if measured), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "decoded.npy")
            worker.ask("save " + path, 60)
            fidelity = psnr(np.load(path), reference_picture(cache))
    finally:
        worker.close()
    best = min(run["total_s"] for run in runs)
    return {"ran_in": loaded["ran_in"], "load_s": loaded["load_s"], "cold_s": cold_seconds - best, "psnr": fidelity,
            "peak_rss": max(run["peak_rss"] for run in [first, *runs]), "warm_peak_rss": runs[-1]["warm_peak_rss"],
            "only_a_first_picture": first in runs, "runs": runs, "beside": beside}


def layers_of(name, size, cache, options):
    """What each layer of one picture takes: {"ran_in", "total_s", "layers", "groups"}, of onestep also "peak_gflops"."""
    if is_own(name):
        told = own_bench(name, size, options, "--plan")
        found = {"ran_in": told["precision"], "total_s": told["total_s"], "peak_gflops": told["peak_gflops"],
                 "layers": layers.own_layers(told["layers"])}
    else:
        worker = Worker(name, size, cache, options, "--profile")
        try:
            loaded = worker.answer(options.load_limit)
            worker.ask("picture", 4 * options.limit)
            found = {"ran_in": loaded["ran_in"], **worker.ask("layers", 8 * options.limit)}
        finally:
            worker.close()
    return {**found, "groups": layers.groups(found["layers"])}


def prepare(what, size, cache, options):
    """Inputs or exported networks, once."""
    if os.path.exists(os.path.join(cache, what)):
        return
    print(f"{what} for {size}x{size} ...", flush=True)
    done = subprocess.run(
        [sys.executable, os.path.join(HERE, "prepare.py"), what, "--base", options.base, "--checkpoint", options.checkpoint,
         "--size", str(size), "--cache", cache, *(["--official", options.official] if options.official else [])],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f"{what}: {last_line(done.stderr)}")


def cache_folder(size, options):
    """Named after what decides the contents."""
    status = os.stat(options.checkpoint)
    identity = f"{options.base} {options.checkpoint} {status.st_size} {status.st_mtime_ns} {size}"
    return os.path.join(options.cache, hashlib.sha256(identity.encode()).hexdigest()[:12])


def attempt(name, size, options, ask):
    """What `ask` (a function of the cache folder) says of one engine at one size, or why it cannot."""
    cache = cache_folder(size, options)
    engine = ENGINES[name]
    try:
        if engine.needs and engine.needs not in cpu_information()[1]:
            raise Failure(f"not run: this CPU has no {engine.needs}")
        prepare("inputs", size, cache, options)
        exported = {"onnxruntime": "onnx", "openvino": "openvino"}.get(name.split("-")[0])
        if exported:
            prepare(exported, size, cache, options)
        if options.only_prepare:
            return None
        return ask(cache)
    except Failure as failure:
        print(f"  {name}: {failure}", file=sys.stderr)
        return {"error": str(failure)}


def measure(name, size, options, done):
    """The result of one engine at one size; done: the results at this size so far."""
    def ask(cache):
        if is_own(name):
            return measure_own(name, size, cache, options, done)
        return measure_peer(name, size, cache, options)
    return attempt(name, size, options, ask)


def is_done(done, name):
    return name in done and "error" not in done[name]


def measure_all(options, results):
    """What is not yet in the results; they are written after every engine."""
    # Peers first: onestep's own runs are needed only where no peer gave any.
    for size in options.sizes:
        done = results["sizes"].setdefault(str(size), {})
        for name in sorted(options.engines, key=is_own):
            if is_done(done, name):
                continue
            print(f"{name} at {size}x{size}", flush=True)
            measured = measure(name, size, options, done)
            if measured:
                done[name] = measured
                write_results(options.output, results)


def ask_layers(options, results):
    """Every layer's time, of the engines that have not told it yet."""
    if "memory_bandwidth" not in results:
        results["memory_bandwidth"] = memory.bandwidth(options.threads)
        write_results(options.output, results)
    told = results.setdefault("layers", {})
    for size in options.sizes:
        done = told.setdefault(str(size), {})
        for name in options.engines:
            if is_done(done, name):
                continue
            print(f"layers of {name} at {size}x{size}", flush=True)
            done[name] = attempt(name, size, options, lambda cache: layers_of(name, size, cache, options))
            write_results(options.output, results)


def settings(options):
    """What must be the same for results to stand in one table."""
    with open(options.program, "rb") as file:
        program = hashlib.sha256(file.read()).hexdigest()[:16]
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = None
    model, flags = cpu_information()
    levels = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if flag in flags]
    return {"cpu": model, "cpu_flags": levels, "threads": options.threads, "checkpoint": os.path.basename(options.checkpoint),
            "program": program, "packages": installed}


def write_results(path, results):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def load_results(options):
    """Those of an earlier call with the same settings, else new ones."""
    mine = settings(options)
    if os.path.exists(options.output) and not options.again:
        with open(options.output, encoding="utf-8") as file:
            results = json.load(file)
        if results["settings"] == mine:
            return results
        different = [key for key in mine if mine[key] != results["settings"].get(key)]
        sys.exit(f"{options.output} was measured with another {', '.join(different)}: give another --output, or --again")
    return {"settings": mine, "sizes": {}}


def parse():
    parser = argparse.ArgumentParser(prog="bench/peers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", help="the folder of full-f32 and full-f16; without it only table and chart are made again")
    parser.add_argument("--base", help="the peers' base model (MODELS/full-f32)")
    parser.add_argument("--own-base", help="onestep's base model, the same numbers (MODELS/full-f16)")
    parser.add_argument("--checkpoint", help="an edge_to_image checkpoint (MODELS/full_edge.pkl)")
    parser.add_argument("--program", default=os.path.join(HERE, "..", "..", "build", "onestep"))
    parser.add_argument("--official", help="the official code (ONESTEP_OFFICIAL_CODE)")
    parser.add_argument("--engines", default=",".join(DEFAULT), help="with commas between; all: " + " ".join(ENGINES))
    parser.add_argument("--sizes", default="512,256")
    parser.add_argument("--runs", type=int, default=3, help="warm pictures of each")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=60,
                        help="seconds: an engine whose first picture takes longer makes no other (60)")
    parser.add_argument("--load-limit", type=float, default=600, help="seconds for loading (600)")
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    parser.add_argument("--cache", default=os.path.join(cache, "onestep-peers"))
    parser.add_argument("--output", default="peers.json")
    parser.add_argument("--chart", help="write the SVG chart here")
    parser.add_argument("--layers", action="store_true", help="also ask every engine what each layer takes")
    parser.add_argument("--roofline", help="write the SVG of onestep's layers below this machine's roofs here (needs --layers)")
    parser.add_argument("--again", action="store_true", help="measure everything again")
    parser.add_argument("--only-prepare", action="store_true", help="only make the inputs and export the networks")
    options = parser.parse_args()
    options.engines = options.engines.split(",")
    options.sizes = [int(size) for size in options.sizes.split(",")]
    unknown = [name for name in options.engines if name not in ENGINES]
    if unknown:
        parser.error(f"unknown engine {unknown[0]}; there are {', '.join(ENGINES)}")
    if options.models:
        options.base = os.path.abspath(options.base or os.path.join(options.models, "full-f32"))
        options.own_base = os.path.abspath(options.own_base or os.path.join(options.models, "full-f16"))
        options.checkpoint = os.path.abspath(options.checkpoint or os.path.join(options.models, "full_edge.pkl"))
    return options


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped worker is not left behind
    if not options.models:
        with open(options.output, encoding="utf-8") as file:
            results = json.load(file)
    else:
        results = load_results(options)
        measure_all(options, results)
        if options.only_prepare:
            return
        if options.layers:
            ask_layers(options, results)
    print(report.table(results))
    if results.get("layers"):
        print("\n" + report.layer_tables(results))
    for path, draw in ((options.chart, report.chart), (options.roofline, roofline.chart)):
        if path:
            with open(path, "w", encoding="utf-8") as file:
                file.write(draw(results))


if __name__ == "__main__":
    main()
