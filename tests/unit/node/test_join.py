from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firstboot import join
from firstboot.contract import REASONS, Announcement, NodeConfig
from firstboot.join import Ask, Listen, Memory, Seen, Start, Try, View
from firstboot.token import Grant

pytestmark = pytest.mark.unit

CONFIG = NodeConfig("home", "worker")
MASTER = Announcement("home", "master", "home-master", "joined", addr="10.0.0.2", serial="aa", since=7)
OTHER = replace(MASTER, name="home-2", addr="10.0.0.3", serial="bb")


def grant(ca: str = "a", address: str = "10.0.0.2") -> Grant:
    digits = ca * 64
    return Grant(
        f"K10{digits}::node:secret", f"https://{address}:6443", digits, "v1.34.9+k3s1", 1_700_000_000
    )


def view(**values: object) -> View:
    return replace(View(1000.0, CONFIG, serial="cc"), **values)


def test_with_nobody_there_it_listens_and_says_why() -> None:
    assert join.next_step(view()) == Listen("searching", "no-master")
    assert join.next_step(view(network=False)) == Listen("searching", "no-network")


@pytest.mark.parametrize(
    "stranger",
    [
        replace(MASTER, cluster="work"),
        replace(MASTER, role="worker"),
        replace(MASTER, addr=""),
        replace(MASTER, serial="cc"),  # itself
    ],
)
def test_who_is_not_asked(stranger: Announcement) -> None:
    assert join.next_step(view(heard=[stranger])) == Listen("searching", "no-master")


def test_whoever_is_heard_is_asked_before_those_known_by_address() -> None:
    config = replace(CONFIG, master="10.0.0.9")
    found = join.candidates(view(heard=[MASTER], config=config, memory=Memory(address="10.0.0.8")))
    assert list(found) == ["10.0.0.2", "10.0.0.9", "10.0.0.8"]
    both = {"10.0.0.2": "joined 7", "10.0.0.9": ""}
    assert join.next_step(view(heard=[MASTER], config=config)) == Ask(both)
    assert join.next_step(view(config=config)) == Ask({"10.0.0.9": ""})


def test_all_are_asked_before_one_is_joined() -> None:
    tries = {"10.0.0.2": join.granted("joined 7", grant(), 1000.0)}
    assert join.next_step(view(heard=[MASTER, OTHER], tries=tries)) == Ask({"10.0.0.3": "joined 7"})
    assert join.next_step(view(heard=[MASTER], tries=tries)) == Start("10.0.0.2", grant())


def test_a_rogue_beside_the_master_hinders_nothing() -> None:
    tries = {
        "10.0.0.3": join.failed(None, "joined 7", "untrusted-master", 1000.0, 1.0),
        "10.0.0.2": join.granted("joined 7", grant(), 1000.0),
    }
    assert join.next_step(view(heard=[OTHER, MASTER], tries=tries)) == Start("10.0.0.2", grant())


def test_masters_of_one_cluster_and_of_two() -> None:
    tries = {
        "10.0.0.2": join.granted("joined 7", grant("a"), 1000.0),
        "10.0.0.3": join.granted("joined 7", grant("a", "10.0.0.3"), 1000.0),
    }
    assert isinstance(join.next_step(view(heard=[MASTER, OTHER], tries=tries)), Start)
    tries["10.0.0.3"] = join.granted("joined 7", grant("b", "10.0.0.3"), 1000.0)
    both = view(heard=[MASTER, OTHER], tries=tries)
    assert join.next_step(both) == Listen("blocked", "two-clusters")
    # One of them is turned off: it heals.
    assert join.next_step(replace(both, heard=[MASTER])) == Start("10.0.0.2", grant("a"))


def test_a_second_cluster_has_time_to_be_heard() -> None:
    early = view(heard=[MASTER], tries={"10.0.0.2": join.granted("joined 7", grant(), 1000.0)}, listened=1.0)
    assert join.next_step(early) == Listen("asking", "", join.LISTENED - 1.0)
    assert isinstance(join.next_step(replace(early, memory=Memory(ca="a" * 64))), Start)


