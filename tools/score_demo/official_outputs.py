"""Translations by the official Python classes, for score.py. ONESTEP_OFFICIAL_CODE names a checkout of that code."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "oracle"))

import torch
from PIL import Image

import official


def translate(models, file, task, paths, folder, prompts, gamma, seed):
    torch.set_num_threads(1)
    code = official.load_code(official.code_folder(), os.path.abspath(os.path.join(models, "base")))
    model = official.load_model(code, task, os.path.join(models, file))
    for path in paths:
        name = os.path.basename(path)
        case = {"task": task, "seed": seed, "rng": "cpu", "prompt": prompts.get(name), "gamma": gamma,
                "image_prep": "no_resize"}
        _, picture = official.translate(code, model, case, Image.open(path).convert("RGB"))
        picture.save(os.path.join(folder, name))
