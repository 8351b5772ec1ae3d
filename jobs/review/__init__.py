"""The review page: what was flagged, one video on a page, decided by people, on loopback."""
