"""The tutorials' fraud detector: a Faust worker that asks MLflow's scoring server, per record.

This starts both (mlflow_server.py in its own environment, faust_mlflow_worker.py in this one), ends
both on SIGTERM, and ends with them if one ends by itself. The scoring is the server's work: its CPU
time and memory belong to the contender.

Guarantee: at least once, as of any Faust agent. Tuning: see the two programs; WORKERS is the number
of the server's processes, CONCURRENCY the number of calls at a time.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RUNTIME = HERE.parents[2] / ".runtime" / "peers"
START = 80.0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mlflow-") as folder:
        os.environ["SAVED_MODEL"] = f"{folder}/model"
        return run()


def run() -> int:
    # The leader of a process group of its own, so that all below it can be ended by one signal.
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    server = subprocess.Popen([RUNTIME / "mlflow/bin/python", HERE / "mlflow_server.py"])
    processes = [server]

    def end() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        for process in processes:
            process.wait()

    def stop(*_: Any) -> None:
        end()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    deadline = time.monotonic() + START
    while not answers(f"http://127.0.0.1:{os.environ['PORT']}/ping"):
        if server.poll() is not None or time.monotonic() > deadline:
            print("MLflow's server did not start", file=sys.stderr)
            end()
            return 1
        time.sleep(0.2)

    worker = [sys.executable, HERE / "faust_mlflow_worker.py"]
    worker += ["-L", "uvloop", "worker", "-l", "warn", "--without-web"]
    processes.append(subprocess.Popen(worker))
    while all(process.poll() is None for process in processes):
        time.sleep(0.5)
    end()
    return 1


if __name__ == "__main__":
    sys.exit(main())
