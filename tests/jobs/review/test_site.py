"""The way of a decision: queue, page, row, undo; two people, two tabs, a table that changes meanwhile."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from detector.errors import StorageError
from jobs.maintenance import purge
from jobs.review.decisions import Decision, Reviews
from jobs.review.queue import LEASE_S, REFRESH_S
from jobs.table import ResultsTable
from tests.jobs.review.conftest import Shown, row_of

HTMX = {"hx-request": "true"}


def test_the_queue_begins_with_the_highest_flagged_and_ends_with_the_uncertain(shown: Shown) -> None:
    ann = shown.browser()
    found = []
    for number in range(3):
        assert ann.get("/").headers["location"] == shown.page(number)
        found.append(shown.decide(ann, number).headers["location"])
    assert found == [shown.page(1), shown.page(2), "/"]
    page = ann.get("/")
    assert (page.status_code, "No flagged or uncertain video waits" in page.text) == (200, True)


def test_a_decision_is_a_row_with_what_was_seen(shown: Shown) -> None:
    before = datetime.now(UTC)
    was_shown = {"blurred": False, "played_s": 3.5, "clear_s": 1.5, "segments": [0], "preview": False}
    answer = shown.decide(
        shown.browser("Ann Ö."), 1, "real", note=" two\r\nlines ", shown=json.dumps(was_shown)
    )
    assert answer.headers["location"] == shown.page(2)
    [row] = shown.written()
    assert (row["uri"], row["version"], row["video_id"]) == tuple(
        shown.rows[1][name] for name in ("uri", "version", "video_id")
    )
    assert (row["decision"], row["who"], row["note"], row["undoes"]) == ("real", "Ann Ö.", "two\nlines", None)
    assert (row["weights_id"], row["settings_id"], row["policy_id"], row["p_fake"]) == ("w1", "A", "p1", 0.93)
    assert json.loads(row["shown"]) == was_shown | {"grey": True, "muted": True}
    assert before <= row["at"] <= before + timedelta(minutes=1)
    page = shown.browser().get(shown.page(1)).text
    assert "Ann Ö. decided: Real" in page, "who comes by later reads it"


def test_undo_puts_the_newest_of_ones_own_decisions_back(shown: Shown) -> None:
    ann, bob = shown.browser("ann"), shown.browser("bob")
    shown.decide(ann, 0)
    shown.decide(bob, 1)
    assert ann.post("/undo").headers["location"] == shown.page(0)
    assert ann.get("/").headers["location"] == shown.page(0)
    assert bob.get("/").headers["location"] == shown.page(2), "hers is not his"
    assert [row["decision"] for row in shown.written()] == ["fake", "fake", "undone"]
    again = ann.post("/undo", headers=HTMX)
    assert (again.status_code, again.text) == (409, "There is no decision of yours to take back.")
    assert len(shown.written()) == 3


def test_two_people_never_get_one_video(shown: Shown) -> None:
    ann, bob = shown.browser("ann"), shown.browser("bob")
    assert ann.get("/", follow_redirects=True).url.path == shown.page(0)
    assert bob.get("/").headers["location"] == shown.page(1)
    page = bob.get(shown.page(0)).text
    assert "ann is looking at this video now" in page
    assert page.count("disabled>") == 3, "fake, real and unsure"
    refused = shown.decide(bob, 0)
    assert (refused.status_code, shown.written()) == (409, [])
    assert "ann is looking at this video right now. Nothing was recorded." in refused.text
    shown.seconds[0] += LEASE_S - 1
    assert ann.post(f"{shown.page(0)}/heartbeat").status_code == 204
    shown.seconds[0] += LEASE_S - 1
    assert bob.post(f"{shown.page(0)}/heartbeat", headers=HTMX).status_code == 409
    shown.seconds[0] += 1
    assert shown.decide(bob, 0).status_code == 303, "ann's browser has been silent for five minutes"
    assert ann.get("/").headers["location"] == shown.page(1)


def test_one_name_in_two_browsers_is_two_holders(shown: Shown) -> None:
    one, two = shown.browser("ann"), shown.browser("ann")
    one.get(shown.page(0))
    assert two.get("/").headers["location"] == shown.page(1)
    assert shown.decide(two, 0).status_code == 409


@pytest.mark.parametrize("way", ["skip", "leave", "decision"])
def test_a_video_is_free_once_it_is_left(shown: Shown, way: str) -> None:
    ann, bob = shown.browser("ann"), shown.browser("bob")
    page = ann.get(shown.page(0)).text.split('data-page="')[1].split('"')[0]
    if way == "leave":
        assert ann.post(f"{shown.page(0)}/leave?page=other").status_code == 204
        assert bob.get("/").headers["location"] == shown.page(1), "it was another page that was left"
        ann.post(f"{shown.page(0)}/leave?page={page}")
    elif way == "skip":
        assert ann.post(f"{shown.page(0)}/skip", headers=HTMX).headers["hx-redirect"] == shown.page(1)
    else:
        shown.decide(ann, 0)
        ann.post("/undo")
        ann.post(f"{shown.page(0)}/skip")
    assert bob.get("/").headers["location"] == shown.page(0)


def test_next_and_previous_go_around_what_is_free(shown: Shown) -> None:
    ann, bob = shown.browser("ann"), shown.browser("bob")
    bob.get(shown.page(1))
    assert ann.get(f"{shown.page(0)}/next").headers["location"] == shown.page(2)
    assert ann.get(f"{shown.page(2)}/next").headers["location"] == shown.page(0)
    assert ann.get(f"{shown.page(0)}/previous").headers["location"] == shown.page(2)
    assert ann.get(f"{shown.page(3)}/next").headers["location"] == shown.page(0), "from outside the queue"


def test_a_decision_on_what_has_changed_is_refused(shown: Shown) -> None:
    ann, bob = shown.browser("ann"), shown.browser("bob")
    seen = shown.seen(ann)
    shown.seconds[0] += LEASE_S
    shown.decide(bob, 0, "real")
    late = ann.post(f"{shown.page(0)}/decision", data={"decision": "fake", "seen": seen})
    assert (late.status_code, [row["who"] for row in shown.written()]) == (409, ["bob"])
    assert "decided or scored anew" in late.text
    assert shown.decide(ann, 0).status_code == 303, "after a look at what bob decided"
    assert [row["who"] for row in shown.written()] == ["bob", "ann"]


def test_another_server_s_decisions_and_later_scans_are_seen_within_a_minute(shown: Shown) -> None:
    ann = shown.browser("ann")
    ann.get("/")
    Reviews(str(shown.output)).add(shown.rows[0], "elsewhere", Decision.FAKE)
    shown.path(1).write_bytes(b"another content")
    new = row_of(shown.path(1), 0.99, "flagged")
    with ResultsTable.open(str(shown.output)).claim("two") as table:
        table.append([new | {"modified_at": new["modified_at"] + timedelta(days=1)}])
    shown.seconds[0] += REFRESH_S
    assert ann.get("/").headers["location"] == f"/videos/{new['video_id']}"
    assert ann.get(f"/videos/{new['video_id']}/next").headers["location"] == shown.page(2), (
        "the old version waits no more"
    )


def test_a_table_that_is_purged_under_the_server_is_read_again(shown: Shown) -> None:
    ann = shown.browser("ann")
    shown.decide(ann, 1)
    purge(str(shown.output), [shown.rows[0]["uri"], shown.rows[1]["uri"]], None, dry_run=False)
    shown.seconds[0] += REFRESH_S
    assert ann.get("/").headers["location"] == shown.page(2)
    assert ann.get(shown.page(0)).status_code == 404
    assert shown.written() == []


def test_a_decision_on_what_was_purged_meanwhile_writes_nothing(shown: Shown) -> None:
    ann = shown.browser("ann")
    seen = shown.seen(ann)
    assert ann.get(f"{shown.page(0)}/media").status_code == 200
    purge(str(shown.output), [shown.rows[0]["uri"]], None, dry_run=False)
    fields = {"decision": "fake", "seen": seen, "note": "a secret"}
    late = ann.post(f"{shown.page(0)}/decision", data=fields)
    assert (late.status_code, "no longer in the table" in late.text) == (404, True)
    assert shown.written() == [], "the uri and the note came back"


def test_a_video_that_plays_is_not_played_for_ever_after_a_purge(shown: Shown) -> None:
    ann = shown.browser("ann")
    assert ann.get(f"{shown.page(0)}/media").status_code == 200
    purge(str(shown.output), [shown.rows[0]["uri"]], None, dry_run=False)
    for _ in range(4):
        shown.seconds[0] += REFRESH_S / 4
        last = ann.get(f"{shown.page(0)}/media").status_code
    assert last == 404


def test_decisions_at_once_with_one_look_are_one(shown: Shown) -> None:
    ann = shown.browser("ann")
    fields = {"decision": "fake", "seen": shown.seen(ann)}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ann.post(f"{shown.page(0)}/decision", data=fields), range(8)))
    assert sorted(answer.status_code for answer in answers) == [303] + [409] * 7
    assert len(shown.written()) == 1
    assert all("decided or scored anew" in one.text for one in answers if one.status_code == 409)
    assert shown.site.leases.of(shown.rows[0]["video_id"]) is None, "those that were refused hold nothing"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ann.post("/undo"), range(4)))
    assert sorted(answer.status_code for answer in answers) == [303] + [409] * 3
    assert [row["decision"] for row in shown.written()] == ["fake", "undone"]


@pytest.mark.parametrize("way", ["heartbeat", "skip", "next", "previous"])
def test_a_video_that_is_not_in_the_table_is_nobody_s(shown: Shown, way: str) -> None:
    ann, path = shown.browser("ann"), f"/videos/{'f' * 16}/{way}"
    answer = ann.get(path) if way in ("next", "previous") else ann.post(path)
    assert answer.status_code == 404
    assert shown.site.leases.of("f" * 16) is None


def test_a_store_that_fails_is_told_and_the_list_stays(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = shown.browser("ann")
    ann.get("/")

    def fail(*_: object, **__: object) -> None:
        raise StorageError("the store is \x1b[2J gone")

    monkeypatch.setattr(shown.site.videos, "waiting", fail)
    shown.seconds[0] += REFRESH_S
    assert ann.get("/").headers["location"] == shown.page(0)
    assert "the list is that of before: the store is \\x1b[2J gone" in caplog.text
    seen = shown.seen(ann)
    monkeypatch.setattr(shown.site.reviews, "add", fail)
    fields = {"decision": "fake", "seen": seen}
    answer = ann.post(f"{shown.page(0)}/decision", data=fields, headers=HTMX)
    assert (answer.status_code, answer.text) == (503, "the store is \\x1b[2J gone")
    assert ann.get("/").headers["location"] == shown.page(0), "it was not decided, and waits"


def test_nobody_decides_without_a_name(shown: Shown) -> None:
    nobody = shown.browser(None)
    assert nobody.get("/").headers["location"] == "/who"
    assert nobody.get(shown.page(0)).headers["location"] == "/who"
    fields = {"decision": "fake", "seen": "x"}
    assert nobody.post(f"{shown.page(0)}/decision", data=fields).headers["location"] == "/who"
    assert shown.written() == []
    cookie = nobody.post("/who", data={"who": " Ann; Path=/x Ö "}).headers["set-cookie"]
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert "You are Ann; Path=/x Ö" in nobody.get(shown.page(0)).text
