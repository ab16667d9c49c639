"""The boot tests bake as the guest tests do."""

from guest.conftest import base, cli, environment, k3s

__all__ = ["base", "cli", "environment", "k3s"]
