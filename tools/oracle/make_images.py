"""Makes the goldens of picture preparation: Lanczos, Canny, and reading files as Pillow's convert("RGB").

Needs numpy, opencv-python-headless and Pillow <= 12.3 (Pillow 13 swaps Lanczos' passes for some sizes).

    make_images.py --output tests/golden [--photographs FOLDER]
"""

import argparse
import glob
import io
import os
import zlib

import cv2
import numpy as np
from PIL import Image, ImageOps

from generated_image import PATTERNS, generated_image
from png_writer import write_png


def crc(array):
    return f"{zlib.crc32(np.ascontiguousarray(array).tobytes()):08x}"


def lanczos(array, width, height):
    return np.asarray(Image.fromarray(array).resize((width, height), Image.LANCZOS))


def canny(array, low, high):
    return cv2.Canny(array, low, high)


def lanczos_sizes(random):
    """Input and output sizes: special ones first, then random ones."""
    yield from [
        (1, 1, 1, 1), (1, 1, 8, 8), (1, 1, 64, 3), (2, 1, 1, 2), (8, 8, 8, 8), (9, 9, 8, 8), (15, 9, 8, 8), (16, 16, 8, 8),
        (33, 47, 32, 40), (100, 75, 96, 72), (64, 64, 512, 512), (512, 40, 256, 256), (40, 512, 256, 256), (300, 3, 8, 64),
        (3, 300, 64, 8), (257, 129, 256, 128), (129, 257, 128, 256), (7, 7, 100, 100), (100, 100, 7, 7), (200, 100, 200, 50),
        (200, 100, 100, 100), (640, 360, 512, 512), (200, 150, 286, 286), (31, 64, 31, 512), (512, 512, 48, 24),
        (20, 400, 20, 8), (30, 500, 25, 8), (500, 30, 8, 25), (1000, 2, 1, 1), (2, 1000, 1, 1),
    ]
    for _ in range(300):
        yield tuple(int(value) for value in random.integers(1, random.choice([12, 40, 150, 400]), 4))


