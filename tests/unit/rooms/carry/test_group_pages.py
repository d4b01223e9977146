"""The pages of groups as browsers without JavaScript use them, over real sockets."""

from __future__ import annotations

import re

from outlast.rooms.carry import groups
from tests.unit.edges.served import Served
from tests.unit.rooms.carry.two import trip, until

HOSTILE = "<b>circle</b> & co"


def line(text: str) -> str:
    """A page as one line."""
    return re.sub(r"\s+", " ", text)


def asked(ann: Served, ben: Served, name: str) -> tuple[bytes, str]:
    """A group of Ann's into which Ben was asked, and its address."""
    group = ann.run(groups.create(ann.node, ann.person, name, [ben.person.identity]))
    trip(ann, ben)
    until(ben, lambda: any(one.space == group.space for one in groups.invitations(ben.person)))
    return group.space, f"/carry/groups/{group.id}"


def shared(ann: Served, ben: Served, name: str) -> tuple[bytes, str]:
    """A group of Ann's that Ben has joined, and its address."""
    space, address = asked(ann, ben, name)
    ben.run(groups.join(ben.node, ben.person, space))
    trip(ben, ann)
    until(ann, lambda: all(one.has_joined for one in groups.members(ann.person, space)))
    return space, address


def says(start: Served, end: Served, space: bytes, text: str) -> bytes:
    """A text that comes to the other by stick."""
    id = start.run(groups.post(start.node, start.person, space, text))
    trip(start, end)
    until(end, lambda: any(one.id == id for one in groups.read(end.person, space)))
    return id


def test_somebody_founds_a_group_asks_others_in_and_writes(ann: Served, ben: Served) -> None:
    with ann.owner() as page:
        assert "New group" in page.get("/carry/").text
        assert ben.person.id in page.get("/carry/groups/new").text
        empty = page.submit("/carry/groups/new", name=" ")
        assert (empty.status_code, "1 to 64" in empty.text) == (400, True)
        answer = page.submit("/carry/groups/new", name=HOSTILE, **{ben.person.id: "on"})
        address = answer.headers["location"]
        assert answer.status_code == 303
        shown = page.get(address).text
        assert "&lt;b&gt;circle&lt;/b&gt; &amp; co</bdi>" in shown
        assert "circle" not in re.findall("<title>(.*)</title>", shown)[0]
        assert "2 members" in shown
        assert "Nothing was said here yet" in shown
        assert "Ben &lt;b&gt; was asked to join." in shown
        assert page.submit(address, text="Hello all").status_code == 303
        shown = line(page.get(address).text)
        assert '<p dir="auto">Hello all</p>' in shown
        assert "no member is known to have it yet" in shown
        listed = line(page.get("/carry/").text)
        assert 'You:</span> <span class="one-line" dir="auto">Hello all' in listed
        assert "2 members" in listed
        assert "asked in<" in page.get(address + "/members").text
        refused = page.submit(address, text="ы" * 3000)
        assert (refused.status_code, "are allowed" in refused.text) == (400, True)


def test_who_is_asked_in_answers_on_the_page_of_messages(ann: Served, ben: Served) -> None:
    space, address = asked(ann, ben, "Bridge watch")
    with ben.owner() as page:
        assert re.search(r"\d invitations? to ", page.get("/").text)
        shown = line(page.get("/carry/").text)
        assert "Ann asks you into this group." in shown
        assert page.get(address).status_code == 404
        joined = page.submit("/carry/invitations", join=address.rpartition("/")[2])
        assert (joined.status_code, joined.headers["location"]) == (303, address)
        assert "Bridge watch" in page.get(address).text
        assert "Bridge watch</bdi></h2>" not in page.get("/carry/").text
    other, declined = asked(ann, ben, "Other watch")
    with ben.owner() as page:
        assert page.submit("/carry/invitations", decline=declined.rpartition("/")[2]).status_code == 303
        assert "Other watch" not in page.get("/carry/").text
    assert not {space, other} & {one.space for one in groups.invitations(ben.person)}


