"""Announcements through avahi, where it runs: two who answer on one port disturb each other.

Runs on the node: Python 3.7, standard library only.
"""

from html import escape  # xml.sax's brings urllib, email and ssl along, a third of a start's time
from pathlib import Path

from firstboot.contract import JOIN_PORT, SERVICE, Announcement

FILE = "/etc/avahi/services/k3s-bake.service"
"""Which avahi watches."""

PASSING = frozenset({"checking", "clock"})
"""Phases of a moment. They are not worth their change of the file: for two seconds after each one avahi asks
whether the name is free, and says nothing."""

_PID = "/run/avahi-daemon/pid"


def runs() -> bool:
    try:
        pid = int(Path(_PID).read_text(encoding="ascii"))
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "avahi-daemon"
    except (OSError, ValueError):
        return False


def service(announcement: Announcement) -> bytes:
    """The content of FILE."""
    records = [f"{key}={value}" for key, value in announcement.to_txt().items()]
    plain = ("".join(c for c in record if c.isprintable()) for record in records)
    txt = "".join(f"    <txt-record>{escape(record, quote=False)}</txt-record>\n" for record in plain)
    text = f"""<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<!-- Written by k3s-bake -->
<service-group>
  <name replace-wildcards="yes">%h</name>
  <service>
    <type>{SERVICE[: -len(".local.")]}</type>
    <port>{JOIN_PORT}</port>
{txt}  </service>
</service-group>
"""
    return text.encode()
