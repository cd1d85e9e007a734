"""Pydantic models of every boundary: what commands, the API and messages exchange."""
