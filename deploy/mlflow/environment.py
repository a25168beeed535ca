"""The accounts that the environment names."""

import os


def account(*keys: str) -> tuple[str, ...]:
    """Returns what `keys` hold, in order: a name and its secret."""
    values = tuple(os.environ.get(key, "") for key in keys)
    if not all(values):
        raise ValueError(
            f"{' and '.join(keys)} name no account: make an .env with scripts/environment.sh"
        )
    return values
