"""Makes the pictures of this folder that tests/golden does not have, with Pillow, beside the pixels
that Pillow reads from them (FILE.rgb) and list.tsv (file, width, height, CRC-32 of the pixels).

    python make_data.py        (made with Pillow 12.3.0)
"""

import io
import os
import struct
import zlib

import PIL.features
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
WIDTH, HEIGHT = 37, 23


def picture(mode, shift, margin=0):
    """A gradient; with a margin in which everything is transparent."""
    image = Image.new(mode, (WIDTH, HEIGHT))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            pixel = [(7 * x + shift) % 256, (11 * y + 3 * x) % 256, (5 * x * y + shift) % 256]
            inside = margin <= x < WIDTH - margin and margin <= y < HEIGHT - margin
            if mode == "RGBA":
                pixel = pixel + [255] if inside else [0, 0, 0, 0]
            elif mode == "CMYK":
                pixel.append((13 * x + 2 * y) % 256)
            image.putpixel((x, y), tuple(pixel))
    return image


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, **options)
    return stream.getvalue()


def raw_rgb_jpeg():
    """Three components without colour transform, as Photoshop can write them."""
    return encoded(picture("RGB", 3), format="JPEG", quality=90, keep_rgb=True)


def text_png():
    """Texts of all three kinds; the long ones are compressed."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = encoded(picture("RGB", 5), format="PNG")
    head, tail = data[:33], data[33:]
    texts = [
        chunk(b"tEXt", "Author\0Jos\u00e9".encode("latin-1")),
        chunk(b"zTXt", b"Long\0\0" + zlib.compress(b"many words " * 50)),
        chunk(b"iTXt", b"Title\0\0\0de\0Titel\0" + "\u96e8\u2192\u6674".encode()),
        chunk(b"iTXt", b"Packed\0\1\0\0\0" + zlib.compress("\u00fc\u00f6".encode() * 9)),
    ]
    return head + b"".join(texts) + tail


FILES = {
    "jpeg_raw_rgb.jpg": raw_rgb_jpeg(),
    "jpeg_cmyk_420.jpg": encoded(picture("CMYK", 9), format="JPEG", quality=80, subsampling=2),
    "png_animated.png": encoded(
        picture("RGB", 0), format="PNG", save_all=True, append_images=[picture("RGB", 90)]
    ),
    "png_animated_default.png": encoded(
        picture("RGB", 0),
        format="PNG",
        save_all=True,
        append_images=[picture("RGB", 90), picture("RGB", 180)],
        default_image=True,
    ),
    "png_texts.png": text_png(),
    "webp_animated.webp": encoded(
        picture("RGBA", 0, 6),
        format="WEBP",
        save_all=True,
        append_images=[picture("RGBA", 90)],
        lossless=True,
    ),
    "webp_animated_lossy.webp": encoded(
        picture("RGB", 0), format="WEBP", save_all=True, append_images=[picture("RGB", 90)]
    ),
    "webp_quality_1.webp": encoded(picture("RGB", 40), format="WEBP", quality=1),
}


def generated(pattern, seed, width, height):
    """Patterns 0 to 2 of tests/golden/README.md."""
    state, samples = seed, bytearray()
    for y in range(height):
        for x in range(width):
            for c in range(3):
                state = (state * 1664525 + 1013904223) % 2**32
                r = state >> 24
                value = (r, 100 + (r >> 4), 5 * x + 3 * y + 17 * c + (r >> 4))[pattern]
                samples.append(value % 256)
    return Image.frombytes("RGB", (width, height), bytes(samples))


def write_jpeg_crcs():
    """{pattern, width, height, quality, CRC-32 of the file that Pillow writes}."""
    cases = [(0, 1, 1, 95), (2, 64, 48, 95), (1, 37, 19, 50), (2, 17, 33, 1), (0, 33, 16, 100)]
    with open(os.path.join(HERE, "jpeg_crcs.inc"), "w") as table:
        for pattern, width, height, quality in cases:
            data = encoded(generated(pattern, 11, width, height), format="JPEG", quality=quality)
            table.write(f"{{{pattern}, {width}, {height}, {quality}, 0x{zlib.crc32(data):08x}}},\n")


def main():
    write_jpeg_crcs()
    with open(os.path.join(HERE, "list.tsv"), "w") as table:
        for name, data in FILES.items():
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            pixels = image.tobytes()
            for path, content in ((name, data), (name + ".rgb", pixels)):
                with open(os.path.join(HERE, path), "wb") as file:
                    file.write(content)
            table.write(f"{name}\t{image.width}\t{image.height}\t{zlib.crc32(pixels):08x}\n")
    print("Pillow", PIL.__version__, "libwebp", PIL.features.version("webp"))


main()
