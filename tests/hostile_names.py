"""Names, tags and messages of strangers, for every page: each has to come out as text, and break nothing."""

import re

MARKUP = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "\"><svg onload=document.title='owned'>",
    "' onmouseover='document.title=1",
    "</style><style>*{display:none}",
    "</title></head><h1>mine</h1>",
    "<!-- <b> --> ]]> <![CDATA[ <x>",
    "<iframe srcdoc='<script>top.document.title=1</script>'>",
    "<a href=javascript:document.title=1>look</a>",
    "<math><mtext><script>document.title=1</script>",
    "<link rel=stylesheet href=//elsewhere.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//elsewhere.example'>",
    "<base href=//elsewhere.example/>",
    "<form action=//elsewhere.example><button>",
    "&lt;b&gt; &amp; &#x202e; &#0;",
    "`${document.title=1}`",
)
SCHEMES = (
    "javascript:document.title=1",
    "data:text/html,<script>document.title=1</script>",
    "https://elsewhere.example/x.mp4",
    "//elsewhere.example/x.mp4",
    "../../../etc/passwd",
    "C:\\videos\\..\\con.mp4",
    "%2e%2e%2f%00%0a.mp4",
    "{{ 7 * 7 }} {% raw %} {scan} {0.__class__} %s %(x)s",
    "'; DROP TABLE results; --",
    "hx-get='/x' hx-trigger=load",
)
SIGNS = (
    "right-to-left \u202e4pm.exe",
    "isolate \u2066x\u2069 zero\u200bwidth \u2028line",
    "שלום עולם مرحبا.mp4",
    "\x1b[2J\x1b[31m\x07\x9b1A\x7f",
    "new\nline\r\ttab",
    "\x00null",
    "\ufeff\ufffe\ufff9 marks \U000e0041",
    "z\u0335\u0321\u0322a\u0300\u0301\u0302\u0303\u0304\u0305l\u0336g\u0337o" * 10,
    "👩\u200d👩 日本 ünïcode" * 10,
    "﷽" * 60,
)
LENGTHS = (
    "a" * 1000,
    "\u202e" * 1000,
    "w i d e " * 125,
    "<" * 1000,
)

HOSTILE = (*MARKUP, *SCHEMES, *SIGNS, *LENGTHS)
"""Forty of them."""

_TURNING = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def gets_through(html: str) -> list[str]:
    """What of the names stands in a page as markup, or turns and hides text there."""
    markup = [name for name in (*MARKUP[:14], *SCHEMES[1:2]) if name in html]
    return markup + sorted({hex(ord(sign)) for sign in _TURNING.findall(html)})
