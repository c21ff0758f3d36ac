#!/usr/bin/env python3
"""200 clients at once on the demo models: no error other than 429, no growth of memory, a lively
/healthz, and as many pictures as the engine alone makes.
Usage: check_load.py PROGRAM [SECONDS [CLIENTS]]; ONESTEP_LOAD_RATE=0 skips what depends on time
(sanitized builds), ONESTEP_LOAD_RATE=quiet also compares pictures a second by the clock, for which
nothing else may run on the machine."""
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import time

from serving import ROOT, Server, multipart

PROGRAM = sys.argv[1]
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 60
CLIENTS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
TIMED = os.environ.get("ONESTEP_LOAD_RATE", "1") != "0"
QUIET = os.environ.get("ONESTEP_LOAD_RATE") == "quiet"

with open(f"{ROOT}/models/demo/inputs/edge_to_image_bird.png", "rb") as file:
    BODY, TYPE = multipart([("task", "edge_to_image"), ("prompt", "a blue bird on a yellow ground"),
                            ("image", file.read())])
REQUEST = (f"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {TYPE}\r\n"
           f"Content-Length: {len(BODY)}\r\n\r\n").encode() + BODY


async def ask(reader, writer, request):
    """Status, Retry-After and body."""
    writer.write(request)
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = int(re.search(r"(?i)content-length: (\d+)", head).group(1))
    retry = re.search(r"(?i)retry-after: (\d+)", head)
    return int(head.split()[1]), int(retry.group(1)) if retry else 0, \
        await reader.readexactly(length)


async def client(server, end, counts, pictures):
    while time.monotonic() < end:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            while time.monotonic() < end:
                status, retry, body = await ask(reader, writer, REQUEST)
                counts[status] = counts.get(status, 0) + 1
                if status == 200:
                    pictures.add(body)
                else:
                    break
        finally:
            writer.close()
        await asyncio.sleep(min(retry * random.uniform(0.5, 1), max(0, end - time.monotonic())))


def engine_alone():
    """Seconds and CPU seconds a picture without a server: the difference of a long and a short run."""
    def run(pictures):
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run([PROGRAM, "bench", "--demo", "-t", "edge_to_image", "--size", "128",
                        "--runs", str(pictures), "--json"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.monotonic() - begin, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [(long - short) / 200 for long, short in zip(run(220), run(20))]


def cpu_of(server):
    with open(f"/proc/{server.process.pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(server):
    with open(f"/proc/{server.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")


async def probe(server, end, times, memory):
    """/healthz ten times a second, from a connection of its own each time."""
    while time.monotonic() < end:
        begin = time.monotonic()
        reader, writer = await asyncio.open_connection(server.host, server.port)
        status, _, _ = await ask(reader, writer, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        times.append(time.monotonic() - begin)
        writer.close()
        assert status == 200, status
        memory.append(rss(server))
        await asyncio.sleep(0.1)


async def measure(server, end):
    """Pictures, the engine's seconds, CPU seconds and the clock, over the time in which all clients ask."""
    def now():
        return [server.metric("onestep_pictures_total"),
                server.metric("onestep_engine_busy_seconds_total"), cpu_of(server),
                time.monotonic()]
    first = await asyncio.to_thread(now)
    await asyncio.sleep(end - time.monotonic())
    return [b - a for a, b in zip(first, await asyncio.to_thread(now))]


async def load(server, counts, pictures, times, memory):
    end = time.monotonic() + SECONDS
    result = await asyncio.gather(measure(server, end), probe(server, end, times, memory),
                                  *(client(server, end, counts, pictures) for _ in range(CLIENTS)))
    return result[0]


def main():
    alone, alone_cpu = engine_alone() if TIMED else (None, None)
    server = Server(PROGRAM, demo=True)
    server.await_ready(600)
    counts, pictures, times, memory = {}, set(), [], []
    try:
        made, busy, cpu, wall = asyncio.run(load(server, counts, pictures, times, memory))
    finally:
        code = server.stop()
        if code:
            print("".join(line for line in server.log if not line.startswith("20")), file=sys.stderr)
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    settled = memory[len(memory) // 3:]
    growth = max(settled[-len(settled) // 4:]) - max(settled[:len(settled) // 4])
    print(f"{CLIENTS} clients, {wall:.0f} s: {made / wall:.1f} pictures/s"
          + (f" (engine alone {1 / alone:.1f}) at {cpu / made * 1000:.1f} CPU ms each (alone {alone_cpu * 1000:.1f})"
             if alone else "")
          + f", engine busy {busy / wall:.0%}; answers {dict(sorted(counts.items()))}; /healthz "
          f"median {times[len(times) // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms of {len(times)}; "
          f"memory {max(memory) / 1e6:.0f} MB, growth {growth / 1e6:+.1f} MB")
    problems = [f"status {status}" for status in counts if status not in (200, 429)]
    problems += ["no pictures"] if not counts.get(200) else []
    problems += ["pictures differ"] if len(pictures) > 1 else []
    problems += [f"exit code {code}"] if code else []
    problems += ["memory grows"] if growth > 8e6 and TIMED else []
    problems += ["/healthz is slow"] if p99 > 0.05 and TIMED else []
    problems += ["the engine idles"] if TIMED and busy / wall < 0.9 else []
    # On a busy machine the clock says little; what a picture costs is what serving adds.
    problems += ["serving costs more than a tenth"] if TIMED and cpu / made > 1.1 * alone_cpu else []
    problems += ["fewer pictures a second"] if QUIET and made / wall < 0.9 / alone else []
    if problems:
        print("".join(server.log[-3:]), *problems, sep="\n", file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