def test_a_master_that_a_person_has_named_needs_no_such_time() -> None:
    tries = {"10.0.0.2": join.granted("", grant(), 1000.0)}
    named = view(config=replace(CONFIG, master="10.0.0.2"), tries=tries, listened=0.0)
    assert isinstance(join.next_step(named), Start)


def test_strangers_hold_up_nobody_who_has_a_grant() -> None:
    tries = {"10.0.0.2": join.granted("joined 7", grant(), 1000.0)}
    strangers = [replace(OTHER, addr=f"10.0.1.{number}") for number in range(20)]
    first = join.next_step(view(heard=[MASTER, *strangers], tries=tries))
    assert isinstance(first, Ask)
    assert len(first.masters) == join.AT_ONCE
    asked = {one.addr: join.failed(None, "joined 7", "unreachable", 900.0, 0.0) for one in strangers}
    step = join.next_step(view(heard=[MASTER, *strangers], tries={**asked, **tries}))
    assert step == Start("10.0.0.2", grant())  # though each of them is due again
    late = view(now=1000.0 + join.SETTLED, heard=[MASTER, *strangers], tries=tries)
    assert join.next_step(late) == Start("10.0.0.2", grant())


def test_a_cluster_is_never_changed() -> None:
    memory = Memory(ca="a" * 64)
    tries = {"10.0.0.2": join.granted("joined 7", grant("b"), 1000.0)}
    strayed = view(heard=[MASTER, OTHER], memory=memory, tries=tries)
    assert join.next_step(replace(strayed, heard=[MASTER])) == Listen("blocked", "other-cluster")
    tries["10.0.0.3"] = join.granted("joined 7", grant("a", "10.0.0.3"), 1000.0)
    assert join.next_step(strayed) == Start("10.0.0.3", grant("a", "10.0.0.3"))


@pytest.mark.parametrize(
    ("reason", "phase"),
    [
        ("not-ready", "asking"),
        ("unreachable", "asking"),
        ("untrusted-master", "asking"),
        ("bad-answer", "asking"),
        ("credential-refused", "blocked"),
        ("name-taken", "blocked"),
        ("not-allowed", "blocked"),
        ("newer-than-master", "blocked"),
    ],
)
def test_waiting_is_no_failure_but_what_a_person_must_mend_is(reason: str, phase: str) -> None:
    tries = {"10.0.0.2": join.failed(None, "joined 7", reason, 1000.0, 1.0)}
    assert join.next_step(view(heard=[MASTER], tries=tries)) == Listen(phase, reason)


def test_the_most_telling_reason_is_told() -> None:
    tries = {
        "10.0.0.3": join.failed(None, "joined 7", "untrusted-master", 1000.0, 1.0),
        "10.0.0.2": join.failed(None, "joined 7", "name-taken", 1000.0, 1.0),
    }
    assert join.next_step(view(heard=[OTHER, MASTER], tries=tries)) == Listen("blocked", "name-taken")


def test_a_master_that_keeps_a_node_waiting_is_asked_again_soon() -> None:
    last = Try(1000.0, "", failures=6, wait=60.0, reason="not-ready")
    assert join.failed(last, "", "not-ready", 1020.0, 1.0, waited=True).wait == 4.0
    assert join.failed(last, "", "not-ready", 1000.0, 1.0).wait == 60.0


def test_many_that_hear_the_same_master_do_not_ask_at_once() -> None:
    others = [replace(MASTER, role="worker", name=f"w{at}", phase="searching") for at in range(100)]
    assert 20.0 < join.crowd(view(heard=[MASTER, *others])) < 40.0
    assert join.crowd(view(heard=[replace(MASTER, phase="joined"), *others[:4]])) == 0.0


