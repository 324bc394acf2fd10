"""The dashboard: pages with JSON twins, live updates, and a few actions of the owner."""

from atoll.gateway.pages.site import not_found, routes

__all__ = ["not_found", "routes"]
