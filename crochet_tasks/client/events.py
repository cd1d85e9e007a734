"""Server-sent events, as the client reads them."""

from __future__ import annotations

from collections.abc import Iterator

from crochet_tasks.schemas.answers import Gone, Progress

PAUSE_SECONDS = 1.0


class Stream:
    """The events of several connections, without repetitions."""

    def __init__(self) -> None:
        self.pause = PAUSE_SECONDS
        """seconds before the next connection, as the API says"""
        self._last: dict[str, Progress] = {}

    def events(self, lines: Iterator[bytes]) -> Iterator[Progress | Gone]:
        """The events of one connection without repetitions; unknown kinds are ignored."""
        fields: dict[str, str] = {}
        for line in lines:
            if line:
                name, _, value = line.decode().rstrip("\r").partition(":")
                fields[name] = value.removeprefix(" ")
                continue
            event, fields = self._event(fields), {}
            if event is not None:
                yield event

    def _event(self, fields: dict[str, str]) -> Progress | Gone | None:
        if fields.get("retry", "").isdigit():
            self.pause = int(fields["retry"]) / 1000
        if fields.get("event") == "progress":
            progress = Progress.model_validate_json(fields.get("data", ""))
            known = self._last.get(progress.corpus)
            self._last[progress.corpus] = progress
            return None if known == progress else progress
        if fields.get("event") == "gone":
            gone = Gone.model_validate_json(fields.get("data", ""))
            self._last.pop(gone.corpus, None)
            return gone
        return None
