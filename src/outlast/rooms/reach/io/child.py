"""The relaying process that a node starts, ``python -m outlast.rooms.reach.io.child FD``: it obeys ``control``."""

import sys

from outlast.rooms.reach.io.ciphers import settle

if __name__ == "__main__":
    settle("outlast.rooms.reach.io.child")
    from outlast.rooms.reach.io.control import obey
    from outlast.ui.faults import fault

    try:
        obey()
    except Exception as error:  # its text is of what this process knows
        sys.exit(f"outlast: {fault(error)}")
