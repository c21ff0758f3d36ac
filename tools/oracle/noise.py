"""The random numbers that the official code draws: CUDA's (Philox, as torch uses curand) and the CPU's (torch itself)."""

import numpy as np

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
INVERSE_2_32 = 2.0 ** -32


def philox_words(seed, draw, count):
    """The four output words of Philox 4x32-10 for each element: uint64 array [count, 4] of 32-bit values.

    One subsequence an element; `draw` is the number of earlier draws."""
    seed &= (1 << 64) - 1
    key = [seed & MASK, seed >> 32]
    element = np.arange(count, dtype=np.uint64)
    zero = np.zeros(count, np.uint64)
    counter = [zero + np.uint64(draw), zero, element & np.uint64(MASK), element >> np.uint64(32)]
    for _ in range(10):
        product0 = counter[0] * np.uint64(MULTIPLIERS[0])
        product1 = counter[2] * np.uint64(MULTIPLIERS[1])
        counter = [
            (product1 >> np.uint64(32)) ^ counter[1] ^ np.uint64(key[0]), product1 & np.uint64(MASK),
            (product0 >> np.uint64(32)) ^ counter[3] ^ np.uint64(key[1]), product0 & np.uint64(MASK),
        ]
        key = [(part + step) & MASK for part, step in zip(key, WEYL)]
    return np.stack(counter, axis=1)


def philox_normal(seed, draw, shape):
    """float32 normals as torch.randn(shape, device="cuda") gives them: Box-Muller's first value of each element.

    Computed in double and rounded once: the published values of a GPU agree to 1e-8. (curand's own arithmetic is single
    precision, which may differ from this by 2e-6 in rare elements.)"""
    words = philox_words(seed, draw, int(np.prod(shape))).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log(words[:, 0] * INVERSE_2_32 + INVERSE_2_32 / 2))
    angle = 2.0 * np.pi * (words[:, 1] * INVERSE_2_32 + INVERSE_2_32 / 2)
    return (radius * np.sin(angle)).astype(np.float32).reshape(shape)


def torch_seed(seed):
    """The seed as torch.manual_seed takes it: negative numbers count from 2^64."""
    return seed + (1 << 64) if seed < 0 else seed
