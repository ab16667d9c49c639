"""For all tests: the long ones first; a failure is told at once, and so is what a run was at that is ended.

A long run that is cut off by whoever started it would otherwise say nothing of what failed and of what
hung: pytest tells both at its end only.
"""

import signal
import time
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings

# How long an example takes says nothing on a machine that does other things too.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


_LONG = ("boot", "ssh", "guest", "net")
"""Markers; what has none of them takes no time. Machines that boot hold one process up for ten minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Short ones at the end keep every process busy until it is there."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, marker in enumerate(_LONG) if item.get_closest_marker(marker)), len(_LONG))

    items.sort(key=rank)


class AtOnce:
    """What a person wants to know while a run goes on, or is ended."""

    def __init__(self, terminal: Any) -> None:
        self.terminal = terminal
        self.running: dict[str, float] = {}
        signal.signal(signal.SIGTERM, self.ended)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.terminal.write(f"\n{report.nodeid}, {report.when}:\n{report.longreprtext}\n")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)

    def ended(self, number: int, frame: FrameType | None) -> None:
        for test, since in self.running.items():
            self.terminal.write(f"\n{test} runs for {time.monotonic() - since:.0f} s")
        pytest.exit("ended by a signal", returncode=128 + number)


@pytest.hookimpl(trylast=True)  # after the plugin that makes the terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the run itself, none of xdist's workers
        config.pluginmanager.register(AtOnce(config.pluginmanager.getplugin("terminalreporter")))
