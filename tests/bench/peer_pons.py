"""pons-dtn's routers on contacts and letters, in a process of its own; run by a Python that has it.

    python peer_pons.py < GIVEN

GIVEN is JSON: {"people": n, "contacts": [[at_s, a, b], ...], "letters": [[at_s, writer, receiver, ends_s], ...]}, both
in order of time. For each protocol it prints a line of JSON: {"protocol", "delivered", "transmissions", "new"}, where
``new`` are those transmissions by which somebody got what they did not hold.

The routers are its own, as they stand. A contact is what they are told by ``on_peer_discovered``, one side after the
other, and a message is there at once, so that radio and scanning lose nothing. Its routers delete what has ended only
here and there, or never: what ended is taken from all of them at its hour, by ``store_del``.
"""

import copy
import json
import os
import sys

os.environ["LOG_LEVEL"] = "ERROR"

import pons
from pons.routing import EpidemicRouter, PRoPHETRouter, SprayAndWaitRouter

PROTOCOLS = {"epidemic": EpidemicRouter, "spray and wait": SprayAndWaitRouter, "PRoPHET": PRoPHETRouter}


class Store(list):
    """What a router walks through while it deletes from it: by a copy, or it passes over every next message."""

    def __iter__(self):
        return iter(self[:])


class Letter(pons.Message):
    """A message that need not be named anew, from its parts, each time that a router asks."""

    def unique_id(self):
        return self.id


class Person(pons.Node):
    """A node whose messages are there at once."""

    def send(self, netsim, to_nid, msg):
        arrived = copy.copy(msg)
        arrived.metadata = dict(msg.metadata)
        netsim.nodes[to_nid].router._on_msg_received(arrived, self.node_id)


def spread(given, make):
    people, letters = range(given["people"]), given["letters"]
    town = pons.NetSim(0, [Person(one, router=make()) for one in people])
    routers = [town.nodes[one].router for one in people]
    town.env = Clock()
    for one, router in enumerate(routers):
        router.netsim, router.env, router.my_id, router.store = town, town.env, one, Store()
        if isinstance(router, PRoPHETRouter):
            router.predictabilities[one] = {"pred": 1.0, "last_aging": 0}
    ends = sorted(letter[3] for letter in letters)
    begun = ended = 0
    for at_s, a, b in given["contacts"]:
        while begun < len(letters) and letters[begun][0] <= at_s:
            town.env.now, writer, receiver, ends_s = letters[begun]
            routers[writer].add(
                Letter(str(begun), writer, receiver, 1, town.env.now, ttl=ends_s - town.env.now, metadata={})
            )
            begun += 1
        town.env.now = at_s
        if ended < len(ends) and ends[ended] <= at_s:
            while ended < len(ends) and ends[ended] <= at_s:
                ended += 1
            for router in routers:
                for message in router.store:
                    if message.created + message.ttl <= at_s:
                        router.store_del(message)
        for one, other in ((a, b), (b, a)):
            routers[one].peers = [other]
        for one, other in ((a, b), (b, a)):
            routers[one].on_peer_discovered(other)
        for one in (a, b):
            routers[one].peers = []
    return town.routing_stats


class Clock:
    """The time that routers ask for."""

    now = 0


given = json.load(sys.stdin)
for name, make in PROTOCOLS.items():
    stats = spread(given, make)
    sent = stats["relayed"]
    print(
        json.dumps(
            {"protocol": name, "delivered": stats["delivered"], "transmissions": sent, "new": sent - stats["dups"]}
        ),
        flush=True,
    )
