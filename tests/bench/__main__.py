"""Runs measurements and prints their rows as JSON lines; `dev.py bench [NAME]` is the way in.

A file `bench_NAME.py` beside this one has one function `run`. It measures ours and its peer on the
same work in the same run and returns rows {"work", "unit", "ours", "peer", "peer_name", "ratio",
"bar", "holds"}; the last five are None where there is no peer or no bar. A parameter of `run`
asks for what this machine can offer, by name; each is None when it is not there:

    peer_python    str   a Python that can import the peers (.venv-bench)
    reference      str   the checkout of the negentropy reference that OUTLAST_NEGENTROPY names
    contacts       str   a file of contacts, from `dev.py bench town --contacts FILE`
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import sys
from pathlib import Path

# What a name on the command line stands for beyond the file bench_NAME.py.
SETS = {"kernel": ("kernel", "setrec", "million")}
OFFERS: dict[str, str | None] = {
    "peer_python": os.environ.get("OUTLAST_BENCH_PYTHON"),
    "reference": os.environ.get("OUTLAST_NEGENTROPY"),
}


def main(arguments: list[str]) -> int:
    """Run the measurements that were asked for, all of them without a name; 1 when a bar fails."""
    parser = argparse.ArgumentParser(prog="dev.py bench")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--contacts", metavar="FILE", help="for town: who meets whom, in lines `t i j`")
    given = parser.parse_args(arguments)
    offers = {**OFFERS, "contacts": given.contacts}
    there = sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    wanted = [name for asked in given.names for name in SETS.get(asked, (asked,))] or there
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise SystemExit(f"No measurement is called {unknown[0]}. There are: {', '.join([*SETS, *there])}.")
    holds = True
    for name in dict.fromkeys(wanted):
        run = importlib.import_module(f"tests.bench.bench_{name}").run
        for row in run(**{asked: offers[asked] for asked in inspect.signature(run).parameters}):
            print(json.dumps(row), flush=True)
            holds = holds and row["holds"] is not False
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
