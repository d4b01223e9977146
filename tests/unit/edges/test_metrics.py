"""Counts for a monitor: what they count, that other programs can read them, and that they name nobody."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from outlast.edges.daemon import local_api
from outlast.edges.metrics import Counts, count, exposition, samples
from outlast.kernel import Node, id_text, node_text
from tests.kernel.society import bundle, friends, hears, settle, society, story, until, write
from tests.unit.edges.served import served


def counted(node: Node) -> dict[str, Any]:
    """The counts as the operation answers them."""
    found: dict[str, Any] = msgspec.to_builtins(count(node))
    return found


def read(text: str) -> dict[tuple[str, str], float]:
    """What a monitor reads: values by name and label."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@story
async def test_a_session_a_letter_and_a_stick_are_counted_at_both_ends(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await friends(nodes)
        port = await boris.node.listen("127.0.0.1", 0)
        await anna.node.peer_add(boris.node.transport_id, "127.0.0.1", port)
        await until(lambda: all(any(p.connected for p in one.node.peers()) for one in (anna, boris)), anna, boris)
        await write(anna, boris, "counted")
        await hears(boris, "counted")
        file, _ = await bundle(anna, boris)
        await boris.read_bundle(io.BytesIO(file))
        await settle(anna, boris)
        mine, theirs = counted(anna.node), counted(boris.node)
        assert (mine["peers"], mine["peers_connected"], mine["callers_connected"]) == (1, 1, 0)
        assert (theirs["peers"], theirs["peers_connected"], theirs["callers_connected"]) == (0, 0, 1)
        assert mine["sessions"] == theirs["sessions"] == 1
        assert theirs["admitted"] == theirs["entries"] >= 1
        assert theirs["link_bytes_in"]["bundle"] == mine["link_bytes_out"]["bundle"] == len(file)
        assert mine["link_bytes_out"]["tcp"] >= theirs["link_bytes_in"]["tcp"] > 300
        assert mine["store_file_bytes"] > 4096 < mine["vault_file_bytes"]
        assert mine["door_waiting"] == mine["outbox_waiting"] == mine["changes_unfolded"] == 0


@story
async def test_what_waits_in_the_outbox_is_counted_until_it_is_in_the_store(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna, boris = await friends(nodes)
        sending = asyncio.ensure_future(write(anna, boris, "on its way"))
        await asyncio.sleep(0)
        assert counted(anna.node)["outbox_waiting"] == 1
        await sending
        await settle(anna)
        assert counted(anna.node)["outbox_waiting"] == 0


@story
async def test_what_is_turned_away_is_counted_by_its_rule(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna")
        await anna.node.ingest([b"no entry", b"neither", bytes(1 << 20)])
        assert counted(anna.node)["refused"] == {"form": 2, "size": 1}


@story
async def test_a_monitor_reads_each_count_and_no_name(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna", called="Somebody Special")
        await anna.node.ingest([b"no entry"])
        counts = counted(anna.node)
        text = exposition(counts)
        told = read(text)
        assert told["outlast_refused_total", "form"] == 1
        assert told["outlast_people_unlocked", ""] == 1
        assert len(told) == len(list(samples(counts)))
        assert {sample.name for sample in samples(counts)} >= set(Counts.__struct_fields__) - {
            "link_bytes_in",
            "link_bytes_out",
        }
        for secret in ("Somebody", "Special", id_text(anna.identity), node_text(anna.node.transport_id), str(tmp_path)):
            assert secret not in text


def test_no_page_shows_the_counts_and_their_socket_is_its_owner_s_alone(tmp_path: Path) -> None:
    with served(tmp_path / "home") as node, node.phone() as phone, node.owner() as owner, node.stranger() as stranger:
        for browser in (owner, phone, stranger):
            for path in ("/metrics", "/api/v1/metrics"):
                assert browser.get(path).status_code == 404

        async def told() -> tuple[int, int, bytes]:
            async with local_api(node.home, node.node):
                modes = [path.stat().st_mode & 0o777 for path in (node.home.path, node.home.socket_path)]
                reader, writer = await asyncio.open_unix_connection(str(node.home.socket_path))
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
                return *modes, answer

        home, socket, answer = node.run(told())
        assert (home, socket) == (0o700, 0o600)
        assert b"outlast_people_unlocked 1\n" in answer


@story
async def test_a_locked_node_counts_what_it_can_see(tmp_path: Path) -> None:
    async with society(tmp_path) as nodes:
        anna = await nodes.join("anna", passphrase="kingfisher over the river")
        await anna.node.lock()
        told = read(exposition(counted(anna.node)))
        assert told["outlast_locked", ""] == 1
        assert told["outlast_entries", ""] == told["outlast_spaces", ""] == 0
        assert told["outlast_store_file_bytes", ""] > 4096
