"""Messages and channels that wait while there is no connection.

Letters travel sealed, as mail of the kernel, into the receiver's vault. Posts are signed and readable by everybody who
holds their channel, an open space; whose posts and removals count is decided in the view.
"""

from outlast.kernel import Room
from outlast.rooms.carry.entries import KINDS, LETTERS
from outlast.rooms.carry.service import run
from outlast.rooms.carry.space import space
from outlast.rooms.carry.view import MIGRATIONS, PASSING, VIEWS, fold, follows, receive

__all__ = ["ROOM"]

ROOM = Room(
    name="carry",
    version=6,
    kinds=KINDS,
    letters=LETTERS,
    views=VIEWS,
    migrations=MIGRATIONS,
    passing=PASSING,
    fold=fold,
    receive=receive,
    run=run,
    space=space,
    follows=lambda _node, person: [one.space for one in follows(person)],
    cli="outlast.rooms.carry.cli:app",
    api="outlast.rooms.carry.api:OPERATIONS",
    web="outlast.rooms.carry.web:routes",
)
