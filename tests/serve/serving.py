"""Starts `onestep serve` on a free port and speaks to it, with Python's standard library only."""
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import threading
import time
import zlib

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODELS = os.path.join(ROOT, "tests", "golden", "models")
TASKS = ",".join(f"{task}={MODELS}/base_a_{file}.pkl" for task, file in (
    ("edge_to_image", "edge"), ("sketch_to_image_stochastic", "sketch"),
    ("day_to_night", "day_night"), ("night_to_day", "day_night"), ("mine", "edge")))


class Server:
    """The program on the golden models (or with `demo`); standard error is kept in `log`."""

    def __init__(self, program, *options, demo=False, env=None):
        which = ["--demo"] if demo else ["-b", f"{MODELS}/base_a", "--tasks", TASKS]
        self.process = subprocess.Popen(
            [program, "serve", *which, "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        line = self.process.stdout.readline()
        found = re.search(r"http://(.+):(\d+)/", line)
        if not found:
            raise RuntimeError(f"no address: {line}{self.process.communicate(timeout=30)[1]}")
        self.host, self.port = found.group(1), int(found.group(2))
        self.log = []
        self.reader = threading.Thread(target=self._read_log)
        self.reader.start()

    def _read_log(self):
        for line in self.process.stderr:
            self.log.append(line)

    def await_ready(self, seconds=120):
        end = time.monotonic() + seconds
        while self.get("/readyz").status != 200:
            if time.monotonic() > end:
                raise RuntimeError("never ready")
            time.sleep(0.02)

    def request(self, method, path, body=None, headers=None, timeout=60):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            response.content = response.read()
            return response
        finally:
            connection.close()

    def get(self, path, headers=None):
        return self.request("GET", path, None, headers)

    def post_form(self, path, fields, headers=None, timeout=60):
        body, content_type = multipart(fields)
        return self.request("POST", path, body, {"Content-Type": content_type, **(headers or {})},
                            timeout)

    def post_json(self, path, content, headers=None):
        return self.request("POST", path, json.dumps(content).encode(),
                            {"Content-Type": "application/json", **(headers or {})})

    def metric(self, name):
        text = self.get("/metrics").content.decode()
        return sum(float(value) for value in re.findall(
            rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def stop(self, number=signal.SIGTERM):
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def multipart(fields):
    """Body and content type; bytes are the picture, everything else a text."""
    boundary = "limit-of-a-part"
    parts = []
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += '; filename="a;b.png"\r\nContent-Type: image/png'
        else:
            value = str(value).encode()
        parts.append(head.encode() + b"\r\n\r\n" + value + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), \
        f"multipart/form-data; boundary={boundary}"


def png(width, height, pixel):
    """A PNG file; `pixel(x, y)` gives (r, g, b), or is the colour of all."""
    if isinstance(pixel, tuple):
        rows = (b"\0" + bytes(pixel) * width) * height
    else:
        rows = b"".join(b"\0" + bytes(c for x in range(width) for c in pixel(x, y))
                        for y in range(height))

    return _png_file(width, height, 8, 2, rows)


def png_of_one_bit(width, height):
    """White at one bit a pixel: a file thousands of times smaller than its pixels."""
    return _png_file(width, height, 1, 0, (b"\0" + b"\xff" * ((width + 7) // 8)) * height)


def _png_file(width, height, depth, kind, rows):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + \
            struct.pack(">I", zlib.crc32(name + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)) \
        + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def png_pixels(data):
    """Width, height and RGB bytes of an 8-bit RGB PNG without interlacing."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:60]
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) == (8, 2)
    at, packed = 8, b""
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + size] if name == b"IDAT" else b""
        at += size + 12
    raw, stride = zlib.decompress(packed), 3 * width
    previous, pixels = bytearray(stride), b""
    for y in range(height):
        kind = raw[y * (stride + 1)]
        row = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            a = row[i - 3] if i >= 3 else 0
            b, c = previous[i], previous[i - 3] if i >= 3 else 0
            if kind == 4:
                p = a + b - c
                nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, nearest if kind == 4 else 0)[kind]) & 255
        pixels += bytes(row)
        previous = row
    return width, height, pixels
