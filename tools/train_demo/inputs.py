"""Copies the demo's bundled inputs out of the toy world's test pictures: inputs.py DATA OUTPUT"""
import json
import os
import shutil
import sys

CHOSEN = [("edge_to_image", "things/test_A", [(2, "bird"), (12, "car"), (23, "mushroom"), (46, "butterfly")]),
          ("sketch_to_image_stochastic", "sketches/test_A", [(16, "cat"), (33, "fish"), (24, "boat"), (3, "house")]),
          ("day_to_night", "day_night/test_A", [(3, "street_1"), (9, "street_2"), (12, "street_3")]),
          ("night_to_day", "day_night/test_B", [(4, "street_1"), (7, "street_2"), (18, "street_3")]),
          ("clear_to_rainy", "clear_rainy/test_A", [(4, "street_1"), (10, "street_2"), (19, "street_3")]),
          ("rainy_to_clear", "clear_rainy/test_B", [(3, "street_1"), (9, "street_2"), (16, "street_3")])]

data, output = sys.argv[1:]
with open(f"{data}/things/test_prompts.json") as file:
    prompts = json.load(file)
os.makedirs(output, exist_ok=True)
entries = []
for task, folder, pictures in CHOSEN:
    for number, name in pictures:
        target = f"{task}_{name}.png"
        shutil.copyfile(f"{data}/{folder}/{number:06d}.png", f"{output}/{target}")
        entry = {"task": task, "file": target}
        if not name.startswith("street"):
            entry["prompt"] = prompts[f"{number:06d}.png"]
        entries.append(entry)
with open(f"{output}/inputs.json", "w") as file:
    json.dump(entries, file, indent=2)
    file.write("\n")
