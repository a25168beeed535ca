"""Where things live in the repository. The package is installed editable, so its own file knows."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
MODELS = REPOSITORY / "models"
RUNTIME = REPOSITORY / ".runtime"
SYNTHETIC_MODELS = RUNTIME / "models-synthetic"
TRACKING_STORE = RUNTIME / "mlflow"
SAMPLE = REPOSITORY.parent / "shared/data/creditcard/creditcard_sample_before_145248s.csv.gz"
PROFILE = MODELS / "fraud" / "reference.json"
