"""A picture that is drawn as long as nothing else needs the terminal."""

import io
import threading

import pytest
from rich.console import Console

from bake.spec import Role
from k3s_bake import fleet_report, report
from k3s_bake.adopt import Candidate, Outcome
from k3s_bake.login import Login
from k3s_bake.screen import Screen

pytestmark = pytest.mark.unit


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns is sent."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80)
    monkeypatch.setattr(report, "console", lambda stderr: console)
    return text


def test_it_is_drawn_and_steps_aside(shown: io.StringIO) -> None:
    screen = Screen()
    drawn = threading.Event()

    def picture() -> str:
        drawn.set()
        return "a picture"

    with screen.showing(picture):
        assert drawn.wait(10)
        with screen.aside(), screen.aside():
            size = shown.tell()
            drawn.clear()
            assert not drawn.wait(0.6)
            assert shown.tell() == size
        assert drawn.wait(10)
    drawn.clear()
    assert not drawn.wait(0.6)
    assert "a picture" in shown.getvalue()


def test_elsewhere_than_in_a_terminal_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(report, "console", lambda stderr: Console(file=text))
    screen = Screen()
    with screen.showing(lambda: "a picture"), screen.aside():
        pass
    assert (screen.is_live, text.getvalue()) == (False, "")


def test_how_far_each_node_is(shown: io.StringIO) -> None:
    sending, failed = (
        Outcome(Candidate(Login(f"10.0.0.{at}", "pi"), Role.WORKER), f"w{at}") for at in (1, 2)
    )
    sending.enter("sending", "k3s")
    sending.count(12_000_000)
    failed.enter("failed")
    failed.error = "no route"
    report.console(stderr=True).print(fleet_report.progress([sending, failed]))
    text = shown.getvalue()
    assert "sending (k3s)" in text
    assert "12 MB" in text
    assert "failed (no route)" in text
