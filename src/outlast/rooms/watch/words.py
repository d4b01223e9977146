"""What watch's codes say, as sentences that are translated where they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outlast.rooms.watch.lamps import Lamp
from outlast.ui.languages import Translation, marked

STATES: Final[Mapping[str, str]] = {
    "normal": marked("as usual"),
    "degraded": marked("much worse than usual"),
    "routes-up-traffic-down": marked("routes are up, traffic is gone"),
    "whitelist": marked("only what is inside the country answers"),
    "blackout": marked("cut off"),
    "restoring": marked("coming back"),
}
VERDICTS: Final[Mapping[str, str]] = {
    "ok": marked("answers"),
    "blocked": marked("blocked"),
    "down": marked("down"),
    "unknown": marked("unclear"),
}
LAYERS: Final[Mapping[str, str]] = {
    "dns": marked("name"),
    "tcp": marked("connection"),
    "tls": marked("encryption"),
    "http": marked("page"),
    "throttled": marked("speed"),
}
PUBLISHED: Final[Mapping[str, str]] = {
    "observations": marked("what you measure, scrubbed"),
    "heartbeats": marked("that a node is there, each hour"),
    "outages": marked("outages that your node sees"),
}
LIGHTS: Final[Mapping[str, str]] = {
    "ok": marked("well"),
    "warn": marked("take care"),
    "bad": marked("cut off"),
    "old": marked("old"),
    "unknown": marked("not known"),
}
LINK: Final[Mapping[str, str]] = {
    "ok": marked("Your line works: something at home and abroad answers."),
    "only-inside": marked("Only addresses inside the country answer."),
    "only-abroad": marked("Addresses abroad answer, those inside the country do not."),
    "no-gateway": marked("Your own router does not answer: this is your line, not the country."),
    "nothing-answers": marked("Nothing answers beyond your router."),
    "not-looked": marked("Nobody has looked yet."),
    "long-ago": marked("The last look is too long ago to say."),
    "unclear": marked("The last look does not tell."),
}
COUNTRY: Final[Mapping[str, str]] = {
    "no-country": marked("Say in which country this node is: then it can watch it."),
    "no-signals": marked("No signal tells yet: read a file of one, or follow a channel of people who watch."),
    "own-link": marked("Your own line is down, so this node cannot say."),
    "normal": marked("As usual, by every signal that this node has."),
}


def site(lamp: Lamp, _: Translation) -> str:
    """The sentence of the first lamp."""
    numbers = lamp.numbers
    match lamp.code:
        case "nothing-measured":
            return _("Nothing was measured in the last day.")
        case "blocked":
            text = _.ngettext("%(n)d of %(all)d sites is blocked.", "%(n)d of %(all)d sites are blocked.", numbers["blocked"], all=numbers["n"])  # fmt: skip # noqa: E501
        case "down":
            text = _.ngettext("%(n)d of %(all)d sites is down, also for others.", "%(n)d of %(all)d sites are down, also for others.", numbers["down"], all=numbers["n"])  # fmt: skip # noqa: E501
        case "ok":
            text = _.ngettext("The %(n)d site that was tried answers.", "All %(n)d sites that were tried answer.", numbers["n"])  # fmt: skip # noqa: E501
        case _:
            text = _("What was measured does not tell.")
    return text


def country(lamp: Lamp, _: Translation) -> str:
    """The sentence of the third lamp."""
    known = COUNTRY.get(lamp.code)
    if known is not None:
        return _(known)
    if lamp.code.startswith("perhaps-"):
        state = _(STATES[lamp.code.removeprefix("perhaps-")])
        return _("By your node's own signals: %(state)s. Not confirmed by others.", state=state)
    return _("%(state)s, by three or more people in different networks.", state=_(STATES[lamp.code]).capitalize())
