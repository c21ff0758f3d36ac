"""Runs the golden cases with the official code and writes tests/golden/cases (format: tests/golden/README.md).

    make_golden.py --official CODE --golden tests/golden --versions pins    # with the pinned versions
    make_golden.py --official CODE --golden tests/golden --versions new     # with the newest versions
"""

import argparse
import os
import shutil

from official import STAGES, code_folder, load_code, load_model, translate

import numpy as np
import torch
from PIL import Image

from cases import CASES
from clip_vocabulary import write_json
from generated_image import generated_image

HERE = os.path.dirname(os.path.abspath(__file__))


def thresholds(stages, scheduler):
    """The design's relative errors a stage: `reference` and `f32` (x0 and decoded grow as the last step amplifies)."""
    growth = 1.0
    if scheduler.config.prediction_type == "epsilon":
        root = float(scheduler.alphas_cumprod[999]) ** 0.5
        growth = max(1.0, float(np.linalg.norm(stages["eps"]) / (root * np.linalg.norm(stages["x0"]))))
    scale = {"x0": growth, "decoded": growth}
    return {name: {"reference": 1e-5 * scale.get(name, 1), "f32": 1e-4 * scale.get(name, 1)}
            for name in STAGES if name in stages and name != "tokens"}


def input_picture(description):
    """A generated picture, or a piece of one of the demo's."""
    if isinstance(description[0], int):
        return Image.fromarray(generated_image(*description))
    name, left, top, width, height = description
    with Image.open(os.path.join(HERE, "../../models/demo/inputs", name)) as picture:
        return picture.convert("RGB").crop((left, top, left + width, top + height))


def run_case(case, code, golden):
    """Runs one case: (stages, input picture, output picture, the official object)."""
    official = load_code(code, os.path.join(golden, "models", case["base"]))
    model = load_model(official, case["task"], os.path.join(golden, "models", case["checkpoint"] + ".pkl"))
    picture = input_picture(case["picture"])
    stages, output = translate(official, model, case, picture)
    return stages, picture, output, model


def described(case, stages, picture, output, model):
    """What case.json holds."""
    if case["task"] in ("edge_to_image", "sketch_to_image_stochastic", "paired"):
        family, direction, caption = "paired", None, case["prompt"]
    else:
        family = "unpaired"
        direction, caption = (case["direction"], case["prompt"]) if case["task"] == "unpaired" else (model.direction, model.caption)
    result = {
        "name": case["name"], "base": os.path.normpath("models/" + case["base"]),
        "checkpoint": os.path.normpath(f"models/{case['checkpoint']}.pkl"),
        "task": None if case["task"] in ("paired", "unpaired") else case["task"], "family": family,
        "prompt": caption, "direction": direction, "seed": case["seed"], "rng": case["rng"],
        "gamma": case.get("gamma"), "image_prep": case.get("image_prep"),
        "low_threshold": None, "high_threshold": None,
        "input_width": picture.width, "input_height": picture.height,
        "control_width": stages["control"].shape[3], "control_height": stages["control"].shape[2],
        "output_width": output.width, "output_height": output.height,
        "lanczos_after": family == "unpaired" and case["image_prep"] != "no_resize",
        "tolerance": thresholds(stages, model.sched), "versions": case["versions"],
    }
    if case["task"] == "edge_to_image":
        result.update(low_threshold=case.get("low_threshold", 100), high_threshold=case.get("high_threshold", 200))
    kept = [name for name in STAGES if name in stages and (case["stages"] is None or name in case["stages"])]
    return {**result, "stages": kept}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", help="the official code (default: ONESTEP_OFFICIAL_CODE)")
    parser.add_argument("--golden", required=True, help="the folder tests/golden")
    parser.add_argument("--versions", required=True, choices=("pins", "new"))
    parser.add_argument("--only", help="only the cases whose name begins with this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        if case["versions"] != arguments.versions or not case["name"].startswith(arguments.only or ""):
            continue
        stages, picture, output, model = run_case(case, code_folder(arguments.official), arguments.golden)
        folder = os.path.join(arguments.golden, "cases", case["name"])
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        description = described(case, stages, picture, output, model)
        for name in description["stages"]:
            np.save(os.path.join(folder, name + ".npy"), stages[name])
        picture.save(os.path.join(folder, "input.png"), optimize=True)
        output.save(os.path.join(folder, "output.png"), optimize=True)
        write_json(os.path.join(folder, "case.json"), description)
        size = sum(entry.stat().st_size for entry in os.scandir(folder))
        clipped = float((np.abs(stages["decoded"]) >= 1).mean())
        print(f"{case['name']:24} {size / 1024:7.0f} KiB  x {stages['unet_in'].std():6.3f}  "
              f"|eps-x|/|x| {np.linalg.norm(stages['eps'] - stages['unet_in']) / np.linalg.norm(stages['unet_in']):6.3f}  "
              f"x0 {stages['x0'].std():6.3f}  decoded {stages['decoded'].std():5.3f}, {clipped:.1%} clipped", flush=True)


if __name__ == "__main__":
    main()