def test_a_master_with_news_is_asked_at_once_but_not_all_the_time() -> None:
    last = Try(1000.0, "starting 5", failures=6, wait=60.0, reason="not-ready")
    tries = {"10.0.0.2": last}
    assert isinstance(join.next_step(view(now=1000.4, heard=[MASTER], tries=tries)), Listen)
    assert isinstance(join.next_step(view(now=1000.5, heard=[MASTER], tries=tries)), Ask)
    same = replace(MASTER, phase="starting", since=5)
    assert isinstance(join.next_step(view(now=1059.0, heard=[same], tries=tries)), Listen)
    assert isinstance(join.next_step(view(now=1060.0, heard=[same], tries=tries)), Ask)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_questions_back_off_but_never_end(chances: list[float]) -> None:
    last, waits = None, []
    for chance in chances:
        last = join.failed(last, "", "unreachable", 0.0, chance)
        waits.append(last.wait)
    assert all(join.FIRST <= wait <= join.LONGEST for wait in waits)
    assert all(wait <= join.FIRST * 2**count for count, wait in enumerate(waits, 1))


def test_a_worker_that_is_on_for_an_hour_before_its_master() -> None:
    """And one whose master is known by its address and not there: asked each minute or more often."""
    for config in (CONFIG, replace(CONFIG, master="10.0.0.2")):
        now, tries, asked = 0.0, {}, []
        while now < 3600:
            step = join.next_step(view(now=now, config=config, tries=tries))
            if isinstance(step, Ask):
                asked.append(now)
                for address in step.masters:
                    tries[address] = join.failed(tries.get(address), "", "unreachable", now, 1.0)
            else:
                assert isinstance(step, Listen)
                now += 4
        assert all(asked[at] - asked[at - 1] <= 64 for at in range(1, len(asked)))
        now += 1
        assert isinstance(join.next_step(view(now=now, heard=[MASTER], config=config, tries=tries)), Ask)


names = st.sampled_from(["10.0.0.2", "10.0.0.3", "10.0.0.4"])
announced = st.builds(
    Announcement,
    st.sampled_from(["home", "work"]),
    st.sampled_from(["master", "worker"]),
    st.just("n"),
    st.sampled_from(["starting", "joined"]),
    addr=st.one_of(names, st.just("")),
    serial=st.sampled_from(["aa", "cc"]),
    since=st.integers(0, 3),
)
a_try = st.builds(
    Try,
    st.floats(0, 1000),
    st.sampled_from(["", "joined 1"]),
    st.integers(0, 9),
    st.floats(2, 60),
    st.sampled_from(["", *join._TELLING]),
    st.one_of(st.none(), st.sampled_from([grant("a"), grant("b")])),
)


@given(st.lists(announced, max_size=6), st.dictionaries(names, a_try), st.sampled_from(["", "a" * 64]))
def test_whatever_is_heard_the_step_is_sound(
    heard: list[Announcement], tries: dict[str, Try], ca: str
) -> None:
    step = join.next_step(view(heard=heard, tries=tries, memory=Memory(ca=ca)))
    ours = {one.addr for one in heard if one.cluster == "home" and one.role == "master"}
    if isinstance(step, Start):
        assert tries[step.address].grant == step.grant
        assert not ca or step.grant.ca == ca
        assert step.address in ours
    elif isinstance(step, Ask):
        assert 0 < len(step.masters) <= join.AT_ONCE
        assert ours.issuperset(step.masters)
    else:
        assert step.reason in ("", *REASONS)
        assert step.phase in ("searching", "asking", "blocked")


@pytest.mark.parametrize(
    ("seen", "joined", "expected"),
    [
        (Seen(True, True), False, ("joined", "")),
        (Seen(True, False), True, ("starting", "")),
        (Seen(True, None, "unreachable"), True, ("joined", "master-lost")),
        (Seen(True, None, "other-cluster"), True, ("joined", "other-cluster")),
        (Seen(True, None, "unreachable"), False, ("starting", "unreachable")),
        (Seen(True, False, "", rejected=True), False, ("starting", "password-rejected")),
        (Seen(False, False, "", seconds=30), False, ("starting", "")),
        (Seen(False, False, "", seconds=90), True, ("starting", "k3s-failed")),
        (Seen(False, False, "", seconds=300, starting=True), False, ("starting", "")),
        (Seen(False, None, "unreachable", seconds=90), True, ("starting", "k3s-failed")),
    ],
)
def test_a_node_that_was_started(seen: Seen, joined: bool, expected: tuple[str, str]) -> None:
    assert join.watched(seen, joined) == expected
