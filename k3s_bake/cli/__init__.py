"""The command line. Everything printed, and every error, goes through here."""

from k3s_bake.cli.app import main

__all__ = ["main"]
