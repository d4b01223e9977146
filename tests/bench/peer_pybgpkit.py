"""pybgpkit-parser on one file, in a process of its own; run by a Python that has it.

    python peer_pybgpkit.py FILE

Prints what it counted and its best time of REPEATS, as one line of JSON. Its warnings go to stderr.
"""

import json
import sys
import time

from pybgpkit_parser import Parser

REPEATS = 7

best = float("inf")
for _ in range(REPEATS):
    began = time.perf_counter()
    elements = {"A": 0, "W": 0}
    prefixes = set()
    for element in Parser(url=sys.argv[1]):
        elements[element.elem_type] += 1
        prefixes.add(element.prefix)
    best = min(best, time.perf_counter() - began)
print(json.dumps({"announced": elements["A"], "withdrawn": elements["W"], "prefixes": len(prefixes), "best_s": best}))
