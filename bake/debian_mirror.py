"""Where this machine's own apt takes Debian's packages from, so that others come the same way."""

import os

from bake.process import run
from firstboot.errors import UserError

_SETTINGS = ("Acquire::http", "Acquire::Check-", "Acquire::Retries")


def mirror() -> str:
    """``$MIRROR``, else apt's own source of Debian's main packages. UserError where apt knows none."""
    if chosen := os.environ.get("MIRROR"):
        return chosen
    targets = ["apt-get", "indextargets", "Created-By: Packages", "Component: main", "--format"]
    for label, site in (line.split("|") for line in run(*targets, "$(LABEL)|$(SITE)").splitlines()):
        if label == "Debian":
            return site
    # Before the first apt-get update nothing has a label: then by the address that mirrors share.
    for site in run(*targets, "$(SITE)", "--no-release-info").splitlines():
        if site.endswith("/debian"):
            return site
    raise UserError("apt knows no Debian mirror", "Run apt-get update, or set MIRROR to a mirror's address.")


def apt_settings() -> list[str]:
    """The proxy and date settings for apt: a mirror that is reached only so is reached so here."""
    return [line for line in run("apt-config", "dump", "Acquire").splitlines() if line.startswith(_SETTINGS)]
