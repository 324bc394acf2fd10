"""Browser tabs that work: the relay between them and the network (docs/protocol/tabs.md)."""

from atoll.gateway.tabs.web import routes

__all__ = ["routes"]
