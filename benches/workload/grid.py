"""Makes tree models for `make bench ARGS=kernel`: trees x depth x library, as bundles.

    python benches/workload/grid.py .runtime/bench-grid

The rows are those of make.py. Does nothing where the folder was made by these very scripts.
"""

import sys
from pathlib import Path
from typing import Any

import make
import xgboost
from sklearn.ensemble import RandomForestClassifier

ROWS = 60_000
SHAPES = [(50, 3), (50, 6), (200, 3), (200, 6), (200, 8), (500, 6)]
FOREST_SHAPES = [(100, 6), (100, 10), (100, 16)]


def models() -> dict[str, Any]:
    """Name of each shape, and its untrained model."""
    boosted = {
        f"xgboost-{trees}x{depth}": xgboost.XGBClassifier(
            n_estimators=trees, max_depth=depth, learning_rate=0.1, random_state=make.SEED
        )
        for trees, depth in SHAPES
    }
    forests = {
        f"forest-{trees}x{depth}": RandomForestClassifier(
            n_estimators=trees, max_depth=depth, n_jobs=-1, random_state=make.SEED
        )
        for trees, depth in FOREST_SHAPES
    }
    return boosted | forests


def build(directory: Path) -> None:
    """A bundle of each shape."""
    rows, fraud = make.draw()
    for name, model in models().items():
        model.fit(rows[:ROWS], fraud[:ROWS])
        make.write_bundle(directory / name, model, rows[ROWS : ROWS + make.GOLDEN])


if __name__ == "__main__":
    make.build_once(Path(sys.argv[1]), [Path(__file__), Path(make.__file__)], build)