def test_who_wrote_is_said_and_what_is_new_is_counted_until_it_is_read(ann: Served, ben: Served) -> None:
    space, address = shared(ann, ben, "Water")
    first = says(ann, ben, space, "Water at ten")
    with ben.owner() as page:
        shown = line(page.get(address).text)
        assert "<small><bdi>Ann</bdi></small>" in shown
        assert '<span class="badge">1<span class="hidden"> new' in line(page.get("/carry/").text)
        upto = re.findall(r'form="seen" name="upto" value="(\d+)"', shown)[0]
        assert page.submit(address + "/read", upto=upto).status_code == 303
        assert groups.get(ben.person, space).unread == 0
        assert page.submit(address, text="Where?", reply_to=first.hex()).status_code == 303
        assert 'class="quote one-line" dir="auto">Water at ten<' in page.get(address).text
        ben.run(ben.person.block(ann.person.identity))
        for shown in (page.get(address).text, page.get(f"{address}?reply={first.hex()}&at={first.hex()}").text):
            assert "Where?" in shown
            assert "Water at ten" not in shown
        ben.run(ben.person.block(ann.person.identity, blocked=False))
        found = line(page.submit("/carry/search", words="WATER ten").text)
        assert "in the group <bdi>Water</bdi>" in found
    trip(ben, ann)
    until(ann, lambda: len([one for one in groups.read(ann.person, space) if one.text]) == 2)
    with ann.owner() as page:
        shown = line(page.get(address).text)
        assert "received by 1 of 1" in shown
        assert "<bdi>Ben &lt;b&gt; joined.</bdi>" in shown


def test_who_leads_takes_texts_away_and_changes_who_belongs(ann: Served, ben: Served) -> None:
    space, address = shared(ann, ben, "Mill")
    bad = says(ben, ann, space, "a rumour")
    with ben.owner() as page:
        assert "Remove from the group" not in page.get(address + "/members").text
        refused = page.submit(address + "/members/remove", who=ann.person.id)
        assert (refused.status_code, "only the founder" in line(refused.text).lower()) == (400, True)
    with ann.owner() as page:
        assert page.submit(address + "/remove", line=bad.hex()).status_code == 303
        assert "a rumour" not in page.get(address).text
        assert page.submit(address + "/members/role", who=ben.person.id).status_code == 303
        assert ">leads</span>" in page.get(address + "/members").text
        assert page.submit(address + "/members/role", who=ben.person.id).status_code == 303
        assert ">leads</span>" not in page.get(address + "/members").text
        assert page.submit(address + "/name", name="Old mill").status_code == 303
        assert "Old mill" in page.get("/carry/").text
        assert page.submit(address + "/members/remove", who=ben.person.id).status_code == 303
    trip(ann, ben)
    until(ben, lambda: groups.get(ben.person, space).role == "" and not groups.search(ben.person, "rumour"))
    with ben.owner() as page:
        shown = page.get(address).text
        assert "You were removed" in shown
        assert "<textarea" not in shown
        assert "a rumour" not in shown
        refused = page.submit(address, text="Written on an old page")
        assert (refused.status_code, "Written on an old page</textarea>" in refused.text) == (400, True)
        assert "readonly" in refused.text
        assert "Written on an old page</textarea>" in page.get(address).text, "kept, and never out of sight"
        assert page.submit(address + "/leave").status_code == 303
        assert page.get(address).status_code == 404
        assert "Mill" not in page.get("/carry/").text


def test_a_phone_reads_and_writes_in_groups(ann: Served, ben: Served) -> None:
    _, address = shared(ann, ben, "Phones")
    with ann.phone() as phone:
        assert phone.submit(address, text="from a phone").status_code == 303
        assert "from a phone" in phone.get(address).text
