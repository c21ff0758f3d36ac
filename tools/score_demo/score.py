"""Scores the demo's six tasks on unseen toy-world pictures, with trivial baselines beside them.

    score.py --data DIR --outputs DIR [--program build/onestep] [--count 200]

DIR of --data holds the toy world's data sets (things, sketches, day_night, clear_rainy: see toyworld --help).
First the translations are made into --outputs (those already there are kept), by the program or by the
official Python classes; then they are scored with NumPy and Pillow alone. Prints a Markdown table.
"""
import argparse
import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
COLOURS = {"red": (206, 32, 38), "orange": (245, 132, 22), "yellow": (252, 214, 44), "green": (52, 158, 66),
           "blue": (38, 92, 214), "purple": (124, 52, 178), "pink": (250, 148, 196), "brown": (122, 74, 36),
           "white": (244, 244, 244), "black": (40, 40, 44)}
NAMES = list(COLOURS)
PALETTE = np.array([COLOURS[name] for name in NAMES], dtype=np.float64)

# task: input data set and side, truth's data set and side
TASKS = {
    "edge_to_image": ("things/test_A", "things/test_B"),
    "sketch_to_image_stochastic": ("sketches/test_A", "sketches/test_B"),
    "day_to_night": ("day_night/test_A", "day_night/test_B"),
    "night_to_day": ("day_night/test_B", "day_night/test_A"),
    "clear_to_rainy": ("clear_rainy/test_A", "clear_rainy/test_B"),
    "rainy_to_clear": ("clear_rainy/test_B", "clear_rainy/test_A"),
}

FILES = {"edge_to_image": "edge_to_image_loras.pkl",
         "sketch_to_image_stochastic": "sketch_to_image_stochastic_lora.pkl",
         "day_to_night": "day2night.pkl", "night_to_day": "day2night.pkl",
         "clear_to_rainy": "clear2rainy.pkl", "rainy_to_clear": "clear2rainy.pkl"}


def read(folder, names):
    return np.stack([np.asarray(Image.open(os.path.join(folder, name)).convert("RGB")) for name in names])


def psnr(a, b):
    """Mean over the pictures, in dB."""
    error = ((a.astype(np.float64) - b) / 255) ** 2
    return float(np.mean(-10 * np.log10(np.maximum(error.mean(axis=(1, 2, 3)), 1e-10))))


def edge_strength(pictures):
    grey = pictures.astype(np.float64).mean(axis=3)
    across = np.abs(np.diff(grey, axis=2))[:, :-1]
    down = np.abs(np.diff(grey, axis=1))[:, :, :-1]
    return across + down


def edge_correlation(a, b):
    scores = [np.corrcoef(x.ravel(), y.ravel())[0, 1] if x.std() > 0 else 0.0
              for x, y in zip(edge_strength(a), edge_strength(b))]
    return float(np.mean(scores))


def nearest_colour(colour):
    return int(((PALETTE - colour) ** 2).sum(axis=-1).argmin())


def asked_colours(outputs, truth, captions):
    """Share of pictures whose thing, and whose ground, has the asked colour.

    Where the thing and the ground are is taken from the truth: the pixels within 48 levels of the asked colour
    (the painter shades by 10 to 20 %); the output's mean over them is named by the nearest of the ten colours."""
    hits = {"thing": [], "ground": []}
    for made, true, caption in zip(outputs.astype(np.float64), truth.astype(np.float64), captions):
        words = caption.split()
        for what, name in (("thing", words[1]), ("ground", words[-2])):
            distance = np.sqrt(((true - COLOURS[name]) ** 2).sum(axis=2))
            region = distance < 48
            if region.sum() < 20:
                region = distance <= np.sort(distance.ravel())[20]
            hits[what].append(NAMES[nearest_colour(made[region].mean(axis=0))] == name)
    return {what: float(np.mean(values)) for what, values in hits.items()}


def colour_map(inputs, targets):
    """The best map of colours by a quadratic, fitted on training pictures."""
    def features(pictures):
        c = pictures.reshape(-1, 3).astype(np.float64) / 255
        r, g, b = c.T
        return np.stack([np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, g * b, r * b], axis=1)
    weights, *_ = np.linalg.lstsq(features(inputs), targets.reshape(-1, 3) / 255.0, rcond=None)
    return lambda pictures: np.clip(features(pictures) @ weights, 0, 1).reshape(pictures.shape) * 255


