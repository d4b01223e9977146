"""A hotspot: the QR code by which a phone joins a Wi-Fi, and starting one through NetworkManager where it is there."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outlast.edges.gate import Access, Web, route
from outlast.edges.residents import keep
from outlast.errors import StorageError, UsageError
from outlast.kernel import Person
from outlast.ui.languages import marked
from outlast.ui.page import fields, go, render

ROW: Final = "web/hotspot"
CONNECTION: Final = "outlast-hotspot"
"""What the hotspot is called among NetworkManager's connections."""
START_S: Final = 60.0
LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"
"""Of a password that people type: none that is taken for another."""
NOTICES: Final = {
    "hotspot-on": marked("The hotspot is on."),
    "hotspot-off": marked("The hotspot is off."),
}


class Network(msgspec.Struct, array_like=True, frozen=True):
    """A Wi-Fi: its name, and its password, which is empty for an open one."""

    ssid: str
    password: str


def checked(ssid: str, password: str) -> Network:
    """A network whose name and password Wi-Fi allows (IEEE 802.11: 1 to 32 bytes; WPA: 8 to 63 letters of ASCII).

    Raises UsageError for another one.
    """
    if not 1 <= len(ssid.encode(errors="replace")) <= 32 or not ssid.isprintable():
        raise UsageError("the name of a Wi-Fi has 1 to 32 bytes")
    if password and not (8 <= len(password) <= 63 and password.isascii() and password.isprintable()):
        raise UsageError("the password of a Wi-Fi has 8 to 63 letters, digits and signs of ASCII")
    return Network(ssid, password)


def wifi_text(network: Network) -> str:
    """What the QR code of a Wi-Fi says, as phones read it (ZXing's ``WIFI:`` form, WPA3 specification §7.1)."""
    kind = (
        f"T:WPA;S:{escaped(network.ssid)};P:{escaped(network.password)};"
        if network.password
        else (f"T:nopass;S:{escaped(network.ssid)};")
    )
    return f"WIFI:{kind};"


def escaped(text: str) -> str:
    """A field with its special signs escaped; one that could be read as hexadecimal stands in quotes."""
    plain = "".join(f"\\{sign}" if sign in '\\;,:"' else sign for sign in text)
    is_hex = len(text) % 2 == 0 and text != "" and all(sign in "0123456789abcdefABCDEF" for sign in text)
    return f'"{plain}"' if is_hex else plain


def new_password() -> str:
    """A password that can be read out and typed: 12 letters, about 59 bits."""
    return "".join(secrets.choice(LETTERS) for _ in range(12))


# ---- NetworkManager ----


def added(network: Network) -> list[str]:
    """nmcli's words for the hotspot: its clients are kept apart, and its password is not kept by NetworkManager."""
    words = ["connection", "add", "save", "no", "type", "wifi", "ifname", "*", "con-name", CONNECTION]
    words += ["autoconnect", "no", "ssid", network.ssid, "802-11-wireless.mode", "ap"]
    words += ["802-11-wireless.ap-isolation", "1", "ipv4.method", "shared", "ipv6.method", "disabled"]
    if network.password:
        words += ["802-11-wireless-security.key-mgmt", "wpa-psk", "802-11-wireless-security.psk-flags", "2"]
    return words


async def start(network: Network) -> None:
    """Start a hotspot by nmcli; raises StorageError with the one line that says why it cannot."""
    await stop()
    await _nmcli(added(network))
    # By stdin: what stands in the words of a command can be read by every program of the computer.
    secret = f"802-11-wireless-security.psk:{octal(network.password)}\n" if network.password else ""
    try:
        await _nmcli(["connection", "up", "id", CONNECTION, "passwd-file", "/dev/stdin"], secret)
    except StorageError:
        await stop()
        raise


def octal(password: str) -> str:
    """A password as nmcli reads it from a file: it takes a backslash for the beginning of a number, and spaces away."""
    return "".join(f"\\{ord(sign):03o}" if sign in "\\ " else sign for sign in password)


async def stop() -> None:
    """Stop and forget the hotspot, if it is there."""
    try:
        await _nmcli(["connection", "delete", "id", CONNECTION])
    except StorageError:
        return


def can_start() -> bool:
    """Whether this computer has NetworkManager's command."""
    return shutil.which("nmcli") is not None


async def _nmcli(words: list[str], secret: str = "") -> None:
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec("nmcli", *words, stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError:
        raise StorageError("this computer has no NetworkManager: start the hotspot in its own settings") from None
    try:
        async with asyncio.timeout(START_S):
            out, err = await process.communicate(secret.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise StorageError("the hotspot did not start: NetworkManager does not answer") from None
    if process.returncode:
        lines = (err or out).decode(errors="replace").strip().splitlines()
        raise StorageError(
            "the hotspot cannot be started: %(reason)s", reason=lines[-1] if lines else "NetworkManager refused"
        )


# ---- the page ----


def routes() -> list[Route]:
    """The page of the hotspot, at the computer that makes it."""
    return [
        route("/hotspot", "GET", page, Access.OWNER),
        route("/hotspot", "POST", name, Access.OWNER),
        route("/hotspot/start", "POST", switch_on, Access.OWNER),
        route("/hotspot/stop", "POST", switch_off, Access.OWNER),
    ]


def network_of(person: Person) -> Network | None:
    """The network that was named here last."""
    row = person.vault.meta(ROW)
    return msgspec.msgpack.decode(row, type=Network) if row else None


async def page(request: Request) -> Response:
    """The two codes for a phone, one after the other: the Wi-Fi's, then this node's."""
    web: Web = request.state.web
    network = network_of(request.state.person)
    return render(
        request,
        "hotspot.html",
        network=network,
        code=wifi_text(network) if network else "",
        proposed=new_password(),
        can_start=can_start(),
        lan=web.lan,
        urls=web.lan_urls(),
    )


async def name(request: Request) -> Response:
    """Name the network."""
    form = await fields(request)
    network = checked(form.get("ssid", ""), form.get("password", ""))
    await keep(request.state.person, ROW, msgspec.msgpack.encode(network))
    return go("/hotspot")


async def switch_on(request: Request) -> Response:
    """Start the hotspot that was named."""
    network = network_of(request.state.person)
    if network is None:
        raise UsageError("name the network first")
    await start(network)
    return go("/hotspot", "hotspot-on")


async def switch_off(_request: Request) -> Response:
    """Stop it."""
    await stop()
    return go("/hotspot", "hotspot-off")
