"""Connections of the review server: whoever asks nothing on one cannot keep others out."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 200
HEAD_S = 15.0
"""Within that the whole head of a request has to be there, from the connection or the last answer on."""


class Connection(H11Protocol):
    """HTTP/1.1 with a deadline for each request's head; one too many ends the one that is idle longest."""

    idle_since = 0.0
    """Of the event loop's clock, in seconds."""
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, and make room where there are too many."""
        super().connection_made(transport)
        self._wait_for_head()
        living = [one for one in self.connections if not one.transport.is_closing()]
        if len(living) > MOST_CONNECTIONS:
            others = [one for one in living if isinstance(one, Connection) and one is not self]
            idle = [one for one in others if one.is_idle()]
            if idle:
                min(idle, key=lambda one: one.idle_since).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._wait_for_head()

    def is_idle(self) -> bool:
        """Whether nothing is asked that was not answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self.idle_since = self.loop.time()
        self._due = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        if self.is_idle():
            self.transport.close()