def translate(arguments, task, names, folder, gamma=1.0, seed=42):
    """Makes the missing outputs; returns them."""
    os.makedirs(folder, exist_ok=True)
    source = os.path.join(arguments.data, TASKS[task][0])
    missing = [name for name in names if not os.path.exists(os.path.join(folder, name))]
    prompts = os.path.join(arguments.data, "things/test_prompts.json")
    if missing and arguments.program:
        command = [arguments.program, "translate", "-q", "-b", os.path.join(arguments.models, "base"), "-c",
                   os.path.join(arguments.models, FILES[task]), "-t", task, "-o", folder, "--seed", str(seed),
                   "--rng", "cpu"]
        for name in missing:
            command += ["-i", os.path.join(source, name)]
        if task in ("edge_to_image", "sketch_to_image_stochastic"):
            command += ["--prompts", prompts]
            command += ["--no-canny"] if task == "edge_to_image" else ["--gamma", str(gamma)]
        else:
            command += ["--image-prep", "no_resize"]
        subprocess.run(command, check=True)
    elif missing:
        import official_outputs
        with open(prompts) as file:
            table = json.load(file)
        official_outputs.translate(arguments.models, FILES[task], task, [os.path.join(source, name) for name in missing], folder, table, gamma, seed)
    return read(folder, names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--outputs", required=True)
    parser.add_argument("--program", help="the built onestep; without it the official Python classes are run")
    parser.add_argument("--models", default=os.path.join(HERE, "../../models/demo"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--tasks", default=",".join(TASKS))
    arguments = parser.parse_args()
    sys.path.insert(0, HERE)
    names = ["%06d.png" % index for index in range(arguments.count)]
    with open(os.path.join(arguments.data, "things/test_prompts.json")) as file:
        table = json.load(file)
    captions = [table[name] for name in names]
    print("| task | what | score | baseline |\n|---|---|---|---|")
    for task in arguments.tasks.split(","):
        inputs = read(os.path.join(arguments.data, TASKS[task][0]), names)
        truth = read(os.path.join(arguments.data, TASKS[task][1]), names)
        made = translate(arguments, task, names, os.path.join(arguments.outputs, task))
        row = f"| {task} |"
        if TASKS[task][0].split("/")[0] in ("things", "sketches"):
            share, same = asked_colours(made, truth, captions), asked_colours(inputs, truth, captions)
            print(f"{row} asked colour of the thing | {share['thing']:.1%} | {same['thing']:.1%} (input as it is) |")
            print(f"{row} asked colour of the ground | {share['ground']:.1%} | {same['ground']:.1%} (input as it is) |")
            flat = np.stack([np.broadcast_to(PALETTE[NAMES.index(c.split()[-2])], t.shape) for c, t in zip(captions, truth)])
            print(f"{row} against truth | {psnr(made, truth):.2f} dB | {psnr(flat, truth):.2f} dB (ground colour only) |")
        else:
            set_name, side = TASKS[task][0].split("/")
            other = TASKS[task][1].split("/")[1]
            some = ["%06d.png" % index for index in range(300)]
            train_in = read(os.path.join(arguments.data, set_name, side.replace("test", "train")), some)
            train_out = read(os.path.join(arguments.data, set_name, other.replace("test", "train")), some)
            mean = np.broadcast_to(train_out.mean(axis=0), truth.shape)
            mapped = colour_map(train_in[:100], train_out[:100])(inputs)
            print(f"{row} against truth | {psnr(made, truth):.2f} dB | {psnr(mean, truth):.2f} dB (mean picture), "
                  f"{psnr(mapped, truth):.2f} dB (best colour map), {psnr(inputs, truth):.2f} dB (input as it is) |")
        print(f"{row} edges correlate | {edge_correlation(made, truth):.3f} | {edge_correlation(inputs, truth):.3f} (input) |")
        if task == "sketch_to_image_stochastic":
            spread = {}
            for gamma in (0.4, 1.0):
                runs = [translate(arguments, task, names[:20], os.path.join(arguments.outputs, f"{task}_{gamma}_{seed}"),
                                  gamma, seed).astype(np.float64) for seed in (1, 2, 3)]
                spread[gamma] = np.mean([np.abs(a - b).mean() for i, a in enumerate(runs) for b in runs[:i]])
            print(f"{row} mean difference between seeds, gamma 0.4 / gamma 1 | {spread[0.4]:.2f} / {spread[1.0]:.3f} levels "
                  f"= {spread[0.4] / max(spread[1.0], 1e-9):.0f}x | |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
