"""The typed client of the REST API."""

from crochet_tasks.client.client import MOST, Client

__all__ = ["MOST", "Client"]
