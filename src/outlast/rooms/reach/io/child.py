"""The relaying process that a node starts, ``python -m outlast.rooms.reach.io.child FD``: it obeys ``control``."""

from outlast.rooms.reach.io.control import obey

if __name__ == "__main__":
    obey()
