"""What became of a fleet: tables, JSON, a page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from raspbian import Pi, worker
from rich.console import Console

from bake.node import plan
from bake.spec import FirstBoot, Role
from firstboot.contract import Credential
from firstboot.errors import UserError
from k3s_bake import fleet_page, fleet_report
from k3s_bake.adopt import Candidate, Outcome
from k3s_bake.login import Login
from k3s_bake.preflight import Problem

pytestmark = pytest.mark.unit


def outcome(name: str, address: str, role: Role = Role.WORKER) -> Outcome:
    made = Outcome(Candidate(Login(address, "pi"), role), name)
    made._began -= 10
    for at, phase in ((0.0, "connecting"), (0.5, "changing"), (2.0, "joined")):
        made.timeline.append((at, phase))
    made.phase, made.conf, made.inst, made.ready = "joined", 1.5, 2.25, True
    return made


@pytest.fixture
def fleet(pi: Pi) -> list[Outcome]:
    pi.install(**{"openssh-client": "1:7.9p1-10+deb10u2+rpt1"})
    first, second = outcome("m1", "10.0.0.2", Role.MASTER), outcome("<b>w1</b>", "10.0.0.3")
    first.pings, second.pings = {second.name: 0.5}, {first.name: None}
    binary = worker().k3s.binary
    spec = worker(
        first_boot=FirstBoot(binary, "ssh-ed25519 AAAA"),
        credential=Credential(None, "s3cret-key", "certificate"),
        registries=b"password: s3cret",
        name="w1",
    )
    second.plan = plan(spec, pi.read(), live=True)
    failed = outcome("", "10.0.0.4")
    failed.timeline.pop()
    failed.problems.append(Problem("clock", "its clock is wrong", "timedatectl", stops=False))
    failed.failed.append(["systemctl restart x", "no such unit"])
    failed.fail(UserError("the login was refused", "ssh-copy-id"))
    failed.ready = None
    return [first, second, failed]


def told(fleet: list[Outcome]) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(fleet_report.table(fleet))
    console.print(fleet_report.pings(fleet))
    return console.export_text() + "\n".join(fleet_report.troubles(fleet))


def test_what_a_person_reads(fleet: list[Outcome]) -> None:
    text = told(fleet)
    assert re.search(r"^m1 +master +pi@10\.0\.0\.2 +joined +Ready +1\.5 s +2\.2 s", text, re.MULTILINE)
    assert "lost" in text
    assert "pi@10.0.0.4: the login was refused\n    ssh-copy-id" in text
    assert "its clock is wrong: timedatectl" in text
    assert "'systemctl restart x' failed: no such unit" in text


def test_what_a_program_reads(fleet: list[Outcome]) -> None:
    found = json.loads(json.dumps(fleet_report.data(fleet)))
    assert [one["ready"] for one in found] == [True, True, None]
    assert found[2]["error"] == "the login was refused"
    assert found[1]["changes"]
    assert found[0]["timeline"][-1] == {"seconds": 2.0, "phase": "joined"}


class Page(HTMLParser):
    """Whether each element that is opened is closed, and what is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.loaded += [str(value) for key, value in attributes if key in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page(fleet: list[Outcome]) -> None:
    text = fleet_page.page(fleet, "home").decode()
    page = Page(text)
    assert page.open == []
    assert page.loaded == [], "it needs no network"
    assert "&lt;b&gt;w1&lt;/b&gt;" in text
    assert "<b>w1" not in text
    widths = [float(width) for width in re.findall(r"width: ([0-9.]+)%; background", text)]
    assert len(widths) == 9
    assert sum(widths) == pytest.approx(300, abs=0.2), "three lanes, each filled"


def test_a_log_that_cannot_be_written_any_more_stops_no_work(
    fleet: list[Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = fleet_report.Lines(tmp_path / "logs/run.log")
    lines.told(fleet[0])
    assert (tmp_path / "logs/run.log").stat().st_mode & 0o777 == 0o600
    assert "m1" not in capsys.readouterr().err
    lines.log = Path("/dev/full")
    lines.told(fleet[0])
    lines.told(fleet[0])
    lines.end(fleet)
    assert capsys.readouterr().err.count("/dev/full is not written any more: No space left on device") == 1
    assert lines.log is None


def test_no_secret_is_shown(fleet: list[Outcome]) -> None:
    shown = told(fleet) + json.dumps(fleet_report.data(fleet)) + fleet_page.page(fleet, "home").decode()
    assert "s3cret" not in shown
