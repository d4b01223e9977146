"""What a process tells of its faults: their kind and place, once, and nothing that people wrote."""

from __future__ import annotations

import asyncio
import io
import logging
import subprocess
import sys

import pytest

from outlast.ui.faults import Discreet, tell_faults_of


def test_a_logged_fault_has_its_kind_and_place_but_not_its_text() -> None:
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    handler.setFormatter(Discreet("outlast: %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    try:
        raise KeyError("Ada wrote to Bela")
    except KeyError:
        logger.exception("a page failed")
    assert told.getvalue().startswith("outlast: a page failed: this program has a fault: KeyError at test_faults.py:")
    assert "Ada" not in told.getvalue()
    assert told.getvalue().count("\n") == 1


def test_a_task_that_nobody_waited_for_is_told_as_discreetly(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("Ada wrote to Bela")

    async def run() -> None:
        tell_faults_of(asyncio.get_running_loop())
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task

    asyncio.run(run())
    [record] = caplog.records
    assert record.getMessage().startswith("this program has a fault: ValueError at test_faults.py:")


def test_a_fault_that_comes_again_and_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def fail(left: int) -> None:
            loop.call_soon(*((fail, left - 1) if left else (over.set,)))
            raise ValueError("Ada wrote to Bela")

        tell_faults_of(loop)
        loop.call_soon(fail, 100)
        await over.wait()

    asyncio.run(run())
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "program",
    [
        "import threading; one = threading.Thread(target=fail); one.start(); one.join()",
        "class One:\n    __del__ = fail\none = One()\ndel one",
        "try: fail()\nexcept KeyError: logging.getLogger('some library').exception('a page failed')",
    ],
)
def test_threads_destructors_and_libraries_tell_no_more(program: str) -> None:
    prelude = "import logging\nfrom outlast.ui.faults import be_discreet\nbe_discreet()\n"
    failing = "def fail(*_):\n    raise KeyError('Ada wrote to Bela')\n"
    done = subprocess.run(
        [sys.executable, "-c", prelude + failing + program], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("\n") == 1
    assert "KeyError at <string>:" in done.stderr
    assert "Ada" not in done.stderr
