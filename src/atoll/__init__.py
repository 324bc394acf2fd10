"""Atoll: an open network where people's own devices train, store and serve small AI models together."""

__version__ = "0.1.0"

__all__ = ["__version__"]
