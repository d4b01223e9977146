"""Commands about the program itself: handing it on, renewing it, and which release it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from outlast.address import read as read_address
from outlast.errors import UsageError
from outlast.ui.command import say, show

UNSIGNED: Final = "Nobody signed this copy: it was made from a checkout. Its six words stand for this copy alone."


def mount(app: typer.Typer) -> None:
    """Add these commands to those of the node."""
    share = typer.Typer(invoke_without_command=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    share.callback()(_share)
    share.command("fetch")(_fetch)
    share.command("write")(_write)
    app.add_typer(share, name="share")
    app.command("update")(_update)
    app.command("release")(_release)


def _share(
    context: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where neighbours reach it.")] = "0.0.0.0:8486",
) -> None:
    """Hand this program on to computers nearby, until interrupted.

    They need no internet: a page there says what to do on which computer.
    """
    if context.invoked_subcommand is not None:
        return
    import asyncio

    from outlast.edges.spread.share import serve
    from outlast.edges.spread.shelf import open_shelf

    host, port = read_address(listen)
    asyncio.run(serve(open_shelf(), host, port, lambda shared: show(shared, _shared_lines)))


def _fetch(
    platform: Annotated[str, typer.Option(metavar="SYSTEM", help="Such as linux-aarch64, a Raspberry Pi.")],
    python: Annotated[str, typer.Option(metavar="VERSION", help="Version of Python there.")] = "3.11",
) -> None:
    """Fetch the libraries for another kind of computer, while there is internet, to hand them on later."""
    from outlast.edges.spread import shelf, wheels

    if platform not in wheels.SYSTEMS:
        raise UsageError(f"no system is called {platform!r}: there are {', '.join(wheels.SYSTEMS)}")
    version = next((one for one in wheels.PYTHONS if python == f"{one[0]}.{one[1]}"), None)
    if version is None:
        raise UsageError(f"no such Python: there are {', '.join(f'{a}.{b}' for a, b in wheels.PYTHONS)}")
    show(shelf.fetch(platform, version), _systems_lines)


def _write(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Such as one on a stick.")]) -> None:
    """Write what is handed on into a folder, from where install.py there installs it."""
    from outlast.edges.spread.shelf import open_shelf

    shelf = open_shelf()
    shelf.write(folder)
    answer = {"folder": str(folder.absolute()), "files": len(shelf.files), "systems": shelf.systems}
    show(answer, lambda a: [f"Wrote {a['files']} files to {a['folder']}. There: python3 install.py"])


def _update(
    source: Annotated[str, typer.Argument(metavar="FROM", help="http://HOST:PORT/get of a neighbour, or a folder.")],
) -> None:
    """Take a newer release from a neighbour or a stick, when two of the release keys signed it."""
    import msgspec

    from outlast.edges.spread.update import update

    answer = msgspec.to_builtins(update(source))
    say("A node that is running goes on with the old version until it is started again.")
    show(answer, lambda a: [f"Installed {a['version']}: {a['words']}"])


def _release() -> None:
    """Which release this is: its version, six words to compare, and whether the release keys signed it."""
    import msgspec

    from outlast.edges.spread.shelf import release_here

    show(msgspec.to_builtins(release_here()), _release_lines)


def _release_lines(release: dict[str, Any]) -> Iterator[str]:
    yield f"Outlast {release['version']}"
    if release["words"]:
        yield f"Six words: {release['words']}"
    if release["official"]:
        yield f"Signed by {release['signed']} release keys."
    elif release["words"]:
        yield UNSIGNED
    else:
        yield "This is a checkout; nobody signed it."


def _shared_lines(shared: dict[str, Any]) -> Iterator[str]:
    for url in shared["urls"]:
        yield f"Here: {url}"
    if not shared["urls"]:
        yield "This computer is in no network, so nobody reaches it: connect it, or make a hotspot, and start anew."
    yield from _release_lines(shared)
    yield from _systems_lines(shared)


def _systems_lines(answer: dict[str, Any]) -> Iterator[str]:
    for system, pythons in answer["systems"].items():
        yield f"For {system}, Python {', '.join(pythons)}"
