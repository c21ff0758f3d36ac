"""How fast this machine's memory is: bytes read and written a second by copying arrays that no cache holds."""

import threading
import time

import numpy as np

ARRAY_BYTES = 256 << 20
SECONDS = 2.0


def copy_for(seconds, start, rates):
    """Copies one array onto another and keeps the rate of every copy; NumPy gives up the interpreter's lock meanwhile."""
    source, target = np.ones(ARRAY_BYTES, np.uint8), np.zeros(ARRAY_BYTES, np.uint8)
    start.wait()
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        np.copyto(target, source)
        rates.append(2 * ARRAY_BYTES / (time.perf_counter() - begin))


def bandwidth(threads):
    """Of so many threads at once, each with two arrays of its own: the sum of each one's median."""
    start = threading.Barrier(threads)
    rates = [[] for _ in range(threads)]
    workers = [threading.Thread(target=copy_for, args=(SECONDS, start, one)) for one in rates]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return float(sum(np.median(one) for one in rates))


if __name__ == "__main__":
    import sys
    print(f"{bandwidth(int(sys.argv[1])) / 1e9:.1f} GB/s")
