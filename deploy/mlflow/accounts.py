"""Makes the accounts that programs sign in to MLflow with, and sets their passwords.

    accounts.py TRAINING READER

Each name stands for `TRAINING_USERNAME` and `TRAINING_PASSWORD` in the environment. Every account
may read, and may change what it created. This program alone signs in as the administrator
(`MLFLOW_TRACKING_USERNAME`, `MLFLOW_TRACKING_PASSWORD`), by MLflow's authentication REST API.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request

from environment import account


def call(method: str, name: str, body: dict[str, str]) -> str | None:
    """Returns nothing, or the code of the error that the server answered with."""
    user, password = (os.environ[f"MLFLOW_TRACKING_{x}"] for x in ("USERNAME", "PASSWORD"))
    credentials = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{os.environ['MLFLOW_TRACKING_URI'].rstrip('/')}/api/2.0/mlflow/users/{name}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {credentials}"},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=60):
            return None
    except urllib.error.HTTPError as error:
        try:
            return str(json.load(error)["error_code"])
        except (ValueError, KeyError, TypeError):
            return f"HTTP {error.code}"


def main(names: list[str]) -> int:
    for name in names:
        try:
            user, password = account(f"{name}_USERNAME", f"{name}_PASSWORD")
            body = {"username": user, "password": password}
            error = call("POST", "create", body)
            if error == "RESOURCE_ALREADY_EXISTS":
                error = call("PATCH", "update-password", body)
            if error:
                raise RuntimeError(f"{user}: {error}")
        except (OSError, RuntimeError, ValueError) as failure:
            print(f"error: the account could not be made: {failure}", file=sys.stderr)
            return 1
        print(f"the account {user} is there")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
