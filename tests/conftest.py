"""What every test shares: how properties are explored, and which tests run on the same worker."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A slow machine is no failure. In CI the same examples run every time, so that a red run can be
# repeated; at the desk and in the soak new ones are looked for.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("desk", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=10_000)
settings.load_profile("soak" if "OUTLAST_SOAK" in os.environ else "ci" if os.environ.get("CI") else "desk")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give all tests marked `serial` to one worker, so that they run one after another; and each file's to one.

    A file's tests share what its fixtures started, and run in the same order every time: a red run can be repeated.
    """
    for item in items:
        group = "serial" if item.get_closest_marker("serial") else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def soaking() -> bool:
    """Whether this is `dev.py soak`: the full counts, which take longer than the suite may."""
    return "OUTLAST_SOAK" in os.environ
