#!/bin/sh
# Lays the environment .runtime/NAME over the training package's (.runtime/venv): the latter's packages are seen through a
# path file, so nothing is installed twice, and .runtime/NAME/bin/fraud-training runs with both. Both must be there.
#
#   scripts/over-training-env.sh NAME
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -eq 1 ] || {
    echo "usage: scripts/over-training-env.sh NAME" >&2
    exit 2
}
venv="$root/.runtime/$1"
base="$root/.runtime/venv"

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
