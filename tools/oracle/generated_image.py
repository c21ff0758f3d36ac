"""Pictures made of integers only, so that the C tests can make the same ones: see tests/golden/README.md."""

import numpy as np

PATTERNS = 5


def generated_image(pattern, seed, width, height):
    """uint8 array [height, width, 3]; r below is a byte of a linear congruential generator, one a sample."""
    state = seed & 0xFFFFFFFF
    random = np.empty(height * width * 3, np.int64)
    for index in range(len(random)):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        random[index] = state >> 24
    r = random.reshape(height, width, 3)
    y, x, c = np.indices(r.shape)
    if pattern == 0:  # noise
        value = r
    elif pattern == 1:  # faint noise
        value = 100 + (r >> 4)
    elif pattern == 2:  # ramps that wrap around
        value = x * 5 + y * 3 + c * 17 + (r >> 4)
    elif pattern == 3:  # a noisy chequer
        value = np.where((x // 5 + y // 7) & 1, 200 - (r >> 3), 20 + (r >> 2))
    else:  # a disc, other contrasts in each channel
        radius = min(width, height) // 3
        inside = (x - width // 2) ** 2 + (y - height // 2) ** 2 < radius * radius
        value = np.where(inside, 120 + c * 45, 60) + (r >> 4)
    return (value & 255).astype(np.uint8)
