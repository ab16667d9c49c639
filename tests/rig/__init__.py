"""A network of hosts with a real systemd, made of namespaces. See hosts.py."""