def canny_cases(random):
    """Sizes and thresholds: special ones first, then random ones."""
    thresholds = [(100, 200), (200, 100), (100, 100), (0, 0), (0, 255), (50, 150), (1, 2), (254, 255), (400, 900), (1500, 3000),
                  (300, 40), (10, 5000), (32767, 32768)]
    for pair in thresholds:
        for width, height in ((64, 48), (33, 17)):
            yield width, height, *pair
    for size in ((1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (8, 8), (8, 64), (512, 64), (5, 300)):
        yield *size, 100, 200
    for _ in range(160):
        width, height = random.integers(1, random.choice([12, 40, 200]), 2)
        low, high = random.integers(0, random.choice([60, 300, 1200]), 2)
        yield int(width), int(height), int(low), int(high)


def write_lanczos(folder):
    os.makedirs(folder, exist_ok=True)
    random = np.random.default_rng(1)
    with open(os.path.join(folder, "generated.tsv"), "w") as file:
        for index, (width, height, new_width, new_height) in enumerate(lanczos_sizes(random)):
            pattern = index % PATTERNS
            result = lanczos(generated_image(pattern, index, width, height), new_width, new_height)
            file.write(f"{pattern}\t{index}\t{width}\t{height}\t{new_width}\t{new_height}\t{crc(result)}\n")


def write_canny(folder, photographs):
    os.makedirs(folder, exist_ok=True)
    random = np.random.default_rng(2)
    with open(os.path.join(folder, "generated.tsv"), "w") as file:
        for index, (width, height, low, high) in enumerate(canny_cases(random)):
            for pattern in ({0, 2, 3, 4} if index < 26 else {index % PATTERNS}):
                result = canny(generated_image(pattern, index, width, height), low, high)
                file.write(f"{pattern}\t{index}\t{width}\t{height}\t{low}\t{high}\t{crc(result)}\t{int((result > 0).sum())}\n")
    if photographs:
        with open(os.path.join(folder, "photographs.tsv"), "w") as file:
            for path in sorted(glob.glob(os.path.join(photographs, "*.png"))):
                name = os.path.basename(path)
                picture = Image.open(path).convert("RGB")
                box = (picture.width // 3, picture.height // 3)
                picture.crop((*box, box[0] + 161, box[1] + 119)).save(os.path.join(folder, name), optimize=True)
                array = np.asarray(Image.open(os.path.join(folder, name)).convert("RGB"))
                for low, high in ((100, 200), (50, 100), (20, 300), (200, 100)):
                    file.write(f"{name}\t{low}\t{high}\t{crc(canny(array, low, high))}\t{crc(lanczos(array, 160, 112))}\n")


def png_files():
    """(name, bytes) of PNG files of every colour type and bit depth, plain and interlaced, with and without tRNS."""
    random = np.random.default_rng(3)
    width, height = 21, 14
    for colour, channels, depths in ((0, 1, (1, 2, 4, 8, 16)), (2, 3, (8, 16)), (3, 1, (1, 2, 4, 8)), (4, 2, (8, 16)), (6, 4, (8, 16))):
        name = {0: "grey", 2: "rgb", 3: "palette", 4: "grey_alpha", 6: "rgba"}[colour]
        for depth in depths:
            ramp = np.linspace(0, 2 ** depth - 1, width * height * channels).reshape(height, width, channels)
            samples = np.clip(ramp + random.integers(-2, 3, ramp.shape), 0, 2 ** depth - 1).astype(np.int64)
            if colour == 0 and depth == 16:
                samples[:, ::2] >>= 7  # values around 255, where clipping starts
            palette = random.integers(0, 256, (2 ** depth, 3)) if colour == 3 else None
            for interlaced in (False, True):
                yield f"png_{name}_{depth}{'_interlaced' if interlaced else ''}.png", write_png(
                    samples, colour, depth, palette=palette, interlaced=interlaced)
            if colour == 3:
                yield f"png_{name}_{depth}_trns.png", write_png(
                    samples, colour, depth, palette=palette, transparency=bytes(random.integers(0, 256, 2 ** depth).tolist()))
            elif colour in (0, 2):
                value = samples[3, 3]
                yield f"png_{name}_{depth}_trns.png", write_png(
                    samples, colour, depth, transparency=b"".join(int(part).to_bytes(2, "big") for part in value))
    samples = random.integers(0, 256, (9, 11, 3))
    for chunk, data in ((b"gAMA", (100000).to_bytes(4, "big")), (b"sRGB", b"\0"), (b"tEXt", b"Comment\0hello")):
        yield f"png_rgb_8_{chunk.decode().lower()}.png", write_png(samples, 2, 8, extra=[(chunk, data)])
    yield "png_grey_8_1x1.png", write_png(random.integers(0, 256, (1, 1, 1)), 0, 8)
    yield "png_rgb_8_1x9_interlaced.png", write_png(random.integers(0, 256, (9, 1, 3)), 2, 8, interlaced=True)
    yield "png_rgb_8_5x1_interlaced.png", write_png(random.integers(0, 256, (1, 5, 3)), 2, 8, interlaced=True)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_and_webp_files():
    picture = Image.fromarray(generated_image(4, 5, 37, 27))
    grey, cmyk = picture.convert("L"), picture.convert("CMYK")
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.fromarray(generated_image(2, 6, 37, 27)[:, :, 0]))
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"jpeg_{name}.jpg", saved(picture, "JPEG", quality=90, subsampling=subsampling)
        yield f"jpeg_{name}_progressive.jpg", saved(picture, "JPEG", quality=60, subsampling=subsampling, progressive=True)
    yield "jpeg_grey.jpg", saved(grey, "JPEG", quality=85)
    yield "jpeg_cmyk.jpg", saved(cmyk, "JPEG", quality=95)
    yield "jpeg_restart.jpg", saved(picture, "JPEG", quality=80, restart_marker_blocks=2)
    yield "jpeg_1x1.jpg", saved(picture.crop((3, 3, 4, 4)), "JPEG")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"jpeg_orientation_{orientation}.jpg", saved(picture, "JPEG", quality=90, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "png_orientation_6.png", saved(picture, "PNG", exif=exif)
    yield "webp_orientation_8.webp", saved(picture, "WEBP", lossless=True, exif=exif_bytes(8))
    yield "webp_lossy.webp", saved(picture, "WEBP", quality=80)
    yield "webp_lossy_alpha.webp", saved(alpha, "WEBP", quality=80)
    yield "webp_lossless.webp", saved(picture, "WEBP", lossless=True)
    yield "webp_lossless_alpha.webp", saved(alpha, "WEBP", lossless=True, exact=True)


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def write_files(folder):
    """Each file, and beside it the bytes that Pillow makes of it: orientation applied, convert("RGB")."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "list.tsv"), "w") as listing:
        for name, data in [*png_files(), *jpeg_and_webp_files()]:
            with open(os.path.join(folder, name), "wb") as file:
                file.write(data)
            array = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
            with open(os.path.join(folder, name + ".rgb"), "wb") as file:
                file.write(array.tobytes())
            listing.write(f"{name}\t{array.shape[1]}\t{array.shape[0]}\t{crc(array)}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--photographs", help="a folder of PNG files to cut pieces from")
    arguments = parser.parse_args()
    write_lanczos(os.path.join(arguments.output, "lanczos"))
    write_canny(os.path.join(arguments.output, "canny"), arguments.photographs)
    write_files(os.path.join(arguments.output, "images"))


if __name__ == "__main__":
    main()
