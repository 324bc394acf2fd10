"""An API for programs that speak OpenAI's: chat, completions, embeddings, responses, and classes of pictures."""

from atoll.gateway.openai.api import routes

__all__ = ["routes"]
