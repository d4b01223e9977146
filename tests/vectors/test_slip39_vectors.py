"""SLIP-0039's own test vectors for secrets of 256 bits: what is valid restores, what is not is refused in one line."""

from __future__ import annotations

import pytest
from shamir_mnemonic import combine_mnemonics

from outlast.errors import UsageError
from outlast.kernel import entropy_of

PASSPHRASE = b"TREZOR"
ALONE = (
    "theory painting academic academic armed sweater year military elder discuss acne wildlife boring "
    "employer fused large satoshi bundle carbon diagnose anatomy hamster leaves tracks paces beyond "
    "phantom capital marvel lips brave detect "
)
FIRST = (
    "humidity disease academic always aluminum jewelry energy woman receiver strategy amuse duckling "
    "lying evidence network walnut tactics forget hairy rebound impulse brother survive clothes stadium "
    "mailman rival ocean reward venture always armed unwrap"
)
SECOND = (
    "humidity disease academic agency actress jacket gross physics cylinder solution fake mortgage "
    "benefit public busy prepare sharp friar change work slow purchase ruler again tricycle involve "
    "viral wireless mixture anatomy desert cargo upgrade"
)
PADDED = (
    "theory painting academic academic campus sweater year military elder discuss acne wildlife boring "
    "employer fused large satoshi bundle carbon diagnose anatomy hamster leaves tracks paces beyond "
    "phantom capital marvel lips facility obtain sister"
)
GROUP_A = (
    "wildlife deal beard romp alcohol space mild usual clothes union nuclear testify course research "
    "heat listen task location thank hospital slice smell failure fawn helpful priest ambition average "
    "recover lecture process dough stadium"
)
GROUP_B = (
    "wildlife deal acrobat romp anxiety axis starting require metric flexible geology game drove editor "
    "edge screw helpful have huge holy making pitch unknown carve holiday numb glasses survive already "
    "tenant adapt goat fangs"
)
VALID = {
    "without sharing": ([ALONE + "luck"], "989baf9dcaad5b10ca33dfd8cc75e42477025dce88ae83e75a230086a0e00e92"),
    "two of three": ([FIRST, SECOND], "c938b319067687e990e05e0da0ecce1278f75ff58d9853f19dcaeed5de104aae"),
    "two groups": ([GROUP_A, GROUP_B], "5385577c8cfc6c1a8aa0f7f10ecde0a3318493262591e78b8c14c6686167123b"),
}
INVALID = {
    "a wrong checksum": ([ALONE + "lunar"], "share 1 has a wrong word"),
    "wrong padding": ([PADDED], "share 1 has a wrong word"),
    "too few": ([FIRST], "2 shares are needed, 1 were given"),
    "the same twice": ([FIRST, FIRST], "2 shares are needed, 1 were given"),
    "too few groups": ([GROUP_A], "some are missing"),
    "of two secrets": ([FIRST, GROUP_A], "do not belong together"),
    "a word of no list": ([FIRST.replace("jewelry", "jewellery")], "share 1 has a wrong word"),
}


@pytest.mark.parametrize(("shares", "secret"), VALID.values(), ids=VALID)
def test_valid_shares_restore_their_secret(shares: list[str], secret: str) -> None:
    assert combine_mnemonics(shares, PASSPHRASE).hex() == secret
    # Outlast sets no passphrase on shares; without one the same shares stand for another secret.
    for text in (" ".join(shares), "\n".join(reversed(shares)).upper()):
        assert entropy_of(text) == combine_mnemonics(shares)


@pytest.mark.parametrize(("shares", "line"), INVALID.values(), ids=INVALID)
def test_invalid_shares_are_refused_with_what_is_wrong(shares: list[str], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        entropy_of(" ".join(shares))
