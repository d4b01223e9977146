"""How many files a process may have: as many as it wants, as far as the system lets it, and no fewer than before."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed", "then"),
    [
        (256, 512, 300, 300, 300),
        (256, 512, 4000, 512, 512),
        (400, 512, 300, 300, 400),
        (512, 512, 512, 512, 512),
    ],
)
def test_a_process_has_as_many_as_it_wants_or_the_system_lets_it(
    soft: int, hard: int, wanted: int, allowed: int, then: int
) -> None:
    script = (
        "import resource; from outlast import descriptors;"
        f" resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f" print(descriptors.allow({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [str(allowed), str(then)]
