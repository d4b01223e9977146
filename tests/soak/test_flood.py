"""dev.py soak flood: 100,000 posts and 100,000 envelopes of strangers, through 20 hostile nodes."""

from tests.kernel.test_flood import (  # noqa: F401
    sent,
    test_a_flood_by_strangers_moves_nothing_and_costs_friends_nothing_afterwards,
)
