"""Forms of text that were submitted: one that comes twice is done once, and its second sender gets the first answer.

Who presses a button twice, or sends again what a cut connection gave no answer to, sends the same bytes: the forms of
each page that was shown have a mark of their own (``once``). Only what led on to another page was done; what was
refused is tried again. What is remembered ends with the process.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEE_OTHER: Final = 303
REMEMBERED: Final = 64


class Submitted:
    """The forms of one browser that were submitted of late."""

    def __init__(self) -> None:
        """None yet."""
        self._answers: dict[bytes, asyncio.Future[Message | None]] = {}

    async def once(self, form: bytes, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a form on to ``app``, or answer as ``app`` did, or is about to; ``form`` is its digest (32 B)."""
        while (first := self._answers.get(form)) is not None:
            if said := await asyncio.shield(first):
                await send(said)
                await send({"type": "http.response.body"})
                return
        own = self._answers[form] = asyncio.get_running_loop().create_future()
        if len(self._answers) > REMEMBERED:
            del self._answers[next(iter(self._answers))]
        leads: Message | None = None

        async def say(message: Message) -> None:
            nonlocal leads
            if message.get("status") == SEE_OTHER:
                leads = message
            await send(message)

        try:
            await app(scope, receive, say)
        finally:
            if leads is None and self._answers.get(form) is own:
                del self._answers[form]
            own.set_result(leads)
