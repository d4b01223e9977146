"""The node's own certificate in a real browser: what it opens for a phone, and that it vouches for no other name."""

from __future__ import annotations

import io
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import segno
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from PIL import Image

from outlast.edges.https import authority
from outlast.kernel.identity import fingerprint_words
from tests.browser.phone import ARGUMENTS, CHROMIUM, PHONE, Album
from tests.e2e.machines import Elsewhere, enter, machines
from tests.e2e.program import PASSPHRASE, made, secret_file
from tests.e2e.test_cli_messages import until
from tests.unit.edges.served import served

pytestmark = pytest.mark.serial

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WHERE_IS = """
import sys, zeroconf
asked = zeroconf.AddressResolverIPv4(sys.argv[1] + ".")
asked.request(zeroconf.Zeroconf(), 20_000)
print(*asked.parsed_addresses())
"""
ALLOWED = """async () => ({
    secure: isSecureContext,
    camera: navigator.mediaDevices
        ? (await navigator.mediaDevices.getUserMedia({video: true})).getVideoTracks().map(one => one.readyState) : null,
    worker: navigator.serviceWorker
        ? await navigator.serviceWorker.register("/worker.js").then(got => got.scope, wrong => wrong.name) : null,
    notices: Notification.permission,
})"""


def run(*command: str | Path, data: bytes = b"") -> bytes:
    """What a program prints that succeeds."""
    return subprocess.run(command, input=data, check=True, capture_output=True, timeout=60).stdout


def install(home: Path, certificate: Path) -> None:
    """Trust a certificate (DER) for websites, as the settings of Chromium do for the user whose home this is."""
    base = home / ".pki" / "nssdb"
    base.mkdir(parents=True)
    run("certutil", "-d", f"sql:{base}", "-N", "--empty-password")
    run("certutil", "-d", f"sql:{base}", "-A", "-t", "C,,", "-n", "outlast", "-i", certificate)


@contextmanager
def browsing(playwright: Any, home: Path, network: str, *more: str) -> Iterator[Any]:
    """A page of the Chromium of somebody with a home of their own, on a machine of their own unless it has no name."""
    home.mkdir(exist_ok=True)
    started = home / "chromium"
    started.write_text(f'#!/bin/sh\nexec {f"ip netns exec {network} " if network else ""}{CHROMIUM} "$@"\n')
    started.chmod(0o755)
    arguments = [*ARGUMENTS, *CAMERA, *more]
    environ = {**os.environ, "HOME": str(home)}
    browser = playwright.chromium.launch(executable_path=started, args=arguments, env=environ)
    try:
        context = browser.new_context(viewport=PHONE, accept_downloads=True)
        context.route("**/worker.js", lambda route: route.fulfill(content_type="text/javascript", body="// nothing"))
        yield context.new_page()
    finally:
        browser.close()


def refusal(page: Any, url: str) -> str:
    """By which error Chromium refuses to show a page; empty when it shows it."""
    try:
        page.goto(url)
    except Exception as error:
        return str(error).partition("net::")[2].partition(" ")[0]
    return ""


