"""Runs targets of the table under atheris, each in a process of its own: ``python -m tests.fuzz.engine``.

The program's own code is instrumented, so that inputs which reach new branches are kept and changed further. A target
fails by an exception that its decoder does not document, by a broken property, by more than ``CPU_MAX_S`` of processor
time for one input, or by needing more than ``MEMORY_BYTES`` above what the process had at its start.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 256 * 1024 * 1024
CPU_MAX_S = 2.0
HANG_S = 10
EXECUTIONS_LEAST = 500
"""What any target tries, however slow the machine: what is asked of the reasons must not hang on its speed."""
INPUT_MAX_BYTES = 16 * 1024
_COUNTS = struct.Struct("<QQQ")


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    name: str
    executions: int
    accepted: int
    """Inputs that the decoder took."""
    refusals: int
    """How many different reasons it gave against others."""
    seeded: int
    """Branches of the program that the target's seeds reached."""
    branches: int
    """Branches that were reached in the end."""
    failure: str
    """Empty, or what libFuzzer printed, the input in base64 at its end."""


def run(targets: Sequence[Target], seed: int, seconds: float) -> Iterator[Outcome]:
    """Fuzz each target for ``seconds`` of processor time, two at a time, and for ``EXECUTIONS_LEAST`` inputs at least.

    The same ``seed`` tries the same inputs.
    """
    command = [sys.executable, "-m", "tests.fuzz.engine", str(seed), str(seconds), *(target.name for target in targets)]
    # Sets have one order, and the program is instrumented in a process that nothing else imported it into.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment, cwd=ROOT) as process:
            assert process.stdout is not None
            for line in process.stdout:
                yield Outcome(**json.loads(line))
        log.seek(0)
        assert process.returncode == 0, log.read()[-3000:].decode()


def main(arguments: list[str]) -> None:
    """``engine SEED SECONDS NAME...``: one JSON line for each target; two run at a time, each for so long."""
    import atheris

    with atheris.instrument_imports(include=["outlast", "tests.fuzz.faults"]):
        from tests.fuzz.faults import FAULTY
        from tests.fuzz.targets import TARGETS

    table = {target.name: target for target in (*TARGETS, *FAULTY)}
    seed, seconds, *names = arguments
    with tempfile.TemporaryDirectory() as folder:
        waiting, running = list(reversed(names)), dict[int, tuple[str, mmap.mmap, Path]]()
        while waiting or running:
            while waiting and len(running) < 2:
                name = waiting.pop()
                place = Path(folder, name)
                place.mkdir()
                counts = mmap.mmap(-1, _COUNTS.size)
                pid = os.fork()
                if not pid:
                    become_fuzzer(table[name], int(seed), float(seconds), place, counts)
                running[pid] = name, counts, place
            pid, status = os.wait()
            name, counts, place = running.pop(pid)
            print(json.dumps(asdict(outcome(name, counts, place, os.waitstatus_to_exitcode(status)))), flush=True)


def become_fuzzer(target: Target, seed: int, seconds: float, place: Path, counts: mmap.mmap) -> NoReturn:
    """Fuzz one target and end this process, without what the parent has to clear away."""
    code = 70
    try:
        fuzz(target, seed, seconds, place, counts)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def fuzz(target: Target, seed: int, seconds: float, place: Path, counts: mmap.mmap) -> None:
    """Fuzz one target until it has used ``seconds`` and tried enough, or has failed; ends the process."""
    import atheris

    from tests.fuzz.mutate import mutate
    from tests.fuzz.targets import NO_INPUT

    log = os.open(place / "log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    seeds = place / "seeds"
    seeds.mkdir()
    given = list(target.seeds())
    for number, data in enumerate(given):
        (seeds / str(number)).write_bytes(data)
    run = target.prepare()
    executions = accepted = 0
    reasons: set[str] = set()

    def one(data: bytes) -> None:
        nonlocal executions, accepted
        executions += 1
        start = time.thread_time()
        try:
            reason = run(data)
        except target.allowed as error:
            reason = f"{type(error).__name__}: {error}"
            if "\n" in str(error):
                raise AssertionError("an error is told in more than one line") from error
        if (took := time.thread_time() - start) > CPU_MAX_S:
            raise AssertionError(f"one input took {took:.1f} s of processor time")
        if reason is None:
            accepted += 1
        elif reason != NO_INPUT:
            reasons.add(re.sub(r"\d+|'.*'|\".*\"|`.*`|- at .*", "", reason))
        _COUNTS.pack_into(counts, 0, executions, accepted, len(reasons))
        if executions >= EXECUTIONS_LEAST and time.process_time() - began > seconds:
            os._exit(0)  # libFuzzer counts whole seconds, and those of the clock

    def changed(data: bytes, max_size: int, chance: int) -> bytes:
        # Of inputs that reach the same branches libFuzzer keeps the shortest, and msgpack's decoder, being C, has none
        # that it sees: without a way back to the seeds all that is tried would soon be too short to be anything.
        start = given[chance // 4 % len(given)] if chance % 4 == 0 else data
        return mutate(start, max_size, chance, atheris.Mutate)

    options = {
        "seed": seed,
        "timeout": HANG_S,
        "max_len": INPUT_MAX_BYTES,
        "len_control": 0,
        "rss_limit_mb": 0,
        "artifact_prefix": f"{place}/",
    }
    arguments = ["fuzz", *(f"-{name}={value}" for name, value in options.items()), str(seeds)]
    atheris.Setup(arguments, one, custom_mutator=changed)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES, taken + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = time.process_time()
    atheris.Fuzz()


def outcome(name: str, counts: mmap.mmap, place: Path, code: int) -> Outcome:
    """Read what a fuzzer left behind."""
    executions, accepted, refusals = _COUNTS.unpack_from(counts)
    log = (place / "log").read_text("utf-8", "replace")
    branches = [int(number) for number in re.findall(r" cov: (\d+)", log)] or [0]
    failure = "" if code == 0 and "Uncaught Python exception" not in log else log[-6000:]
    return Outcome(name, executions, accepted, refusals, branches[0], branches[-1], failure)


if __name__ == "__main__":
    main(sys.argv[1:])
