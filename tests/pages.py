"""What a page says and shows, for tests of pages."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import cv2
import numpy as np
from numpy.typing import NDArray


def text_of(html: str) -> str:
    """What a person reads, in one line."""

    class Reader(HTMLParser):
        found = ""

        def handle_data(self, data: str) -> None:
            self.found += data + " "

    reader = Reader()
    reader.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    return " ".join(reader.found.split())


def pictures(html: str) -> list[NDArray[np.uint8]]:
    """All pictures of a page, BGR."""
    data = [base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([^\"]+)", html)]
    decoded = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR) for one in data]
    return [np.asarray(picture, np.uint8) for picture in decoded]
