"""Makes ``reach-links.json``: texts that name bridges, with what they name. Run it as a script."""

from __future__ import annotations

import base64
import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import msgspec

from outlast.address import Target
from outlast.rooms.reach.proto.bridge import PluggedBridge, WebBridge
from outlast.rooms.reach.proto.links import bridge_id, read_bridge, write_bridge

AT = Target("192.0.2.7", 8443)
PRINT = "0123456789abcdef0123456789abcdef01234567"
CERT = base64.b64encode(bytes(range(52))).decode().rstrip("=")
KEY = base64.b64encode(bytes(range(32))).decode()
TEXTS = [
    "ss://YWVzLTEyOC1nY206dGVzdA@192.168.100.1:8888#Example1",
    "ss://YWVzLTEyOC1nY206dGVzdA==@Example.ORG.:8888/?outline=1",
    f"ss://2022-blake3-aes-256-gcm:{KEY.replace('=', '%3D')}@[2001:DB8:0::1]:443#two%20words",
    "ss://" + base64.b64encode(b"chacha20-ietf-poly1305:p@ss/word@192.0.2.7:8443").decode() + "#old",
    f"Bridge obfs4 192.0.2.7:8443 {PRINT} iat-mode=0 cert={CERT}",
    f"[2001:db8::1]:443 ${PRINT}",
    "192.0.2.7:8443",
    "webtunnel 192.0.2.7:8443 url=https://a.example/b?c=d",
    "<socks5h://us%3Aer:p%40ss@192.0.2.7:1080>",
    "http://a.example:3128/",
    "tricks://dns.example@192.0.2.7:443",
]
WRONG = [
    "ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7",
    "ss://YWVzLTEyOC1jZmI6dGVzdA@192.0.2.7:443",
    "ss://YWVzLTEyOC1nY206dGVzdA@192.0.2.7:443?plugin=obfs-local",
    "ss://2022-blake3-aes-256-gcm:dGVzdA@192.0.2.7:443",
    f"obfs4 192.0.2.7:8443 {PRINT} cert=AAAA",
    f"obfs4 192.0.2.7:8443 {PRINT[1:]} cert={CERT}",
    "192.0.2.7:8443 a=b",
    "outlast://bridge/kwI",
    "https://192.0.2.7:443",
    "tricks://dns.example:443/dns-query",
    "http://192.0.2.7:80/page",
]


def secret(name: str) -> bytes:
    """32 bytes that stand for chance."""
    return sha256(b"outlast/vectors/1/" + name.encode()).digest()


def made() -> dict[str, Any]:
    """The vectors."""
    own = [
        WebBridge(AT, "a.example", secret("user")),
        WebBridge(Target("2001:db8::1", 443), "192.0.2.7", secret("user"), secret("pin"), secret("node"), "two words"),
        PluggedBridge(AT, "obfs4", {"iat-mode": "0", "cert": CERT}, secret("user"), b"", "Ж"),
    ]
    cases = []
    for text in (*map(write_bridge, own), *TEXTS):
        bridge = read_bridge(text)
        fields = json.loads(msgspec.json.encode(bridge))
        cases.append({"text": text, "canonical": write_bridge(bridge), "id": bridge_id(bridge), "bridge": fields})
    return {"links": cases, "refused": WRONG}


def main() -> None:
    """Write the file."""
    file = Path(__file__).with_name("reach-links.json")
    file.write_text(json.dumps(made(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
