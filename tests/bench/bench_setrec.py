"""Reconciling 1,000,000 entries a side, beside negentropy's JavaScript reference on the same sets."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from outlast.kernel.setrec import Initiator, Responder, SetView

ITEMS = 1_000_000
# (differences, half of them on each side; buckets that the items are spread over)
WORKS = tuple((differences, buckets) for buckets in (1, 30) for differences in (0, 10, 1_000, 100_000))
BYTES_BAR = 1.0  # in one bucket; small ones pay for cuts that nobody can foresee with some bytes
CPU_BAR = 0.01  # at 10 differences in one bucket

RECORD = np.dtype([("ts", "<u4"), ("id", "u1", 32)])
Side = np.ndarray[Any, Any]  # of RECORD, in order of time

# Reads each pair of files of a folder, reconciles it, and reports what that took in all. Ids stay
# bytes: the reference would spend a part of its time on hexadecimal digits.
REFERENCE_RUN = """
const fs = require("fs"), path = require("path");
const { Negentropy, NegentropyStorageVector } = require(path.resolve(process.argv[1]));
const folder = process.argv[2];
const cpu = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };
function load(name) {
  const file = fs.readFileSync(path.join(folder, name));
  const storage = new NegentropyStorageVector();
  for (let at = 0; at < file.length; at += 36)
    storage.insert(file.readUInt32LE(at), new Uint8Array(file.subarray(at + 4, at + 36)));
  storage.seal();
  const side = new Negentropy(storage);
  side.wantUint8ArrayOutput = true;
  return side;
}
(async () => {
  const total = { build: 0, cpu: 0, bytes: 0, rounds: 0, found: 0 };
  const buckets = fs.readdirSync(folder).filter((name) => name.startsWith("client")).length;
  for (let bucket = 0; bucket < buckets; bucket++) {
    const begun = cpu();
    const client = load(`client${bucket}`), server = load(`server${bucket}`);
    const built = cpu();
    let message = await client.initiate(), rounds = 0;
    while (message !== null) {
      const [answer] = await server.reconcile(message);
      const [reply, have, need] = await client.reconcile(answer);
      total.bytes += message.length + answer.length;
      total.found += have.length + need.length;
      rounds++;
      message = reply;
    }
    total.build += built - begun;
    total.cpu += cpu() - built;
    total.rounds = Math.max(total.rounds, rounds);
  }
  console.log(JSON.stringify(total));
})();
"""


def run(reference: str | None) -> list[dict[str, Any]]:
    """Bytes, rounds and CPU of both sides together; the peer is a checkout of the reference."""
    rng = np.random.default_rng(1)
    items = np.zeros(ITEMS, RECORD)
    # No two at one timestamp, as milliseconds have it; in seconds, which the reference can hold.
    items["ts"] = 1_700_000_000 + np.cumsum(rng.integers(1, 6, ITEMS))
    items["id"] = rng.integers(0, 256, (ITEMS, 32), np.uint8)
    rows: list[dict[str, Any]] = []
    for differences, buckets in WORKS:
        pairs = list(spread(items, differences, buckets, rng))
        ours = reconcile(pairs)
        peer = reconcile_by_reference(pairs, reference) if reference else None
        assert ours["found"] == differences
        assert peer is None or peer["found"] == differences
        where = "1 bucket" if buckets == 1 else f"{buckets} buckets, one after the other"
        work = f"reconcile {ITEMS:,} a side, {differences:,} differences, {where}"
        cpu_bar = CPU_BAR if (differences, buckets) == (10, 1) else None
        rows += [
            row(work, "bytes", ours, peer, BYTES_BAR if buckets == 1 else None),
            row(work, "rounds", ours, peer, None),
            row(work, "cpu", ours, peer, cpu_bar),
            row(f"seal the two sets; then {work}", "whole", ours, peer, None),
        ]
    return rows


def row(
    work: str, what: str, ours: dict[str, float], peer: dict[str, float] | None, bar: float | None
) -> dict[str, Any]:
    """One line of the table; ``ratio`` is ours over the peer's, at most ``bar``."""
    ratio = ours[what] / peer[what] if peer else None
    return {
        "work": work,
        "unit": {"cpu": "CPU s", "whole": "CPU s"}.get(what, what),
        "ours": round(ours[what], 5),
        "peer": round(peer[what], 5) if peer else None,
        "peer_name": "negentropy (JavaScript)" if peer else None,
        "ratio": round(ratio, 5) if ratio is not None else None,
        "bar": bar if peer else None,
        "holds": ratio <= bar if ratio is not None and bar is not None else None,
    }


def spread(items: Side, differences: int, buckets: int, rng: np.random.Generator) -> Iterator[tuple[Side, Side]]:
    """The sets of both sides, bucket by bucket; scattered items are missing on one side each."""
    lacks = np.zeros((2, len(items)), bool)
    chosen = rng.permutation(len(items))[:differences]
    lacks[0, chosen[::2]] = True
    lacks[1, chosen[1::2]] = True
    bucket_of = rng.integers(0, buckets, len(items))
    for bucket in range(buckets):
        inside = bucket_of == bucket
        yield items[inside & ~lacks[0]], items[inside & ~lacks[1]]


def reconcile(pairs: list[tuple[Side, Side]]) -> dict[str, float]:
    """What it takes here."""
    total: dict[str, float] = dict.fromkeys(("build", "cpu", "bytes", "rounds", "found"), 0)
    for bucket, pair in enumerate(pairs):
        columns = [(side["ts"].astype(np.uint64), side["id"].copy()) for side in pair]
        begun = time.process_time()
        client, server = (SetView.from_sorted(ts, ids) for ts, ids in columns)
        built = time.process_time()
        initiator = Initiator(client, seed=bucket.to_bytes(32, "big"))
        responder = Responder(server)
        message: bytes | None = initiator.initiate()
        rounds = 0
        while message is not None:
            answer = responder.step(message)
            step = initiator.step(answer)
            total["bytes"] += len(message) + len(answer)
            total["found"] += len(step.have) + len(step.need)
            rounds += 1
            message = step.reply
        total["cpu"] += time.process_time() - built
        total["build"] += built - begun
        total["rounds"] = max(total["rounds"], rounds)
    return total | {"whole": total["build"] + total["cpu"]}


def reconcile_by_reference(pairs: list[tuple[Side, Side]], reference: str) -> dict[str, float]:
    """What it takes the reference, in a process of its own."""
    with TemporaryDirectory() as folder:
        for bucket, (client, server) in enumerate(pairs):
            client.tofile(Path(folder, f"client{bucket}"))
            server.tofile(Path(folder, f"server{bucket}"))
        command = ["node", "--max-old-space-size=8192", "-e", REFERENCE_RUN, "--"]
        script = str(Path(reference, "js", "Negentropy.js"))
        done = subprocess.run([*command, script, folder], check=True, stdout=subprocess.PIPE)
    total: dict[str, float] = json.loads(done.stdout)
    return total | {"whole": total["build"] + total["cpu"]}
