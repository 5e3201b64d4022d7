"""A real S3 API on 127.0.0.1: moto's server as a process, and objects in its buckets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ranks import free_port

BUCKET = "texts"
ACCESS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}


class S3Server:
    """The server, and what a test does to its objects."""

    def __init__(self, log: Path, port: int) -> None:
        import boto3

        self.log, self.address = log, f"http://127.0.0.1:{port}"
        self._client: Any = boto3.client(
            "s3", endpoint_url=self.address, region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing-secret",
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {
            **ACCESS, "AWS_ENDPOINT_URL": self.address, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }  # fmt: skip

    url = f"s3://{BUCKET}"

    def put(self, key: str, content: bytes | Path) -> str:
        """Store an object, in a bucket that is made where it is not there; return its URL."""
        body = content.read_bytes() if isinstance(content, Path) else content
        self._client.create_bucket(Bucket=BUCKET)
        self._client.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def keys(self) -> list[str]:
        """Return the keys of all objects."""
        found = self._client.list_objects_v2(Bucket=BUCKET)
        return [one["Key"] for one in found.get("Contents", [])]

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def delete(self, key: str) -> None:
        """Take an object away."""
        self._client.delete_object(Bucket=BUCKET, Key=key)

    @contextmanager
    def demanding(self) -> Iterator[None]:
        """Let the server ask who one is; nobody is known to it."""
        self._ask("reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("reset-auth", b"1000000000")

    def forget(self) -> None:
        """Empty the server."""
        self._ask("reset")

    def _ask(self, what: str, data: bytes = b"") -> None:
        kind = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{self.address}/moto-api/{what}", data, kind)
        urllib.request.urlopen(asked, timeout=10).close()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start the server, and stop it at the end."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {**os.environ, "MOTO_S3_CUSTOM_ENDPOINTS": "", "PYTHONWARNINGS": "ignore"}
    quiet["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000000"
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
    try:
        wait_for_answer(process, f"http://127.0.0.1:{port}/moto-api/", folder / "moto.log")
        yield S3Server(folder / "moto.log", port)
    finally:
        process.kill()
        process.wait()


def wait_for_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(log.read_text(errors="replace"))


class MemoryStore:
    """Objects of the memory file system, with the face of `S3Server`."""

    url = f"memory:///{BUCKET}"

    def __init__(self, files: Any) -> None:
        self._files = files

    def put(self, key: str, content: bytes) -> str:
        self._files.pipe(f"/{BUCKET}/{key}", content)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        return self._files.cat(f"/{BUCKET}/{key}")

    def delete(self, key: str) -> None:
        self._files.rm(f"/{BUCKET}/{key}")

    def keys(self) -> list[str]:
        return [path.removeprefix(f"/{BUCKET}/") for path in self._files.find(f"/{BUCKET}")]
