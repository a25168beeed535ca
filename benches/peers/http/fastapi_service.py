"""Scores over HTTP on PORT: FastAPI on uvicorn, with the model of BUNDLE.

    uvicorn (uvloop, httptools) ─► FastAPI ─► pydantic model ─► ENGINE ─► verdict by orjson

    POST /score   {"transaction_id": …, "V1": …, …, "Amount": …}   one verdict
    POST /scores  {"columns": […], "data": [[…], …]}               a verdict per row

ENGINE is `xgboost`, the booster of native.ubj, or `onnxruntime`, the graph of model.onnx. WORKERS
is the number of uvicorn's processes.
"""

import os
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, ValidationError, create_model

COLUMNS = [f"V{number}" for number in range(1, 29)] + ["Amount"]
THRESHOLD = 0.5

Rows = np.ndarray[Any, np.dtype[np.float32]]
Score = Callable[[Rows], list[float]]


def in_order(columns: list[str]) -> list[str]:
    if columns != COLUMNS:
        raise ValueError(f"columns must be {COLUMNS}")
    return columns


Transaction: type[BaseModel] = create_model(
    "Transaction", transaction_id=(str, ...), **dict.fromkeys(COLUMNS, (FiniteFloat, ...))
)
features_of = attrgetter(*COLUMNS)

Row = Annotated[list[FiniteFloat], Field(min_length=len(COLUMNS), max_length=len(COLUMNS))]


class Transactions(BaseModel):
    """Several, in the split form."""

    columns: Annotated[list[str], AfterValidator(in_order)]
    data: list[Row]


def by_xgboost(bundle: Path) -> Score:
    """The booster itself; inplace_predict spares the DMatrix."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bundle / "native.ubj")
    booster.set_param({"nthread": 1})
    return lambda rows: booster.inplace_predict(rows, validate_features=False).tolist()


def by_onnxruntime(bundle: Path) -> Score:
    """One session without threads of its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        bundle / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    return lambda rows: session.run(["probabilities"], {"input": rows})[0][:, 1].tolist()


ENGINES = {"xgboost": by_xgboost, "onnxruntime": by_onnxruntime}


def verdict(score: float) -> dict[str, float | int]:
    return {"score": score, "label": int(score > THRESHOLD)}


def answer(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def refuse(_: Request, error: Exception) -> Response:
    """What FastAPI answers to a declared body that is not valid."""
    details = error.errors(include_url=False) if isinstance(error, ValidationError) else str(error)
    return Response(orjson.dumps({"detail": details}, default=str), 422)


def create() -> FastAPI:
    """The application; uvicorn calls it in each of its processes.

    Bodies are validated from bytes and answers returned as bytes, which takes a fifth to a third
    off the CPU time of handlers that declare both. Nothing is awaited after the body: scoring a row
    is shorter than handing it to a thread and back.
    """
    scores_of = ENGINES[os.environ["ENGINE"]](Path(os.environ["BUNDLE"]))
    app = FastAPI(exception_handlers={ValidationError: refuse})

    @app.post("/score")
    async def score(request: Request) -> Response:
        transaction: Any = Transaction.model_validate_json(await request.body())
        (value,) = scores_of(np.array([features_of(transaction)], dtype=np.float32))
        return answer({"transaction_id": transaction.transaction_id} | verdict(value))

    @app.post("/scores")
    async def scores(request: Request) -> Response:
        transactions = Transactions.model_validate_json(await request.body())
        values = scores_of(np.array(transactions.data, dtype=np.float32))
        return answer({"verdicts": [verdict(value) for value in values]})

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


def main() -> None:
    uvicorn.run(
        "fastapi_service:create",
        factory=True,
        app_dir=str(Path(__file__).parent),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        workers=int(os.environ.get("WORKERS", "1")),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
