#!/bin/sh
# Evidently in .runtime/drift, on top of the training package's environment (.runtime/venv, which this makes first): for
# `fraud-training drift` and the tests of it. Does nothing when no lock changed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.runtime/drift"
base="$root/.runtime/venv"

"$root/scripts/python-env.sh"
# The lock names only what the training environment lacks, so that nothing is installed twice.
PIP_NO_DEPS=1 "$root/scripts/locked-env.sh" drift "$root/deploy/drift/requirements.lock"

# The rest is seen through a path file.
packages=$("$base/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
own=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "import site; site.addsitedir('$packages')" >"$own/fraud-training-env.pth"

cat >"$venv/bin/fraud-training" <<EOF
#!$venv/bin/python
import sys
from fraud_training.cli import main
sys.exit(main())
EOF
chmod +x "$venv/bin/fraud-training"
