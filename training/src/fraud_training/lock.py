"""One retraining at a time: a queue of tickets in the registry.

MLflow offers no compare-and-set on tags, but it does give out version numbers: each new version of
a registered model gets a number of its own, higher than all before it, from its database in one
transaction. So a run takes a ticket, a version of the registered model `NAME-retrain-lock`, and
holds the lock while its ticket is the lowest live one. No two runs can see themselves first, for a
ticket that is taken later always has a higher number.

    take a ticket ─► wait until no lower ticket is alive ─► work, renewing it ─► delete it

A ticket is alive while its holder renewed it within `LIFETIME`. Both times are the server's (its
"last updated"; ours is read from our own ticket after renewing it), so clocks of the runs do not
matter. A run that died blocks the next one for that long at most.

The limit: a holder that is paused for longer than that, and wakes up, may still finish one call to
the registry after another run began. `Lock.check` before each step keeps this window to that one
call; the steps themselves can be repeated without harm (see `registry.py`).
"""

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fraud_training.errors import UserError

LIFETIME = 120.0
"""Seconds after which a ticket that was not renewed is dead: far above a healthy run's pauses."""

RENEWAL = 15.0
POLL = 2.0

_SOURCE = "ticket:/retrain"
"""A version must have a source. A scheme of our own: there is nothing to fetch."""


class LockedError(UserError):
    """Another run holds the lock for longer than we were willing to wait."""


class LostError(UserError):
    """Our ticket died while we worked: another run may have begun."""


@dataclass
class Lock:
    """A held lock. `check` before every step that changes the registry."""

    client: MlflowClient
    name: str
    version: str
    lifetime: float = LIFETIME
    _renewed: float = field(default_factory=time.monotonic)
    _stop: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Renews the ticket; `LostError` where it is too old or gone."""
        stale = time.monotonic() - self._renewed
        if stale > self.lifetime * 0.8 or not self._renew():
            raise LostError(
                f"the lock {self.name} was lost ({stale:.0f} s since it was renewed): "
                f"another run may hold it, run this one again"
            )

    def _renew(self) -> bool:
        """Server time of the renewal is what others see as our sign of life."""
        try:
            self.client.update_model_version(self.name, self.version, _owner())
        except MlflowException:
            return False
        self._renewed = time.monotonic()
        return True

    def keep_alive(self) -> None:
        """The heart: renews until stopped."""
        while not self._stop.wait(min(RENEWAL, self.lifetime / 4)):
            self._renew()

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def hold(
    client: MlflowClient, model: str, wait: float, lifetime: float = LIFETIME
) -> Iterator[Lock]:
    """Waits up to `wait` seconds for the lock on `model`, and holds it in the block."""
    name = f"{model}-retrain-lock"
    _ensure(client, name)
    ticket = client.create_model_version(name, _SOURCE, description=_owner(), await_creation_for=0)
    lock = Lock(client, name, str(ticket.version), lifetime)
    heart = threading.Thread(target=lock.keep_alive, name="retrain-lock", daemon=True)
    heart.start()
    try:
        _wait_for_turn(lock, wait)
        yield lock
    finally:
        lock.stop()
        heart.join(timeout=10)
        try:
            client.delete_model_version(name, lock.version)
        except MlflowException as error:
            print(f"WARNING: lock {name} not released: {error}", file=sys.stderr, flush=True)


def _wait_for_turn(lock: Lock, wait: float) -> None:
    give_up = time.monotonic() + wait
    told = False
    while True:
        ahead = live_before(lock)
        if not ahead:
            return
        if not told:
            print(f"waiting for another run: {ahead[0]}", file=sys.stderr, flush=True)
            told = True
        if time.monotonic() >= give_up:
            raise LockedError(
                f"another run holds the lock {lock.name} ({ahead[0]}); waited {wait:.0f} s "
                f"(--lock-wait). One that died lets go after {lock.lifetime:.0f} s"
            )
        time.sleep(min(POLL, max(0.05, give_up - time.monotonic())))


def live_before(lock: Lock) -> list[str]:
    """Who is ahead of us and alive, first in line first."""
    mine = lock.client.update_model_version(lock.name, lock.version, _owner())
    lock._renewed = time.monotonic()
    now = int(mine.last_updated_timestamp or 0)
    ahead = []
    page = None
    while True:
        found = lock.client.search_model_versions(f"name='{lock.name}'", page_token=page)
        for ticket in found:
            if int(ticket.version) >= int(lock.version):
                continue
            if now - int(ticket.last_updated_timestamp or 0) <= lock.lifetime * 1_000:
                ahead.append((int(ticket.version), str(ticket.description)))
            else:
                # Dead: clear it away, so that the list stays short. Another waiter may be faster.
                _discard(lock.client, lock.name, str(ticket.version))
        page = found.token
        if not page:
            return [owner for _, owner in sorted(ahead)]


def _discard(client: MlflowClient, name: str, version: str) -> None:
    with suppress(MlflowException):
        client.delete_model_version(name, version)


def _ensure(client: MlflowClient, name: str) -> None:
    """The registered model whose versions are the tickets."""
    try:
        client.get_registered_model(name)
    except MlflowException as missing:
        if missing.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(
                name, description="Queue of retraining runs: not a model, see fraud_training.lock."
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _owner() -> str:
    return f"{socket.gethostname()} pid {os.getpid()} {_TOKEN}"


_TOKEN = secrets.token_hex(4)
