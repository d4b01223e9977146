"""Whom a bundle is for, by its beginning alone."""

from __future__ import annotations

import asyncio
import io
import os
from pathlib import Path

import pytest

from outlast.kernel import BUNDLE_MAGIC, PEEK_BYTES, BundleError, Person
from outlast.kernel.trips import Glance
from outlast.rooms.carry.service import create_channel, send
from tests.unit.rooms.carry.houses import houses


async def written(person: Person, *, to: bytes | None = None, space: bytes | None = None) -> bytes:
    file = io.BytesIO()
    await person.write_bundle(file, to=to, space=space)
    return file.getvalue()[:PEEK_BYTES]


def test_the_beginning_tells_the_receiver_and_nobody_else(tmp_path: Path) -> None:
    async def look() -> None:
        async with houses(tmp_path, "ala", "boris", "vera") as (ala, boris, vera):
            await send(ala.node, ala.person, boris.person.identity, "?")
            sealed = await written(ala.person, to=boris.person.identity)
            assert boris.person.glance(sealed) == Glance(True)
            assert vera.person.glance(sealed) == ala.person.glance(sealed) == Glance(False)
            space = (await create_channel(ala.node, ala.person, "News")).space
            opened = await written(ala.person, space=space)
            for each in (ala, boris, vera):
                assert each.person.glance(opened) == Glance(False, True, space)
            for broken in (
                b"",
                b"PK\x03\x04",
                sealed[:100],
                BUNDLE_MAGIC + b"\x01\x02",
                sealed[:330] + os.urandom(65_552),
            ):
                with pytest.raises(BundleError):
                    boris.person.glance(broken)

    asyncio.run(look())
