"""Makes tree models of many shapes for `make bench-kernel`: trees x depth x library, as bundles.

    python benches/workload/grid.py .runtime/bench-grid

The rows are those of make.py. Does nothing where the folder was made by these very scripts.
"""

import hashlib
import shutil
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


def main() -> None:
    """Makes the folder anew, unless these scripts have already made it."""
    destination = Path(sys.argv[1])
    scripts = [Path(__file__), Path(make.__file__)]
    stamp = hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()
    made_by = destination / "made-by"
    if made_by.is_file() and made_by.read_text(encoding="utf-8") == stamp:
        return
    print(f"making {destination}: a minute", file=sys.stderr)
    building = destination.with_name(destination.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    rows, fraud = make.draw()
    for name, model in models().items():
        model.fit(rows[:ROWS], fraud[:ROWS])
        make.write_bundle(building / name, model, rows[ROWS : ROWS + make.GOLDEN])
    (building / "made-by").write_text(stamp, encoding="utf-8")
    shutil.rmtree(destination, ignore_errors=True)
    building.rename(destination)


if __name__ == "__main__":
    main()
