"""Processes that run until a signal: worker, relay, API server, Flower and the supervisor of them all."""
