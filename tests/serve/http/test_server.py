"""Settings of the server process."""

import subprocess
import sys

import pytest

CODE = """
import threading, time
from cflightning_serve.http.server import limit_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

def use():
    global kept
    bytearray(8 << 20)  # which makes glibc take blocks of this size from its heaps by default
    blocks = []
    for _ in range(20):
        blocks.append(bytes(4 << 20))
        kept.append(bytes(2000))  # a small one that stays above each

kept, known = [], limit_freed_memory()
before = resident()
for _ in range(4):
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
print(known, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_returned_to_the_operating_system(environment):
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    known, grown = done.stdout.split()
    if known == "True":
        assert float(grown) < 30  # the load used 80 MB
