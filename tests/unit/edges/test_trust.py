"""The encrypted door: an authority that can vouch for one name alone, and what phones may do by that door."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from outlast.edges.https.authority import LEAVES, issue, new_name, read
from outlast.edges.main import run
from outlast.edges.spread.counter import Counter
from outlast.errors import StorageError
from tests.unit.edges.served import LAN, Browser, Served, served
from tests.unit.edges.spread.test_get import shelf

PASSPHRASE = "heron, river, stone"
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_the_authority_is_for_one_name_and_servers_and_no_address(tmp_path: Path) -> None:
    name = new_name()
    made = issue(tmp_path, name, NOW)
    authority = x509.load_der_x509_certificate(made.certificate)
    limits = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert [one.value for one in limits.value.permitted_subtrees or []] == [name]
    assert sorted(str(one.value) for one in limits.value.excluded_subtrees or []) == ["0.0.0.0/0", "::/0"]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert made.fingerprint.replace(":", "").lower() == authority.fingerprint(hashes.SHA256()).hex()
    assert (len(made.words), made.name) == (6, name)
    assert read(tmp_path) == made


def test_its_key_is_written_nowhere_and_every_moment_of_five_years_has_a_certificate(tmp_path: Path) -> None:
    made = issue(tmp_path, new_name(), NOW)
    public = x509.load_der_x509_certificate(made.certificate).public_key()
    keys = [ssl_key(file) for file in tmp_path.glob("leaf-*.key")]
    assert len(keys) == LEAVES
    assert public not in keys
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        ["authority.crt", *(f"leaf-{n}.key" for n in range(LEAVES))]
    )
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    for day in range(0, LEAVES * 365 - 2, 5):
        now = NOW + timedelta(days=day)
        leaf = made.leaf(now)
        assert leaf.begins <= now < leaf.ends
        assert leaf.ends - leaf.begins <= timedelta(days=398)


def ssl_key(file: Path) -> object:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(file.read_bytes(), None).public_key()


def test_a_making_that_was_cut_short_is_none_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    issue(tmp_path, new_name(), NOW)
    (tmp_path / "leaf-3.key").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")
    with pytest.raises(StorageError, match="damaged"):
        read(tmp_path)
    (tmp_path / "authority.crt").unlink()
    assert read(tmp_path) is None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        served(tmp_path_factory.mktemp("trusted"), name="Anna", passphrase=PASSPHRASE) as node,
        node.stranger() as host,
    ):
        assert host.post("/enter", data={"passphrase": PASSPHRASE}).status_code == 303
        page = host.get("/trust").text
        assert "SHA-256" not in page
        assert host.submit("/trust", https="on").headers["location"] == "/trust?said=https-on"
        host.submit("/settings/lan", lan="on")
        yield node


def by_https(node: Served) -> Browser:
    """A browser that has installed the certificate; the name is found at the address of the local network."""
    web = node.serving.web
    assert web.authority
    context = ssl.create_default_context(cadata=ssl.DER_cert_to_PEM_cert(web.authority.certificate))
    host = f"{web.authority.name}:{web.https_port}"
    transport = ToAddress(LAN, web.authority.name, verify=context)
    return Browser(base_url=f"https://{host}", transport=transport, timeout=30, trust_env=False)


class ToAddress(httpx.HTTPTransport):
    """Connects to one address, whatever the name; the certificate must be for the name."""

    def __init__(self, address: str, name: str, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify)
        self._address, self._name = address, name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        there = httpx.Request(
            request.method,
            request.url.copy_with(host=self._address),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._name},
        )
        return super().handle_request(there)


def test_the_page_for_phones_shows_what_the_screen_of_the_node_shows(node: Served) -> None:
    shown = node.serving.web.authority
    assert shown
    with node.stranger(node.lan_url) as phone, node.stranger() as host:
        host.post("/enter", data={"passphrase": PASSPHRASE})
        for page in (phone.get("/trust").text, host.get("/trust").text):
            assert shown.fingerprint in page
            assert all(word in page for word in shown.words)
            assert node.serving.web.https_url in page
        given = phone.get("/trust/outlast.crt")
        assert (given.content, given.headers["content-type"]) == (shown.certificate, "application/x-x509-ca-cert")
        assert 'name="https"' not in phone.get("/trust").text
        assert phone.post("/trust", data={"https": "off"}).status_code == 403


def test_who_gave_the_passphrase_by_https_may_do_for_minutes_what_is_done_at_the_computer(node: Served) -> None:
    with by_https(node) as phone:
        assert phone.get("/devices").status_code == 401
        entered = phone.post("/enter", data={"passphrase": PASSPHRASE})
        assert entered.status_code == 303
        assert "secure" in entered.headers["set-cookie"].lower()
        assert phone.get("/devices").status_code == 200
        (session,) = node.call(lambda: node.serving.web.phones(node.person))
        session.proved_ms -= 11 * 60_000
        asked = phone.get("/devices")
        assert (asked.status_code, "/prove" in asked.text) == (403, True)
        assert phone.get("/people").status_code == 200
        assert phone.submit("/backup/words", passphrase=PASSPHRASE).status_code == 403
        assert phone.submit("/prove", passphrase="wrong one here", back="/devices").status_code == 423
        assert phone.submit("/prove", passphrase=PASSPHRASE, back="/devices").headers["location"] == "/devices"
        assert phone.get("/devices").status_code == 200
        node.run(node.serving.web.end(session))
        assert phone.get("/people").status_code == 401


def test_the_token_of_the_terminal_opens_nothing_from_the_network(node: Served) -> None:
    with by_https(node) as phone:
        assert phone.post("/enter", data={"token": node.serving.web.launch}).status_code != 303


def test_by_https_too_the_installer_is_sent_to_the_door_that_it_can_open(node: Served, tmp_path: Path) -> None:
    node.serving.web.counter = Counter(shelf(tmp_path))
    with node.stranger() as host:
        assert host.post("/enter", data={"passphrase": PASSPHRASE}).status_code == 303
        host.submit("/share", on="on")
    with by_https(node) as phone:
        assert f"python3 install.py {node.lan_url}/get" in phone.get("/get").text


def test_by_https_the_page_that_reads_qr_codes_may_ask_for_the_camera_and_no_other(node: Served) -> None:
    with by_https(node) as phone, node.stranger(node.lan_url) as plain:
        phone.post("/enter", data={"passphrase": PASSPHRASE})
        assert phone.get("/people/add").headers["permissions-policy"].startswith("camera=(self), microphone=()")
        for browser, page in ((phone, "/"), (phone, "/people"), (plain, "/")):
            assert browser.get(page).headers["permissions-policy"].startswith("camera=(), microphone=()")
        forged = phone.post("/enter", data={"passphrase": PASSPHRASE}, headers={"origin": node.lan_url})
        assert forged.status_code == 403


def test_wiping_destroys_the_keys_and_a_new_certificate_is_for_a_new_name(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.owner() as host:
        host.submit("/trust", https="on")
        first = node.serving.web.authority
        host.submit("/trust", https="anew")
        second = node.serving.web.authority
        assert first
        assert second
        assert first.name != second.name
        host.submit("/trust", https="off")
        assert node.serving.web.authority is None
        node.run(node.node.wipe())
        assert not (tmp_path / "home").exists()


def test_the_command_names_an_address_of_an_open_door_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        assert run(["--home", str(tmp_path / "home"), *arguments]) == 0
        return capsys.readouterr().out

    said("init", "--name", "Ada", "--unattended")
    assert said("trust") == "The encrypted door is closed.\n"
    assert "Address:      by `outlast trust` as soon as a running node has opened it\n" in said("trust", "--on")
    assert said("trust", "--off") == "The encrypted door is closed.\n"
