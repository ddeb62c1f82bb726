"""An S3 on loopback: moto's server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

BUCKET = "telegrad-checkpoints"
URL = f"s3://{BUCKET}/deep/down"
_SERVER = """
import moto.server, signal
server = moto.server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
signal.pause()
"""


@contextmanager
def serving() -> Generator[str]:
    """Inside the ``with`` there is an S3; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def environ(endpoint: str) -> Mapping[str, str]:
    """What leads a process there."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def emptied(endpoint: str) -> Any:
    """The bucket, empty."""
    import boto3
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    found: Any = boto3.resource("s3", endpoint_url=endpoint, aws_access_key_id="tests", aws_secret_access_key="tests",
                                region_name="us-east-1").Bucket(BUCKET)  # fmt: skip
    found.create()
    found.objects.delete()
    for upload in found.multipart_uploads.all():
        upload.abort()
    return found
