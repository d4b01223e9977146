"""What reach's codes say, as sentences that are translated where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outlast.ui.languages import Translation, marked

NOW: Final[Mapping[str, str]] = {
    "off": marked("Off: programs on this computer go their usual way."),
    "starting": marked("Starting …"),
    "trying": marked("Looking for a way out. Nothing leaves by the gate until one works."),
    "working": marked("Connected."),
    "no-bridge": marked("There is no bridge here yet: add one, or ask a contact for one."),
    "nothing-works": marked("None of your bridges works now. They are tried again by themselves."),
    "gate-closed": marked("The gate is closed."),
    "failed": marked("The relaying stopped."),
}
LIGHTS: Final[Mapping[str, str]] = {
    "off": "unknown",
    "starting": "warn",
    "trying": "warn",
    "working": "ok",
    "no-bridge": "warn",
    "nothing-works": "bad",
    "gate-closed": "bad",
    "failed": "bad",
}
STEPS: Final[Mapping[str, str]] = {
    "waiting": marked("waits"),
    "trying": marked("is tried"),
    "passed": marked("works"),
    "working": marked("in use"),
    "failed": marked("failed"),
}
STEP_LIGHTS: Final[Mapping[str, str]] = {
    "waiting": "unknown",
    "trying": "warn",
    "passed": "ok",
    "working": "ok",
    "failed": "bad",
}
TRANSPORTS: Final[Mapping[str, str]] = {
    "web": marked("website"),
    "ss": marked("Shadowsocks"),
    "obfs4": marked("obfs4"),
    "tor": marked("Tor"),
    "proxy": marked("proxy"),
    "direct": marked("directly, with tricks"),
    "other": marked("other transport"),
}
OUTCOMES: Final[Mapping[str, str]] = {
    "ok": marked("answered"),
    "dns": marked("its name leads nowhere: ask for a link with an address in place of the name"),
    "refused": marked("refused: it is off, or somebody on the way refuses; ask who runs it"),
    "syn-drop": marked("no answer at all: its address may be blocked"),
    "rst-after-hello": marked("cut off at the greeting: try another kind of bridge, or another name"),
    "freeze": marked("frozen after a while: a bridge that is a website goes on over new connections"),
    "tls-mitm": marked("somebody shows a certificate that is not the bridge's: do not use it here"),
    "fully-encrypted-filter": marked("what looks random is dropped here: try a bridge that is a website"),
    "wrong-key": marked("it does not take this key: ask for a new link"),
    "wrong-clock": marked("the clock of this computer is wrong: set it"),
    "captive-portal": marked("this network wants you to sign in first: open any http:// page in a browser"),
    "throttled": marked("too slow to be of use now"),
    "unknown": marked("it did not work; why is not clear"),
}


def outcome(name: str | None, _: Translation) -> str:
    """What an outcome such as ``freeze@16384`` means for a person; empty for none."""
    return _(OUTCOMES.get(name.partition("@")[0], OUTCOMES["unknown"])) if name else ""
