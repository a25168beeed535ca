"""Makes the buckets named on the command line, where they do not exist yet.

Endpoint and credentials are those of the environment (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION). Waits a minute for a storage that is still starting.
"""

import os
import sys
import time
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError

WAIT_S = 60.0


def make(storage: Any, name: str, deadline: float) -> str:
    """Makes one bucket; says what came of it."""
    while True:
        try:
            storage.create_bucket(Bucket=name)
            return f"made the bucket {name}"
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise
            return f"the bucket {name} exists"
        except EndpointConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def main(names: list[str]) -> int:
    deadline = time.monotonic() + WAIT_S
    try:
        storage = boto3.client("s3", region_name=os.environ.get("AWS_REGION", "us-east-1"))
        for name in names:
            print(make(storage, name, deadline))
    except (BotoCoreError, ClientError) as error:
        print(f"error: the buckets could not be made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
