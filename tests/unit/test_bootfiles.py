import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raspbian import CMDLINE

from bake.bootfiles import CGROUP_WORDS, lines, with_cgroups

pytestmark = pytest.mark.unit

_TOUCHED = re.compile(
    r"cgroup_(enable|disable|memory|no_v1)\b.*|systemd\.unified_cgroup_hierarchy.*|cgroup_memory=.*"
)


def test_stock_line_gets_the_words_and_keeps_all_else() -> None:
    line = with_cgroups(CMDLINE, cgroup_v2=False)
    assert line == CMDLINE.strip() + " cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory\n"
    # Raspbian's first boot strips exactly this, with the space before it.
    assert " init=/usr/lib/raspi-config/init_resize.sh " in line


@pytest.mark.parametrize(
    "word",
    [
        "cgroup_disable=memory",
        "cgroup_disable=cpuset,memory",
        "cgroup_memory=0",
        "cgroup_enable=memory cgroup_enable=memory",
        "systemd.unified_cgroup_hierarchy=1",
        "systemd.unified_cgroup_hierarchy",
        "cgroup_no_v1=all",
    ],
)
def test_contradicting_and_double_words_go(word: str) -> None:
    assert with_cgroups(f"a {word} b", cgroup_v2=False) == with_cgroups("a b", cgroup_v2=False)


@pytest.mark.parametrize("text", ["a b\nc\n", "\n \na b\n\nc d\n", "a b\r\nc\r\n"])
def test_only_the_line_that_the_firmware_reads_counts(text: str) -> None:
    assert with_cgroups(text, cgroup_v2=False) == with_cgroups("a b", cgroup_v2=False)
    assert lines(text)[1].split() == text.split()[2:]


def test_cgroup_v2_is_left_where_the_target_can_run_on_it() -> None:
    line = with_cgroups("systemd.unified_cgroup_hierarchy=1 a", cgroup_v2=True)
    assert line.startswith("systemd.unified_cgroup_hierarchy=1 a ")


@pytest.mark.parametrize(
    "word", ["cgroup_disable=pids", "cgroup_enable=pids", "systemd.unified_cgroup_hierarchy=0"]
)
def test_words_on_other_things_stay(word: str) -> None:
    assert with_cgroups(f"a {word}", cgroup_v2=False).startswith(f"a {word} ")


_words = st.one_of(
    st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1),
    st.sampled_from([*CGROUP_WORDS, "cgroup_disable=memory", "systemd.unified_cgroup_hierarchy=1", "quiet"]),
)
_any_line = st.one_of(
    st.text(),
    st.lists(_words).flatmap(lambda words: st.sampled_from([" ", "\n", "\r\n"]).map(lambda s: s.join(words))),
)


@given(_any_line, st.booleans())
def test_any_text_becomes_one_settled_line(text: str, v2: bool) -> None:
    line = with_cgroups(text, cgroup_v2=v2)
    assert line.endswith("\n")
    assert len(line.split("\n")) == 2
    assert "\r" not in line
    assert all(line.split().count(word) == 1 for word in CGROUP_WORDS)
    assert with_cgroups(line, cgroup_v2=v2) == line


@given(_any_line, st.booleans())
def test_unknown_words_stay_in_order(text: str, v2: bool) -> None:
    first = next((line for line in re.split("[\r\n]", text) if line.strip()), "")
    before = [word for word in first.split() if not _TOUCHED.match(word)]
    after = [word for word in with_cgroups(text, cgroup_v2=v2).split() if not _TOUCHED.match(word)]
    assert before == after


def test_bytes_that_are_no_utf8_survive() -> None:
    raw = b"a=\xff\xfe b"
    line = with_cgroups(raw.decode("utf-8", "surrogateescape"), cgroup_v2=False)
    assert line.encode("utf-8", "surrogateescape").startswith(raw + b" ")
