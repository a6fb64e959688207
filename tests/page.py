"""What every page that brainseg writes must be: whole in itself, and closed to scripts that are not its own."""

from __future__ import annotations

import base64
import hashlib
import html
import re


def assert_asks_nothing_of_any_network(page: str) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"\son\w+\s*=|\sstyle\s*=", page)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
