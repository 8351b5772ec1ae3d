"""The files that ship with a release, as package data; `detector.weights` reads and verifies them."""
