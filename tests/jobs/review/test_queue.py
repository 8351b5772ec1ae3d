"""Leases and the order of the queue, on a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from detector.errors import StorageError
from jobs.review.queue import LEASE_S, REFRESH_S, Item, Leases, Queue, neighbour

PEOPLE, VIDEOS, PAGES = ("ann", "bob", "eve"), ("v1", "v2"), ("p1", "p2")


class LeaseMachine(RuleBasedStateMachine):
    """What each browser was told it holds; the clock moves by whole seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases = Leases(lambda: self.now)
        self.told: dict[tuple[str, str], float] = {}  # (video, person) -> until when it may believe so

    @rule(video=st.sampled_from(VIDEOS), who=st.sampled_from(PEOPLE), page=st.sampled_from((*PAGES, None)))
    def take(self, video: str, who: str, page: str | None) -> None:
        lease = self.leases.take(video, who, who, page)
        if lease.holder == who:
            self.told[video, who] = self.now + LEASE_S
        else:
            assert self.told[video, lease.holder] > self.now, "refused for somebody who no longer holds it"
            self.told.pop((video, who), None)

    @rule(video=st.sampled_from(VIDEOS), who=st.sampled_from(PEOPLE), page=st.sampled_from((*PAGES, None)))
    def release(self, video: str, who: str, page: str | None) -> None:
        held = self.leases.of(video)
        self.leases.release(video, who, page)
        if held is not None and held.holder == who and page in (None, held.page):
            assert self.leases.of(video) is None
            self.told.pop((video, who), None)

    @rule(seconds=st.sampled_from((1, 60, 299, 300, 301)))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.told = {key: until for key, until in self.told.items() if until > self.now}

    @invariant()
    def one_holder_at_most(self) -> None:
        for video in VIDEOS:
            holders = [who for (held, who) in self.told if held == video]
            assert len(holders) <= 1, f"{video} is held by {holders}"
            lease = self.leases.of(video)
            assert (lease.holder if lease else None) == (holders[0] if holders else None)
            for who in PEOPLE:
                assert (video in self.leases.by_others(who)) == (holders not in ([], [who]))


def test_two_people_never_hold_one_video() -> None:
    run_state_machine_as_test(LeaseMachine)


def test_a_lease_ends_after_five_minutes_without_a_sign_of_life() -> None:
    now = [0.0]
    leases = Leases(lambda: now[0])
    leases.take("v", "ann", "Ann", "p")
    now[0] = LEASE_S - 1
    assert leases.take("v", "bob", "Bob", "q").name == "Ann"
    assert leases.take("v", "ann", "Ann").page == "p", "a sign of life leaves the page as it was"
    now[0] = 2 * LEASE_S - 2
    assert leases.take("v", "bob", "Bob", "q").name == "Ann"
    now[0] = 2 * LEASE_S
    assert leases.take("v", "bob", "Bob", "q").name == "Bob"


def test_leaving_a_page_that_was_opened_again_gives_nothing_back() -> None:
    leases = Leases(lambda: 0.0)
    leases.take("v", "ann", "Ann", "before")
    leases.take("v", "ann", "Ann", "after")  # a reload: the farewell of the page before comes late
    leases.release("v", "ann", "before")
    assert leases.of("v") is not None
    leases.release("v", "ann", "after")
    assert leases.of("v") is None


def items(*names: str) -> tuple[Item, ...]:
    return tuple(Item(name, "flagged", 0.9) for name in names)


def test_a_list_that_cannot_be_read_again_stays_as_it_was() -> None:
    told: list[Exception] = []
    now, answers = [0.0], iter([items("a", "b"), StorageError("gone"), items("c")])

    def read() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    queue = Queue(read, lambda: now[0], told.append, StorageError)
    assert queue.items() == items("a", "b")
    queue.forget("a")
    assert queue.items() == items("b"), "without reading"
    now[0] += REFRESH_S
    assert queue.items() == items("b")
    assert [str(error) for error in told] == ["gone"]
    now[0] += REFRESH_S - 1
    assert queue.items() == items("b"), "the store is not asked at every click"
    now[0] += 1
    assert queue.items() == items("c")


def test_a_first_list_that_cannot_be_read_is_an_error() -> None:
    def read() -> Any:
        raise StorageError("gone")

    queue = Queue(read, lambda: 0.0, print, StorageError)
    with pytest.raises(StorageError):
        queue.items()


@given(
    names=st.lists(st.sampled_from("abcdef"), unique=True),
    current=st.sampled_from((*"abcdefx", None)),
    busy=st.sets(st.sampled_from("abcdef")),
    step=st.sampled_from((1, -1)),
)
def test_the_next_one_is_free_and_another(
    names: list[str], current: str | None, busy: set[str], step: int
) -> None:
    free = set(names) - busy - {current}
    found = neighbour(items(*names), current, busy, step)
    assert (found is None) == (not free)
    if found is not None:
        assert found.video_id in free
        around = names * 2 if current in names else names
        start = names.index(str(current)) if current in names else -1
        if step > 0:
            assert found.video_id == next(name for name in around[start + 1 :] if name in free)
