"""Memory that was freed is used again."""

from __future__ import annotations

import subprocess
import sys

BLOCKS = """
import resource, sys, threading
from outlast.memory import reuse_freed_memory

if sys.argv[1] == "reuse":
    reuse_freed_memory()

def move():
    for _ in range(50):
        block = [bytes([1]) * 65536 for _ in range(64)]

threads = [threading.Thread(target=move) for _ in range(2)]
for thread in threads:
    thread.start()
    thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_blocks_of_files_take_no_fresh_pages_each_time() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", BLOCKS, how], check=True, capture_output=True).stdout)
        for how in ("as it is", "reuse")
    }
    assert faults["reuse"] < faults["as it is"] / 5
