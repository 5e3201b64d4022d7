"""A real S3 API on 127.0.0.1: moto's server as a process, and objects in its buckets."""

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

from ranks import free_port

BUCKET = "texts"
ACCESS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}


class S3Server:
    """The server, and what a test does to its objects."""

    url = f"s3://{BUCKET}"

    def __init__(self, log, address):
        import boto3

        keys = {name.lower(): value for name, value in ACCESS.items()}
        self.log, self.address = log, address
        self._client = boto3.client("s3", "us-east-1", endpoint_url=address, **keys)
        places = {"AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
        self.environment = ACCESS | places | {"AWS_MAX_ATTEMPTS": "1"}

    def put(self, key, content):
        self._client.create_bucket(Bucket=BUCKET)
        self._client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"{self.url}/{key}"

    def keys(self):
        found = self._client.list_objects_v2(Bucket=BUCKET)
        return [item["Key"] for item in found.get("Contents", [])]

    def get(self, key):
        return self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def delete(self, key):
        self._client.delete_object(Bucket=BUCKET, Key=key)

    @contextmanager
    def demanding(self):
        """Let the server demand credentials, and accept none."""
        self._ask("reset-auth", b"0")
        try:
            yield
        finally:
            self._ask("reset-auth", b"1000000000")

    def forget(self):
        self._ask("reset")

    def _ask(self, what, data=b""):
        kind = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.address}/moto-api/{what}", data, kind)
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def s3_server(folder):
    port, path = free_port(), folder / "moto.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = {**os.environ, "MOTO_S3_CUSTOM_ENDPOINTS": "", "PYTHONWARNINGS": "ignore"}
    quiet["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000000"
    with path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
    try:
        wait_for_answer(process, f"http://127.0.0.1:{port}/moto-api/", path)
        yield S3Server(path, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def wait_for_answer(process, url, log):
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(log.read_text(errors="replace"))


class MemoryStore:
    """Objects of the memory file system, with the methods of `S3Server`."""

    url = f"memory:///{BUCKET}"

    def __init__(self, files):
        self._files = files

    def put(self, key, content):
        self._files.pipe(f"/{BUCKET}/{key}", content)
        return f"{self.url}/{key}"

    def get(self, key):
        return self._files.cat(f"/{BUCKET}/{key}")

    def delete(self, key):
        self._files.rm(f"/{BUCKET}/{key}")

    def keys(self):
        return [path.removeprefix(f"/{BUCKET}/") for path in self._files.find(f"/{BUCKET}")]
