"""Every decoder takes whatever bytes: no error that it does not document, no hang, no flood of memory."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from tests.fuzz.engine import run
from tests.fuzz.targets import TARGETS

SEED = 20261121
ALL_S = 600
"""In the soak, by the clock on two free cores; each target gets an equal part."""
EACH_S = 0.6
"""In the suite, of processor time for each target: 30 s for all, and more for those that are slow."""


def test_no_decoder_falls_for_any_bytes(soaking: bool) -> None:
    if find_spec("atheris") is None and os.environ.get("CI") != "true":
        pytest.skip("atheris has no wheel for this machine")
    seconds = 2 * ALL_S / len(TARGETS) if soaking else EACH_S
    outcomes = {}
    for one in run(TARGETS, SEED, seconds):
        outcomes[one.name] = one
        print(
            f"{one.name}: {one.executions} inputs, {one.accepted} taken, {one.refusals} reasons against others,"
            f" {one.branches} branches, {one.seeded} by its seeds{one.failure and ', FAILED'}",
            flush=True,
        )
    assert "\n\n".join(one.failure for one in outcomes.values() if one.failure) == ""
    assert outcomes.keys() == {target.name for target in TARGETS}
    assert [one.name for one in outcomes.values() if not one.executions or not one.accepted] == []
    assert [target.name for target in TARGETS if outcomes[target.name].refusals < target.refusals] == []
    assert all(one.branches >= one.seeded > 0 for one in outcomes.values())
    # What guides the fuzzer is what the inputs reach: without it nothing new comes of them.
    assert sum(one.branches for one in outcomes.values()) > 1.1 * sum(one.seeded for one in outcomes.values())
