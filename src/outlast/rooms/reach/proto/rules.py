"""What may go directly, past every bridge: nothing, unless the person names it.

A site in one's own country often wants an address of that country, and a printer is reached by no bridge. Whatever goes
directly is seen by the network. Names are compared as they are asked for; nothing is looked up for a decision.
"""

from __future__ import annotations

from ipaddress import ip_network

import msgspec

from outlast.address import Target
from outlast.errors import UsageError
from outlast.rooms.reach.proto.exit_policy import within


class Rules(msgspec.Struct, frozen=True):
    """What a profile lets go directly."""

    suffixes: tuple[str, ...] = ()  # "example.by": it and all names below it
    networks: tuple[str, ...] = ()  # in CIDR form; for targets that are given as addresses

    def direct(self, target: Target) -> bool:
        """Whether a target goes directly."""
        if self.networks and within(target.host, self.networks):
            return True
        if not self.suffixes:
            return False
        name = "." + target.host.lower().rstrip(".")
        return any(name.endswith("." + suffix) for suffix in self.suffixes)


def read_rules(texts: list[str]) -> Rules:
    """Rules from what a person wrote: domains and networks; raises UsageError."""
    suffixes: list[str] = []
    networks: list[str] = []
    for text in texts:
        written = text.strip().lower().strip(".").removeprefix("*.")
        try:
            networks.append(str(ip_network(written, strict=False)))
        except ValueError:
            labels = written.split(".")
            if not written.isascii() or "/" in written or not all(map(_is_label, labels)) or len(written) > 253:
                raise UsageError(
                    "%(text)r is neither a domain, such as example.org, nor a network, such as 192.168.0.0/16",
                    text=text[:80],
                ) from None
            suffixes.append(written)
    return Rules(tuple(suffixes), tuple(networks))


def _is_label(label: str) -> bool:
    return 0 < len(label) < 64 and label.replace("-", "").replace("_", "").isalnum()
