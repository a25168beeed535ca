"""Makes the buckets named on the command line and, for each, the account that owns it.

    storage.py mlflow fraud-archive

The account of the bucket `fraud-archive` is `FRAUD_ARCHIVE_ACCESS_KEY_ID` and
`FRAUD_ARCHIVE_SECRET_ACCESS_KEY` in the environment. The storage's administrator (`AWS_…`) makes
accounts and buckets by the gateway's own calls; no program but this one needs that administrator.
What exists already is left, except that an account's secret and a bucket's owner are set again.
Waits a minute for a storage that is still starting.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import get_session
from environment import account

WAIT_S = 60.0


def xml(tag: str, **children: str) -> bytes:
    """An element that holds others, which hold text."""
    element = ElementTree.Element(tag)
    for name, text in children.items():
        ElementTree.SubElement(element, name).text = text
    return ElementTree.tostring(element)


class Storage:
    """The administrator's calls of the Versity gateway."""

    def __init__(self) -> None:
        self.address = os.environ["AWS_ENDPOINT_URL"].rstrip("/")
        self.region = os.environ.get("AWS_REGION", "us-east-1")
        self.deadline = time.monotonic() + WAIT_S

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> str | None:
        """Returns nothing, or the code of the error that the storage answered with."""
        while True:
            request = AWSRequest(method, self.address + path, headers, body)
            S3SigV4Auth(get_session().get_credentials(), "s3", self.region).add_auth(request)
            signed = urllib.request.Request(
                request.url, body or None, dict(request.headers.items()), method=method
            )
            try:
                with urllib.request.urlopen(signed, timeout=30):
                    return None
            except urllib.error.HTTPError as error:
                answer = error.read().decode(errors="replace")
                code = ElementTree.fromstring(answer).findtext("Code") if answer else None
                return code or f"HTTP {error.code}"
            except urllib.error.URLError:
                if time.monotonic() > self.deadline:
                    raise
                time.sleep(1)

    def make_account(self, access: str, secret: str) -> None:
        """An account that may use the buckets it owns, and make none."""
        properties = {"Secret": secret, "Role": "user"}
        error = self.call("PATCH", "/create-user", xml("Account", Access=access, **properties))
        if error == "XAdminUserExists":
            path = f"/update-user?access={access}"
            error = self.call("PATCH", path, xml("MutableProps", **properties))
        if error:
            raise RuntimeError(f"the account {access}: {error}")

    def make_bucket(self, name: str, owner: str) -> None:
        """A bucket of that account."""
        error = self.call("PATCH", f"/{name}/create", **{"x-vgw-owner": owner})
        if error in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            error = self.call("PATCH", f"/change-bucket-owner?bucket={name}&owner={owner}")
        if error:
            raise RuntimeError(f"the bucket {name}: {error}")


def main(names: list[str]) -> int:
    storage = Storage()
    for name in names:
        prefix = name.upper().replace("-", "_")
        try:
            access, secret = account(f"{prefix}_ACCESS_KEY_ID", f"{prefix}_SECRET_ACCESS_KEY")
            storage.make_account(access, secret)
            storage.make_bucket(name, access)
        except (OSError, RuntimeError, ValueError) as error:
            print(f"error: the storage could not be prepared: {error}", file=sys.stderr)
            return 1
        print(f"the bucket {name} belongs to {access}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
