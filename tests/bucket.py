"""A public bucket on this machine: as much of S3 as s5cmd asks for, with faults on demand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Bucket:
    """What is served.

    Attributes:
        objects: by key, the bucket's name not included.
        cut: how often the answer for a key still breaks off in the middle.
        stall_s: for a key, how long the answer hangs in the middle.
        asked: how often each key was fetched.
    """

    objects: dict[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)
    stall_s: dict[str, float] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    endpoint: str = ""


@contextmanager
def served(bucket: Bucket) -> Iterator[Bucket]:
    """Serves `bucket` under any name at `bucket.endpoint`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            key = unquote(url.path).strip("/").partition("/")[2]
            if "list-type=2" in url.query:
                self._answer(_listing(bucket.objects, parse_qs(url.query)["prefix"][0]))
            elif not key:
                self._answer(b"")
            elif key in bucket.objects:
                self._object(key, bucket.objects[key])
            else:
                self._answer(b"", status=404)

        def _object(self, key: str, content: bytes) -> None:
            if self.command == "HEAD":
                self._answer(content)
                return
            bucket.asked[key] += 1
            half = len(content) // 2
            if key in bucket.stall_s:
                self._answer(content, upto=half)
                sleep(bucket.stall_s[key])
            elif bucket.cut.get(key, 0) > 0:
                bucket.cut[key] -= 1
                self._answer(content, upto=half)
            else:
                self._answer(content)
                return
            self.close_connection = True

        def _answer(self, body: bytes, status: int = 200, upto: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.send_header("x-amz-bucket-region", "us-east-1")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[:upto])
                self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield bucket
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listing(objects: dict[str, bytes], prefix: str) -> bytes:
    """ListObjectsV2's answer, in one page."""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>x</ETag>"
        f"<Size>{len(content)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key, content in objects.items()
        if key.startswith(prefix)
    )
    return (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>open</Name>'
        f"<Prefix>{prefix}</Prefix><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    ).encode()
