"""The local API: every answer is as its document says, wrong requests are told in one line, files come whole."""

from __future__ import annotations

import asyncio
import json
import re
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from outlast.edges.api import DOCUMENT, LocalApi, operations_of
from outlast.edges.client import LINES
from outlast.edges.stick import service as sticks
from outlast.kernel import Home, Node, node_text
from outlast.ui.operation import PREFIX, Nothing, Operation

PASSPHRASE = "kingfisher over the river"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(app: Any, path: str, body: bytes | None = None, method: str = "", **headers: str) -> Answer:
    """Send one request to an ASGI application; a body makes it a POST."""
    path, _, query = path.partition("?")
    messages = [{"type": "http.request", "body": body or b"", "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method or ("GET" if body is None else "POST"),
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(message["body"] for message in sent[1:]))


async def open_node(folder: Path, name: str, passphrase: str | None = None) -> Node:
    home = Home(folder / name)
    await Node.create(home, name, passphrase=passphrase, rooms=())
    return await Node.open(home, rooms=())


def with_nodes(folder: Path, act: Callable[..., Awaitable[None]], *names: str) -> None:
    """Run ``act`` with an unattended node for each name."""

    async def run() -> None:
        nodes = [await open_node(folder, name) for name in names]
        try:
            await act(*nodes)
        finally:
            for node in nodes:
                await node.close()

    asyncio.run(run())


def fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> bool:
    """Whether a JSON value is what a schema of the document allows; unknown words of a schema are an error."""
    unknown = schema.keys() - {
        *("type", "properties", "required", "items", "anyOf", "enum", "$ref"),
        *("title", "description", "default", "additionalProperties"),
    }
    assert not unknown, unknown
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return fits(value, document["components"]["schemas"][name], document)
    if "anyOf" in schema:
        return any(fits(value, one, document) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            more = schema.get("additionalProperties", False)
            return (
                isinstance(value, dict)
                and value.keys() >= set(schema.get("required", ()))
                and all(
                    fits(one, properties[name], document)
                    if name in properties
                    else bool(more) and fits(one, more, document)
                    for name, one in value.items()
                )
            )
        case "array":
            return isinstance(value, list) and all(fits(one, schema["items"], document) for one in value)
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
    raise AssertionError(f"a schema of no known type: {schema}")


class Checked:
    """A node's local API of which every answer is compared with its document."""

    def __init__(self, node: Node) -> None:
        self.app = LocalApi(node)
        self.asked: set[str] = set()

    async def __call__(self, operation: str, status: int = 200, **params: Any) -> Any:
        path = PREFIX + operation.replace(".", "/")
        document = (await ask(self.app, DOCUMENT)).json
        answer = await ask(self.app, path, json.dumps(params).encode())
        assert answer.status == status, answer.body
        assert answer.headers["content-type"] == "application/json"
        responses = document["paths"][path]["post"]["responses"]
        response = responses.get(str(status), responses["default"])
        assert fits(answer.json, response["content"]["application/json"]["schema"], document), answer.body
        self.asked.add(operation)
        return answer.json


def test_every_answer_of_a_whole_life_is_as_the_document_says(tmp_path: Path) -> None:
    async def live(ada_node: Node, bela_node: Node) -> None:
        ada, bela = Checked(ada_node), Checked(bela_node)
        stick = tmp_path / "stick"
        stick.mkdir()

        assert await ada("contact.list") == []
        link = (await bela("id"))["link"]
        contact = await ada("contact.add", link=link, name="Бела")
        assert contact["name"] == "Бела"
        assert not contact["verified"]
        assert await ada("contact.get", who="бела") == contact
        assert (await ada("contact.verify", who=contact["id"]))["verified"]
        assert (await ada("contact.block", who="Бела"))["blocked"]
        assert not (await ada("contact.block", who="Бела", blocked=False))["blocked"]
        assert (await ada("contact.rename", who="Бела", name="Bela"))["name"] == "Bela"
        assert [one["state"] for one in (await ada("contact.accept", who="Bela"))["devices"]] == ["accepted"]
        assert [one["state"] for one in await ada("device.list")] == ["present"]
        before, *_ = await ada("device.list")
        assert (await ada("device.revoke", 400, key=before["key"]))["code"] == 2
        assert [one["state"] for one in await ada("device.renew")] == ["present", "revoked"]
        assert await ada("device.revoke", all=True) == await ada("device.list")
        assert (await ada("contact.get", 404, who="nobody"))["code"] == 4
        assert (await ada("contact.add", 400, link="outlast://contact/x"))["code"] in (2, 6)

        written = await ada("bundle.write", file=str(stick), to="Bela")
        assert Path(written["file"]).stat().st_size == written["bytes"]
        assert re.fullmatch(r"[0-9a-f]{8}\.bin", Path(written["file"]).name)
        read = await bela("bundle.read", file=written["file"])
        assert (read["entries"], read["problems"]) == (written["entries"], [])
        small = await ada("bundle.write", file=str(stick), to="Bela", max_bytes=100_000)
        assert small["bytes"] <= 100_000
        assert small["left_out"] == 0
        assert (await ada("bundle.write", 400, file=str(stick), to="Bela", max_bytes=1000))["code"] == 2
        assert (await ada("bundle.write", 400, file=str(stick)))["code"] == 2
        assert (await ada("bundle.read", 404, file=str(stick / "none")))["code"] == 4

        await sticks.add_folder(next(iter(ada_node.people.values())), str(stick))
        here = {"stick": str(stick)}
        given = await ada("stick.write", to=["Bela"], **here)
        assert (given["files"], given["left_out"], given["problems"]) == (1, 0, [])
        [state] = [one for one in await ada("stick.list") if one["folder"] == str(stick)]
        assert "written" in {one["holds"] for one in state["files"]}
        assert (await ada("stick.read", **here))["problems"] == []
        assert await ada("stick.out", **here) == {"unmounted": False}
        assert (await ada("stick.erase", **here))["files"] >= 1
        assert (await ada("stick.read", 404, stick=str(tmp_path / "none")))["code"] == 4

        assert await ada("peer.looking") == {"mode": "off"}
        assert await ada("peer.look", mode="neighbours") == await ada("peer.looking") == {"mode": "neighbours"}
        await ada("peer.look", 400, mode="everybody")
        assert await ada("peer.list") == []
        node = node_text(bela_node.transport_id)
        peer = await ada("peer.add", address="127.0.0.1:1", node=node)
        assert (peer["node"], peer["address"], peer["connected"]) == (node, "127.0.0.1:1", False)
        assert [one["node"] for one in await ada("peer.list")] == [node]
        await ada("peer.remove", node=node)
        await ada("peer.remove", 404, node=node)

        file = tmp_path / "backup"
        saved = await ada("backup", file=str(file), passphrase=PASSPHRASE)
        assert file.stat().st_size == saved["bytes"]
        assert (await ada("backup", 400, file=str(file), passphrase="short"))["code"] == 2
        assert len((await ada("backup.shares", threshold=2, count=3))["shares"]) == 3
        assert (await ada("backup.shares", 400, threshold=3, count=2))["code"] == 2

        assert await ada("phone.list") == await ada("phone.end", all=True) == []
        assert not (await ada("trust.get"))["on"]
        assert len((await ada("trust.set", on=True))["words"].split()) == 6
        boris = await ada("person.add", name="boris", passphrase="lamp, winter, ferry")
        assert [one["name"] for one in await ada("person.list")].count("boris") == 1
        assert (await ada("id", 400))["code"] == 2
        await ada("person.lock", who="boris")
        await ada("person.remove", who=boris["person"])
        assert (await ada("person.remove", 404, who=boris["person"]))["code"] == 4

        assert (await ada("metrics"))["people_unlocked"] == 1
        assert {"vault", "rest"} <= {part["kind"] for part in (await ada("space"))["parts"]}
        assert (await ada("space.free"))["bytes"] == 0
        assert (await ada("rebuild"))["entries"] >= 0
        assert (await ada("status"))["name"] == "ada"
        assert {check["level"] for check in (await ada("doctor"))["checks"]} <= {"ok", "warn"}
        await ada("lock")
        assert (await ada("status"))["locked"]
        await ada("doctor")
        assert (await ada("id", 423))["code"] == 3
        assert (await ada("unlock", passphrase=PASSPHRASE))["name"] == "ada"
        await ada("wipe")
        assert not (tmp_path / "ada").exists()
        assert ada.asked == set(operations_of(()))

    with_nodes(tmp_path, live, "ada", "bela")


def test_a_locked_home_opens_by_its_passphrase_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with await open_node(tmp_path, "ada", PASSPHRASE) as node:
            ada = Checked(node)
            assert (await ada("status"))["locked"]
            assert (await ada("unlock", 423, passphrase="kingfisher over the rivet"))["code"] == 3
            assert (await ada("unlock", passphrase=PASSPHRASE))["name"] == "ada"
            assert not (await ada("status"))["locked"]

    asyncio.run(run())


def test_what_changes_something_is_never_done_by_a_get(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        app = LocalApi(node)
        for operation in operations_of(()).values():
            answer = await ask(app, operation.path)
            if operation.unsafe:
                assert answer.status == 405
        assert node.home.exists()
        assert not node.locked

    with_nodes(tmp_path, look, "ada")


def test_a_get_reads_its_parameters_from_the_query(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        answer = await ask(LocalApi(node), PREFIX + "contact/get?who=%D0%91")
        assert (answer.status, answer.json["code"]) == (404, 4)
        assert "Б" in answer.json["error"]

    with_nodes(tmp_path, look, "ada")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/v1/nothing", b"{}", 404),
        ("/", None, 404),
        ("/api/v1/id", b"[]", 400),
        ("/api/v1/id", b"{", 400),
        ("/api/v1/id", b"[" * 100_000, 400),
        ("/api/v1/id", b'{"who":"x"}', 400),
        ("/api/v1/contact/get", b'{"who":\xff}', 400),
        ("/api/v1/contact/get", b'{"who":"\\ud800"}', 400),
        ("/api/v1/contact/get", b'{"who":"\\ud800 half a pair"}', 400),
        ("/api/v1/id", b" " * (1024 * 1024 + 1), 413),
    ],
)
def test_a_wrong_request_is_told_in_one_line(tmp_path: Path, path: str, body: bytes | None, status: int) -> None:
    async def look(node: Node) -> None:
        answer = await ask(LocalApi(node), path, body)
        assert answer.status == status
        assert set(answer.json) == {"error", "code"}
        assert "\n" not in answer.json["error"]

    with_nodes(tmp_path, look, "ada")


def test_a_fault_of_the_program_tells_its_place_and_not_its_text(tmp_path: Path) -> None:
    async def fail(_call: Any) -> Nothing:
        raise ValueError("what Ada wrote to Bela")

    async def look(node: Node) -> None:
        app = LocalApi(node)
        operation = Operation("fail", Nothing, Nothing, fail, "Fail")
        app._paths[operation.path] = operation
        answer = await ask(app, operation.path, b"{}")
        assert (answer.status, answer.json["code"]) == (500, 1)
        assert "ValueError at test_api.py" in answer.json["error"]
        assert b"Ada" not in answer.body

    with_nodes(tmp_path, look, "ada")


def test_long_work_tells_its_progress_before_its_result(tmp_path: Path) -> None:
    told = asyncio.Event()

    async def work(call: Any) -> Nothing:
        call.progress(1, 3)
        await told.wait()
        return Nothing()

    async def look(node: Node) -> None:
        app = LocalApi(node)
        operation = Operation("work", Nothing, Nothing, work, "Work")
        app._paths[operation.path] = operation

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def watch(message: Any) -> None:
                await send(message)
                if b"progress" in message.get("body", b""):
                    told.set()

            await app(scope, receive, watch)

        answer = await ask(watched, operation.path, b"{}", accept=LINES)
        assert [json.loads(line) for line in answer.body.splitlines()] == [{"progress": [1, 3]}, {"result": {}}]
        refused = await ask(app, PREFIX + "contact/get", b'{"who":"nobody"}', accept=LINES)
        assert json.loads(refused.body)["code"] == 4

    with_nodes(tmp_path, look, "ada")


def test_a_monitor_gets_the_counts_as_text(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        answer = await ask(LocalApi(node), "/metrics")
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert "outlast_people_unlocked 1" in answer.body.decode().splitlines()

    with_nodes(tmp_path, look, "ada")


def test_the_doctor_names_nobody_and_no_place(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        person = next(iter(node.people.values()))
        await node.peer_add(bytes(range(32)), "192.0.2.77", 4242)
        answer = await ask(LocalApi(node), PREFIX + "doctor")
        told = answer.body.decode()
        for secret in (person.id, str(tmp_path), "Adelheid", "192.0.2.77", "4242", node_text(node.transport_id)):
            assert secret not in told

    with_nodes(tmp_path, look, "Adelheid")


def test_the_doctor_finds_files_that_others_may_read(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        node.home.store_path.chmod(0o644)
        checks = (await ask(LocalApi(node), PREFIX + "doctor")).json["checks"]
        found = {check["name"]: check["level"] for check in checks}
        assert found["files"] == "bad"
        assert found["store"] == found["vault"] == found["pruning"] == "ok"

    with_nodes(tmp_path, look, "ada")


def test_a_written_file_is_whole_or_absent(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        file = tmp_path / "backup"
        file.write_bytes(b"an older one")
        app = LocalApi(node)
        request = json.dumps({"file": str(file), "passphrase": PASSPHRASE}).encode()
        assert (await ask(app, PREFIX + "backup", request)).status == 200
        assert file.stat().st_size > 1000
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        missing = json.dumps({"file": str(tmp_path / "no" / "backup"), "passphrase": PASSPHRASE}).encode()
        answer = await ask(app, PREFIX + "backup", missing)
        assert (answer.status, answer.json["code"]) == (507, 5)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ada", "backup"]

    with_nodes(tmp_path, look, "ada")


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    async def look(node: Node) -> None:
        import os

        os.mkfifo(tmp_path / "pipe")
        for name, status in (("pipe", 400), (".", 400), ("none", 404)):
            request = json.dumps({"file": str(tmp_path / name)}).encode()
            assert (await ask(LocalApi(node), PREFIX + "bundle/read", request)).status == status

    with_nodes(tmp_path, look, "ada")
