"""A node's announcement in its network, for as long as it lives: by avahi where that runs, else by zeroconf.

Runs on the node: Python 3.7, standard library only.
"""

import time
from typing import Optional

from firstboot import avahi, mdns
from firstboot.contract import Announcement
from firstboot.edits import Write
from firstboot.node import Node


class Voice:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._announcer = mdns.Announcer()
        self._said: Optional[Announcement] = None
        self._by_avahi = False

    def say(self, said: Announcement) -> None:
        """From now on."""
        self._said = said
        self._by_avahi = avahi.runs()
        if not self._by_avahi:
            self._announcer.say(said)
            return
        self._announcer.stop()  # two who answer on one port disturb each other
        if said.phase in avahi.PASSING and not said.reason:
            return
        while int(time.time() - 0.05) <= self._node.changed(avahi.FILE):
            time.sleep(0.05)  # avahi takes a file for unchanged that is of the same second
        self._node.try_to_write(Write(avahi.FILE, avahi.service(said)))

    def check(self) -> None:
        """To be called now and then: avahi may have come or gone, addresses may have changed."""
        if self._said is not None and avahi.runs() != self._by_avahi:
            self.say(self._said)
        self._announcer.check()

    def stop(self) -> None:
        self._announcer.stop()
