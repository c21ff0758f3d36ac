"""Makes the random-number goldens in tests/golden/random (formats: tests/golden/README.md). Needs PyTorch."""

import argparse
import os

import numpy as np
import torch

from noise import philox_normal, philox_words, torch_seed

PUBLISHED_CUDA_SEED_0 = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122,
                         -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497]
SEEDS = [0, 1, 42, 123456789, 4294967295, 4294967296, 4294967338, 9223372036854775807, -1, -2, -42, -9223372036854775808]
# One generator makes each row's draws one after another: 8x8, 8x16 and 8x24 pixels have 4, 8 and 12 latent values.
DRAWS = [[4, 4, 4], [8, 8], [12, 12], [1, 1, 3, 16, 2], [5, 7], [15, 15], [16, 16, 16], [17, 17], [20, 20, 4], [23], [24, 24],
         [28, 28], [31], [32, 32], [33, 33], [40], [48, 48], [60, 60], [63], [64, 64], [100], [256, 256]]


def words_of_mersenne_twister(seed, count):
    generator = np.random.RandomState(torch_seed(seed) & 0xFFFFFFFF)
    words = np.array([generator._bit_generator.random_raw() for _ in range(count)], np.uint64)
    torch.manual_seed(seed)
    uniforms = torch.rand(count).double().numpy()
    assert (uniforms == (words & np.uint64(0xFFFFFF)).astype(np.float64) * 2.0 ** -24).all(), "not torch's generator"
    return words


def text(values):
    return " ".join(f"{float(value):.9g}" for value in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True)
    output = parser.parse_args().output
    os.makedirs(output, exist_ok=True)
    assert np.abs(philox_normal(0, 0, 12) - PUBLISHED_CUDA_SEED_0).max() < 1e-6
    with open(os.path.join(output, "cpu_words.tsv"), "w") as file:
        for seed in SEEDS:
            file.write(f"{seed}\t{' '.join(f'{word:08x}' for word in words_of_mersenne_twister(seed, 1300))}\n")
    with open(os.path.join(output, "cpu_normal.tsv"), "w") as file:
        for index, seed in enumerate(SEEDS):
            draws = DRAWS if index < 3 or seed < -2 else DRAWS[::3]
            for sizes in draws + ([[1024, 1024]] if seed == 42 else []):
                torch.manual_seed(seed)
                values = torch.cat([torch.randn(size) for size in sizes])
                file.write(f"{seed}\t{' '.join(map(str, sizes))}\t{text(values)}\n")
    with open(os.path.join(output, "cuda.tsv"), "w") as file:
        for seed in SEEDS:
            for draw in (0, 1, 2):
                for count in [12, 64] + ([1024] if seed in (0, 42) else []):
                    words = philox_words(seed, draw, count)[:, :2]
                    pairs = " ".join(f"{first:08x},{second:08x}" for first, second in words)
                    file.write(f"{seed}\t{draw}\t{count}\t{pairs}\t{text(philox_normal(seed, draw, count))}\n")


if __name__ == "__main__":
    main()
