"""A way out that keeps working: through whatever works now, and shared with neighbours."""

from outlast.kernel import Room
from outlast.rooms.reach.entries import LETTERS
from outlast.rooms.reach.service import links, run, status
from outlast.rooms.reach.view import MIGRATIONS, receive
from outlast.terms import ROUTE

__all__ = ["ROOM"]

ROOM = Room(
    name="reach",
    version=1,
    kinds=(ROUTE,),
    letters=LETTERS,
    migrations=MIGRATIONS,
    receive=receive,
    run=run,
    status=status,
    links=links,
    cli="outlast.rooms.reach.cli:app",
    web="outlast.rooms.reach.web:routes",
    api="outlast.rooms.reach.api:OPERATIONS",
)
