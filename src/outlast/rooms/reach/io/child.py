"""The relaying process that a node starts, ``python -m outlast.rooms.reach.io.child FD``: it obeys ``control``."""

from outlast.rooms.reach.io.ciphers import settle

if __name__ == "__main__":
    settle("outlast.rooms.reach.io.child")
    from outlast.rooms.reach.io.control import obey

    obey()
