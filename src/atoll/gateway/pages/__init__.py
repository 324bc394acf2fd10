"""The dashboard: pages with JSON twins, live updates, and a few actions of the owner."""

from atoll.gateway.pages.site import routes

__all__ = ["routes"]
