"""One retraining publishes at a time, on a real MLflow server; the dead do not block the living."""

import threading
import time
import uuid

import pytest
from mlflow import MlflowClient

from fraud_training import lock
from fraud_training.lock import LockedError, LostError, hold


@pytest.fixture
def client(tracking_server: str) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_server)


@pytest.fixture
def model() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "POLL", 0.1)


def tickets(client: MlflowClient, model: str) -> list[str]:
    found = client.search_model_versions(f"name='{model}-retrain-lock'")
    return [str(ticket.version) for ticket in found]


def test_many_at_once_take_turns(client: MlflowClient, model: str) -> None:
    inside, most, done, errors = [], [], [], []

    def work() -> None:
        try:
            with hold(client, model, wait=120.0) as held:
                inside.append(1)
                most.append(len(inside))
                held.check()
                time.sleep(0.05)
                inside.pop()
            done.append(1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=150)
    assert errors == []
    assert len(done) == 6
    assert max(most) == 1
    assert tickets(client, model) == []


def test_who_waits_in_vain_is_told_by_whom(client: MlflowClient, model: str) -> None:
    with (
        hold(client, model, wait=0.0),
        pytest.raises(LockedError, match=rf"{model}-retrain-lock \(.* pid \d+ .*--lock-wait"),
        hold(client, model, wait=0.3),
    ):
        pytest.fail("two hold the lock")
    with hold(client, model, wait=0.0):
        assert len(tickets(client, model)) == 1


def test_a_run_that_died_lets_go_after_its_lifetime(client: MlflowClient, model: str) -> None:
    lock._ensure(client, f"{model}-retrain-lock")
    client.create_model_version(
        f"{model}-retrain-lock", lock._SOURCE, description="dead", await_creation_for=0
    )
    with pytest.raises(LockedError, match="dead"), hold(client, model, wait=0.0):
        pytest.fail("the ticket is fresh")
    begun = time.monotonic()
    with hold(client, model, wait=60.0, lifetime=2.0):
        # The dead one's ticket is cleared away, only ours is left.
        assert len(tickets(client, model)) == 1
    assert time.monotonic() - begun < 50.0


def test_a_long_run_stays_alive(client: MlflowClient, model: str) -> None:
    """Longer than the lifetime: the renewals keep others out."""
    with hold(client, model, wait=0.0, lifetime=4.0) as held:
        until = time.monotonic() + 6.0
        while time.monotonic() < until:
            with (
                pytest.raises(LockedError),
                hold(client, model, wait=0.0, lifetime=4.0),
            ):
                pytest.fail("two hold the lock")
            time.sleep(0.5)
        held.check()


def test_a_lost_lock_is_noticed_before_the_next_step(client: MlflowClient, model: str) -> None:
    with hold(client, model, wait=0.0) as held:
        client.delete_model_version(held.name, held.version)
        with pytest.raises(LostError, match="run this one again"):
            held.check()


def test_a_paused_run_finds_its_ticket_too_old(client: MlflowClient, model: str) -> None:
    with hold(client, model, wait=0.0) as held:
        held.stop()
        held._renewed -= held.lifetime
        with pytest.raises(LostError):
            held.check()
