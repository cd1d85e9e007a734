"""The fsck: compares what the store holds with what the domain rules say it must hold."""

from crochet_tasks.verify.store import verify

__all__ = ["verify"]
