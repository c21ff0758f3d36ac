"""Writes the versions that the goldens were made with: versions.py --title TEXT >> tests/golden/VERSIONS.txt"""

import argparse
import platform
import sys
from importlib.metadata import version

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "tokenizers", "peft", "accelerate", "huggingface_hub",
            "safetensors", "numpy", "pillow", "opencv-python-headless")


def installed():
    """Package -> version."""
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", required=True)
    print(f"[{parser.parse_args().title}]\npython {platform.python_version()} on {sys.platform} {platform.machine()}")
    for package in PACKAGES:
        print(package, version(package))
    print()


if __name__ == "__main__":
    main()
