"""Certificates from an authority: Debian's pebble, which is a test authority of ACME, on loopback."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from outlast.address import Target
from outlast.errors import OutlastError, StorageError, UsageError
from outlast.rooms.reach.io.acme import Acme, certified
from outlast.rooms.reach.io.certificates import Certificate, signed
from tests.rooms.reach.websites import free_port, wait_for

NAME = "bread.example"


@contextmanager
def pebble(folder: Path, http_port: int) -> Iterator[str]:
    """The URL of an authority's directory, which looks for http-01 at that port of 127.0.0.1, whatever the name."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    own, own_key = folder / "pebble.pem", folder / "pebble-key.pem"
    own.write_bytes(signed("localhost", key, now).public_bytes(Encoding.PEM))
    own_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port, management, names, settings = free_port(), free_port(), free_port(), free_port()
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(own),
        "privateKey": str(own_key),
        "httpPort": http_port,
        "tlsPort": free_port(),
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": config}))
    resolver = ["pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", f"127.0.0.1:{names}"]
    resolver += ["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", f"127.0.0.1:{settings}"]
    authority = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{names}"]
    # Three of ten nonces are refused, as an authority may at any time: clients have to ask again (RFC 8555 §6.5).
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "30"}
    with ExitStack() as stack:
        for command, at in ((resolver, settings), (authority, port)):
            process = stack.enter_context(
                subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            wait_for(at, process)
        yield f"https://localhost:{port}/dir"


def test_an_authority_signs_what_it_sees_and_the_certificate_is_renewed_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    http_port = free_port()
    http = Target("127.0.0.1", http_port)
    with pebble(tmp_path, http_port) as directory:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "pebble.pem"))
        acme = Acme(directory, NAME, tmp_path / "made" / "for it")

        async def story() -> None:
            async with certified(acme, http, NAME, 443):
                first = Certificate(acme.certificate, acme.key, clock=iter(range(0, 1000, 100)).__next__)
                assert await asyncio.to_thread(redirected, http_port) == f"https://{NAME}/a?b=c"
                before = issued(acme)
                assert before.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
                    x509.DNSName
                ) == [NAME]
                assert not acme.due(before.not_valid_before_utc + datetime.timedelta(days=1))
                assert acme.due(
                    before.not_valid_after_utc - (before.not_valid_after_utc - before.not_valid_before_utc) / 4
                )
                in_force = first.context()
                await asyncio.to_thread(acme.obtain)  # with the account of the first time
                assert issued(acme).serial_number != before.serial_number
                assert first.context() is not in_force

        asyncio.run(story())
        assert Acme(directory, "other.example", tmp_path).due(datetime.datetime.now(datetime.UTC))


def test_an_authority_that_sees_nothing_signs_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pebble(tmp_path, free_port()) as directory:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "pebble.pem"))
        with pytest.raises(OutlastError, match=r"could not see http://bread\.example/ on port 80"):
            Acme(directory, NAME, tmp_path).obtain()
    with pytest.raises(OutlastError, match="no certificate came from the authority"):
        Acme(directory, NAME, tmp_path).obtain()
    assert not (tmp_path / "acme-certificate.pem").exists()


def keep_certificate(acme: Acme, now: datetime.datetime, days_old: int, days: int) -> None:
    """As if an authority had signed it so many days ago, for so many days."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = signed(NAME, key, now)
    began = now - datetime.timedelta(days=days_old)
    certificate = (
        x509.CertificateBuilder(made.issuer, made.subject, key.public_key(), made.serial_number)
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    acme.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    acme.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class OutOfReach(Acme):
    """An authority behind a cut; ``asked`` is set when it is."""

    loop: asyncio.AbstractEventLoop
    asked: asyncio.Event

    def obtain(self) -> None:
        """There is no way."""
        self.loop.call_soon_threadsafe(self.asked.set)
        raise OutlastError("no certificate came from the authority")


def test_a_certificate_that_has_to_be_renewed_serves_while_no_authority_is_reached_and_an_expired_one_does_not(
    tmp_path: Path,
) -> None:
    now = datetime.datetime.now(datetime.UTC)

    async def story(days_old: int, is_whole: bool = True) -> None:
        acme = OutOfReach("https://127.0.0.1:1/dir", NAME, tmp_path)
        acme.loop, acme.asked = asyncio.get_running_loop(), asyncio.Event()
        keep_certificate(acme, now, days_old, 90)
        if not is_whole:  # the process was killed between the two files of a renewed one
            other = ec.generate_private_key(ec.SECP256R1())
            acme.key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        async with certified(acme, Target("127.0.0.1", free_port()), NAME, 443), asyncio.timeout(10):
            await acme.asked.wait()
            Certificate(acme.certificate, acme.key)

    asyncio.run(story(days_old=70))
    with pytest.raises(OutlastError, match="no certificate came"):
        asyncio.run(story(days_old=91))
    with pytest.raises(OutlastError, match="no certificate came"):
        asyncio.run(story(days_old=70, is_whole=False))


def test_a_certificate_that_cannot_be_kept_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot be kept in .*: "):
        Acme("https://localhost/dir", NAME, tmp_path / "file").obtain()


def test_no_authority_is_asked_to_sign_an_address(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--name"):
        Acme("https://localhost/dir", "192.0.2.7", tmp_path)


def issued(acme: Acme) -> x509.Certificate:
    return x509.load_pem_x509_certificate(acme.certificate.read_bytes())


def redirected(port: int) -> str:
    """Where plain HTTP leads."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(b"GET /a?b=c HTTP/1.1\r\nHost: bread.example\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 301 ")
    return next(line[10:] for line in answer.decode().split("\r\n") if line.lower().startswith("location: "))
