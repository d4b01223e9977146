"""One LXMF router over RNS in a process of its own; run by a Python that has both.

    python peer_lxmf.py FOLDER listen|connect PORT

Driven by JSON lines as ``node_process`` is.
"""

import json
import sys
import threading
import time

import LXMF
import RNS

folder, role, port = sys.argv[1], sys.argv[2], sys.argv[3]
INTERFACE = {
    "listen": f"type = TCPServerInterface\n    listen_ip = 127.0.0.1\n    listen_port = {port}",
    "connect": f"type = TCPClientInterface\n    target_host = 127.0.0.1\n    target_port = {port}",
}[role]
with open(f"{folder}/config", "w") as config:
    config.write(
        f"[reticulum]\n  enable_transport = False\n  share_instance = No\n[logging]\n  loglevel = 0\n"
        f"[interfaces]\n  [[link]]\n    {INTERFACE}\n    enabled = yes\n"
    )
RNS.Reticulum(folder, loglevel=0)
router = LXMF.LXMRouter(storagepath=f"{folder}/lxmf")
own = router.register_delivery_identity(RNS.Identity(), display_name=role)


def counters():
    return sum(i.txb for i in RNS.Transport.interfaces), sum(i.rxb for i in RNS.Transport.interfaces)


def about():
    return {"hash": own.hash.hex()}


def announce():
    router.announce(own.hash)
    return {}


def letters(to, count, size):
    target = bytes.fromhex(to)
    deadline = time.monotonic() + 60
    while not (identity := RNS.Identity.recall(target)):
        if time.monotonic() > deadline:
            raise SystemExit("the other router was never announced")
        time.sleep(0.05)
    there = RNS.Destination(identity, RNS.Destination.OUT, RNS.Destination.SINGLE, "lxmf", "delivery")
    left = threading.Semaphore(0)
    before, start = counters(), time.perf_counter()
    for number in range(count):
        message = LXMF.LXMessage(there, own, f"{number:06d}".ljust(size, "x"), "", desired_method=LXMF.LXMessage.DIRECT)
        message.register_delivery_callback(lambda _message: left.release())
        router.handle_outbound(message)
    for _ in range(count):
        if not left.acquire(timeout=120):
            raise SystemExit("a message was never delivered")
    seconds = time.perf_counter() - start
    after = counters()
    return {"seconds": seconds, "bytes_sent": after[0] - before[0], "bytes_received": after[1] - before[1]}


for line in sys.stdin:
    command, *arguments = json.loads(line)
    print(json.dumps(globals()[command](*arguments)), flush=True)