def test_a_phone_with_the_certificate_may_do_everything_and_one_without_is_warned(
    playwright: Any, album: Album, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        here, there = stack.enter_context(machines(2))
        program = Elsewhere(made(tmp_path / "node", "Ala", PASSPHRASE).home, here.network)
        secret = secret_file(tmp_path)
        running = stack.enter_context(program.up("--lan", "--passphrase-file", secret, listeners=3))
        program.json("trust", "--on")
        told = until(lambda: (one := program.json("trust"))["url"] and one)

        found = subprocess.run(
            [sys.executable, "-c", WHERE_IS, told["name"]],
            capture_output=True, text=True, timeout=60, preexec_fn=partial(enter, there.network),
        )  # fmt: skip
        assert found.stdout.split() == [here.address], found.stderr
        names = f"--host-resolver-rules=MAP {told['name']} {here.address}"

        certificate = tmp_path / "outlast.crt"
        with browsing(playwright, tmp_path / "before", there.network, names) as page:
            page.goto(f"{running.at['phones']}/trust")
            album.take(page, "to be installed")
            words = [one.strip() for one in page.locator("ol.words li").all_inner_texts()]
            fingerprint = page.locator("code.mono").first.inner_text()
            with page.expect_download() as waiting:
                page.get_by_role("link", name="Download the certificate").click()
            waiting.value.save_as(certificate)
            nothing = {"secure": False, "camera": None, "worker": None, "notices": "denied"}
            assert page.evaluate(ALLOWED) == nothing, "by plain http"
            assert refusal(page, told["url"]) == "ERR_CERT_AUTHORITY_INVALID"

        computed = run("openssl", "x509", "-inform", "DER", "-in", certificate, "-noout", "-fingerprint", "-sha256")
        assert fingerprint == computed.decode().partition("=")[2].strip() == told["fingerprint"]
        assert " ".join(words) == " ".join(fingerprint_words(certificate.read_bytes())) == told["words"]

        install(tmp_path / "after", certificate)
        with browsing(playwright, tmp_path / "after", there.network, names) as page:
            answer = page.goto(told["url"])
            album.take(page, "encrypted")
            assert answer.ok
            page.get_by_label("Passphrase").fill(PASSPHRASE)
            page.get_by_role("button", name="Unlock").click()
            page.get_by_text("Hello, Ala").wait_for()
            page.goto(f"{told['url']}/people/add")
            page.get_by_role("button", name="Scan with the camera").wait_for()
            assert page.evaluate(ALLOWED) == {
                "secure": True, "camera": ["live"], "worker": f"{told['url']}/", "notices": "default",
            }  # fmt: skip


def film_of(text: str, file: Path) -> None:
    """What a camera sees before which somebody holds a QR code, as Chromium's fake camera plays it (YUV4MPEG2)."""
    drawn = io.BytesIO()
    segno.make_qr(text).save(drawn, kind="png", scale=6, border=8)
    seen = Image.new("L", (960, 720), 160)
    with Image.open(drawn) as code:
        seen.paste(code.convert("L"), (100, 30))
    grey = bytes([128]) * (960 * 720 // 2)
    file.write_bytes(b"YUV4MPEG2 W960 H720 F5:1 Ip A1:1 C420mpeg2\nFRAME\n" + seen.tobytes() + grey)


def test_a_qr_code_before_the_camera_adds_its_person(playwright: Any, album: Album, tmp_path: Path) -> None:
    with served(tmp_path / "a") as ala, served(tmp_path / "b", name="Boris") as boris:
        film_of(boris.run(boris.person.link()), tmp_path / "film.y4m")
        film = f"--use-file-for-fake-video-capture={tmp_path / 'film.y4m'}"
        with browsing(playwright, tmp_path / "home", "", film) as page:
            page.goto(ala.serving.launch_url)
            page.get_by_text("Hello, Ala").wait_for()
            page.goto(f"{ala.url}/people/add")
            page.get_by_role("button", name="Scan with the camera").click()
            page.locator("video").wait_for()
            album.take(page, "camera")
            page.get_by_text("Added. Now compare the six words").wait_for()
            assert page.get_by_role("heading", name="Boris").is_visible()
            assert [one.name for one in ala.person.contacts()] == ["Boris"]
            page.goto(f"{ala.url}/people/add")
            page.evaluate("() => { navigator.mediaDevices.getUserMedia = () => Promise.reject() }")
            page.get_by_role("button", name="Scan with the camera").click()
            page.get_by_text("The camera cannot be used").wait_for()


# ---- other names ----


def forged(key: ec.EllipticCurvePrivateKey, signer: x509.Certificate, name: x509.GeneralName, folder: Path) -> Path:
    """A certificate for any name by somebody who has the authority's key, with its own key (PEM)."""
    own, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name.value}.pem"
    secret = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(secret + made.public_bytes(Encoding.PEM))
    return file


class Hello(BaseHTTPRequestHandler):
    """A website."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def website(certificate: Path) -> Iterator[int]:
    """A website with this certificate on loopback; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_whoever_had_the_authority_s_key_could_vouch_for_no_other_name(
    playwright: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[ec.EllipticCurvePrivateKey] = []
    generate = ec.generate_private_key

    def kept(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
        keys.append(generate(curve))
        return keys[-1]

    with monkeypatch.context() as patched:
        patched.setattr(authority.ec, "generate_private_key", kept)  # the first key made is the one that is forgotten
        issued = authority.issue(tmp_path / "https", authority.new_name(), datetime.now(UTC))
    signer = x509.load_der_x509_certificate(issued.certificate)
    assert keys[0].public_key() == signer.public_key()
    trusted = tmp_path / "authority.pem"
    trusted.write_bytes(signer.public_bytes(Encoding.PEM))

    own = x509.DNSName(issued.name)
    names = [own, x509.DNSName("example.org"), x509.DNSName("local"), x509.IPAddress(ip_address("127.0.0.1"))]
    install(tmp_path / "home", tmp_path / "https" / "authority.crt")
    everywhere = "--host-resolver-rules=MAP * 127.0.0.1"
    with browsing(playwright, tmp_path / "home", "", everywhere) as page:
        for name in names:
            file = forged(keys[0], signer, name, tmp_path)
            asked = subprocess.run(["openssl", "verify", "-CAfile", trusted, file], capture_output=True, text=True)
            with website(file) as port:
                shown = refusal(page, f"https://{name.value}:{port}/")
                python = by_python(trusted, str(name.value), port)
            if name is own:
                assert (asked.returncode, shown, python) == (0, "", "")
            else:
                assert "subtree violation" in asked.stderr
                assert shown == "ERR_CERT_INVALID", name
                assert "subtree violation" in python


def by_python(trusted: Path, name: str, port: int) -> str:
    """Why Python's TLS refuses a website; empty when it takes it."""
    context = ssl.create_default_context(cafile=str(trusted))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname=name),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
