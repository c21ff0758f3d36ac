#!/usr/bin/env python3
"""Ten thousand pictures: peak memory at 100, 1,000 and 10,000, then the same list killed fifty times with --resume.

Usage: check_many.py PROGRAM TEST_MODELS [COUNT]
"""

import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import zlib

KILLS, SIDE = 50, 24
# Names are kept: three paths of about 60 bytes an input, and what the allocator adds.
BYTES_A_PICTURE = 600


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def write_png(path, seed):
    generator = random.Random(seed)
    rows = b"".join(b"\0" + generator.randbytes(3 * SIDE) for _ in range(SIDE))
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)) +
                   chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def is_whole_png(path):
    with open(path, "rb") as file:
        data = file.read()
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[-12:] == chunk(b"IEND", b"")


def peak_kilobytes(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit("exit status %x of %s" % (status, command))
    return usage.ru_maxrss


def finished(folder):
    """Number, time and size of every output that has its name: a file that is written again is another file."""
    with os.scandir(folder) as entries:
        found = {}
        for entry in entries:
            if entry.name.endswith(".png"):
                status = entry.stat()
                found[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found


def check_kills(command, log, output):
    seen, logged, kills = {}, {}, 0
    wait = 0.3
    while True:
        with open(log, "wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
            try:
                process.wait(random.uniform(0.05, 2 * wait) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with open(log, errors="replace") as file:
            for line in file:
                if line.endswith("}\n") and "skipped" not in line:
                    name = json.loads(line)["output"]
                    logged[name] = logged.get(name, 0) + 1
        now = finished(output) if os.path.isdir(output) else {}
        for name, file in seen.items():
            if now.get(name) != file:
                sys.exit("%s was written twice or is gone, after %d kills" % (name, kills))
        wait = wait * 1.3 if len(now) == len(seen) else wait  # a slow machine gets further before the next one
        seen = now
        if process.returncode == 0:
            return seen, logged, kills
        if process.returncode != -9:
            sys.exit("exit %d" % process.returncode)
        kills += 1


def main():
    program, models = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 10000
    random.seed(6)
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(folder + "/in")
        names = [folder + "/in/%05d.png" % i for i in range(count)]
        for i, name in enumerate(names):
            write_png(name, i)
        common = [program, "translate", "-q", "-b", models + "/base_a", "-c", models + "/base_a_day_night.pkl", "-t",
                  "day_to_night", "--image-prep", "no_resize"]
        peaks = {}
        for some in (count // 100, count // 10, count):
            with open(folder + "/list", "w") as file:
                file.write("\n".join(names[:some]))
            start = time.monotonic()
            peaks[some] = peak_kilobytes(common + ["-i", "@" + folder + "/list", "-o", folder + "/out%d" % some])
            print("%5d pictures: %.1f s, peak memory %.1f MB" % (some, time.monotonic() - start, peaks[some] / 1e3))
        growth = (peaks[count] - peaks[count // 100]) * 1024
        if growth > BYTES_A_PICTURE * count + (2 << 20):
            sys.exit("memory grows by %d bytes a picture" % (growth / count))

        output = folder + "/killed"
        seen, logged, kills = check_kills(
            common + ["-i", folder + "/in", "-o", output, "--resume", "--json"], folder + "/log", output)
        twice = [name for name, times in logged.items() if times > 1]
        half = [name for name in seen if not is_whole_png(output + "/" + name)]
        different = 0
        for name in seen:
            with open(output + "/" + name, "rb") as one, open(folder + "/out%d/%s" % (count, name), "rb") as other:
                different += one.read() != other.read()
        print("%d kills: %d of %d files, %d half-written, %d done twice, %d of other bytes than undisturbed" %
              (kills, len(seen), count, len(half), len(twice), different))
        return kills < min(KILLS, 5) or len(seen) != count or bool(half or twice or different)


sys.exit(main())
