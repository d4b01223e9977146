"""What is blocked, what is cut, and what it costs: this site, my link, or the country."""

from outlast.kernel import Room
from outlast.rooms.watch.entries import ASK, HEARTBEAT, KEY, OBSERVATION, TOLD, WITNESS
from outlast.rooms.watch.service import run, space, spaces, status
from outlast.rooms.watch.view import MIGRATIONS, VIEWS, fold, receive
from outlast.terms import OUTAGE, ROUTE

__all__ = ["ROOM"]

ROOM = Room(
    name="watch",
    version=2,
    kinds=(OBSERVATION, HEARTBEAT, WITNESS, OUTAGE, ROUTE),
    letters=(KEY, ASK, TOLD),
    views=VIEWS,
    migrations=MIGRATIONS,
    fold=fold,
    receive=receive,
    run=run,
    status=status,
    space=space,
    follows=spaces,
    cli="outlast.rooms.watch.cli:app",
    api="outlast.rooms.watch.api:OPERATIONS",
    web="outlast.rooms.watch.web:routes",
)
