#!/usr/bin/env python3
"""What `onestep translate` draws on a terminal: the bar with the time left, colours, and pictures with --show.

Usage: check_terminal.py PROGRAM TEST_MODELS
"""

import base64
import os
import pty
import re
import shutil
import struct
import sys
import tempfile
import zlib

failures = []


def expect(condition, what):
    if not condition:
        failures.append(what)


def run(arguments, terminal, **environment):
    """Exit code and everything that the program wrote on a terminal of its own."""
    child, side = pty.fork()
    if child == 0:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "ASAN_OPTIONS", "TSAN_OPTIONS") if name in os.environ}
        os.execve(arguments[0], arguments, {**kept, "TERM": terminal, **environment})
    written = b""
    while True:
        try:
            piece = os.read(side, 65536)
        except OSError:  # the other side was closed
            break
        if not piece:
            break
        written += piece
    os.close(side)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), written


def read_png(data):
    """Width, height and the unpacked rows (with their filter bytes) of a PNG."""
    expect(data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG")
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        expect(zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], "wrong sum of a chunk")
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    return size + (zlib.decompress(packed),)


def kitty_pictures(written):
    """The pictures that kitty would draw: chunks of at most 4096 characters, m=1 but for the last."""
    pictures, collected = [], ""
    for control, payload in re.findall(rb"\x1b_G([^;\x1b]*);([^\x1b]*)\x1b\\", written):
        keys = dict(pair.split("=") for pair in control.decode().split(","))
        expect(len(payload) <= 4096 and len(payload) % 4 == 0, "a chunk of %d characters" % len(payload))
        expect(collected or (keys.get("a") == "T" and keys.get("f") == "100"), "the first chunk says what it is: %s" % keys)
        collected += payload.decode()
        if keys["m"] == "0":
            pictures.append(base64.b64decode(collected, validate=True))
            collected = ""
    expect(collected == "", "the last chunk is missing")
    return pictures


def iterm2_pictures(written):
    pictures = []
    for size, payload in re.findall(rb"\x1b\]1337;File=inline=1;size=(\d+):([^\x07]*)\x07", written):
        pictures.append(base64.b64decode(payload, validate=True))
        expect(len(pictures[-1]) == int(size), "the size that is told is wrong")
    return pictures


def main():
    program, models = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    picture = os.path.join(models, "../cases/a_edge_64x64/input.png")
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/in")
        for i in range(3):
            shutil.copy(picture, folder + "/in/%d.png" % i)
        command = [program, "translate", "-b", models + "/base_a", "-c", models + "/base_a_edge.pkl", "-p", "x", "-i", folder + "/in",
                   "-o", folder + "/out"]

        for terminal, environment, pictures_of in (
                ("xterm-kitty", {}, kitty_pictures), ("xterm-256color", {"TERM_PROGRAM": "iTerm.app"}, iterm2_pictures)):
            code, written = run(command + ["--show"], terminal, **environment)
            found = pictures_of(written)
            expect(code == 0 and len(found) == 3, "%s: exit %d, %d pictures" % (terminal, code, len(found)))
            for i, data in enumerate(found):
                with open(folder + "/out/%d.png" % i, "rb") as file:
                    expect(read_png(data) == read_png(file.read()), "%s: picture %d is not the file's" % (terminal, i))
        code, written = run(command + ["--show"], "vt100")
        expect(code == 2 and b"--show" in written, "a terminal without pictures: exit %d, %r" % (code, written))

        # Long enough for the bar to know the time left: it is told after half a second.
        slow = command + ["--backend", "reference", "--threads", "1", "-n", "30"]
        code, written = run(slow, "xterm")
        expect(code == 0, "exit %d: %r" % (code, written))
        expect(re.search(rb"\r[^\r]*\[#+\.+\] +\d+ % +[\d.]+ (s|min|h) left", written), "no bar with the time left: %r" % written[:600])
        expect(b"3 done, 0 skipped, 0 failed" in written, "no summary: %r" % written[-200:])
        code, written = run(slow + ["-q"], "xterm")
        expect(code == 0 and written == b"", "-q writes %r" % written)

        wrong = [program, "translate", "--tusk", "x"]
        expect(b"\x1b[" in run(wrong, "xterm")[1], "no colour on a terminal")
        expect(b"\x1b[" not in run(wrong, "xterm", NO_COLOR="1")[1], "colour in spite of NO_COLOR")
        expect(b"\x1b[" not in run(wrong, "dumb")[1], "colour on a dumb terminal")

    for failure in failures:
        print(failure)
    print("%d failed" % len(failures))
    return bool(failures)


sys.exit(main())
