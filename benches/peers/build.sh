#!/usr/bin/env bash
# Gets and builds the contenders and the libraries of kernels.py into .runtime/peers. What is there and
# unchanged is left alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

sources=benches/peers
target=.runtime/peers
python=${PYTHON:-python3}
parts=(go jvm confluent quix bytewax faust mlflow fastapi kernels)

fail() {
    echo "peers: $*" >&2
    exit 1
}

usage() {
    cat <<USAGE
usage: benches/peers/build.sh [PART…]

Parts: ${parts[*]}; all if none is named. Needs Go 1.26 and a C compiler (go), JDK 17 and Maven (jvm),
Python 3.11 with venv (all others), gcc (kernels). PYTHON names another interpreter.
USAGE
}

need() {
    command -v "$1" >/dev/null || fail "$2 needs $1: apt-get install $3"
}

# Of the content of files and folders, and of whatever else decides.
fingerprint() {
    { echo "$1" && shift && find "$@" -type f | LC_ALL=C sort | xargs sha256sum; } | sha256sum
}

fresh() {
    [[ "$(cat "$target/$1/.source" 2>/dev/null)" == "$2" ]]
}

build_go() {
    need go "the Go contender" golang
    need gcc "the Go contender" gcc
    scripts/onnxruntime.sh
    # Go looks by itself whether anything changed; go.sum says what the modules must be.
    (cd $sources/go && CGO_ENABLED=1 go build -mod=readonly -trimpath -buildvcs=false -o "../../../$target/go/scorer" .)
}

build_jvm() {
    local wanted temporary
    wanted=$(fingerprint "$PWD" $sources/jvm)
    if fresh jvm "$wanted"; then return; fi
    need mvn "the JVM contenders" "maven openjdk-17-jdk-headless"
    echo "peers: building the JVM contenders" >&2
    temporary=$(mktemp -d "$target/jvm.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$temporary'" EXIT
    mvn --batch-mode --quiet --file $sources/jvm/pom.xml package "-Dpeers.output=$PWD/$temporary" </dev/null 2>&1 |
        sed $'s/\e\\[0m//g' >&2 || # Maven's farewell to a terminal that is none
        fail "Maven failed: see its message above; a mirror or proxy is set in Maven's settings.xml"
    (cd "$temporary" && sha256sum --check --quiet --strict "$OLDPWD/$sources/jvm/libs.sha256") ||
        fail "a jar differs from $sources/jvm/libs.sha256; after a change of a version write that file anew"
    echo "$wanted" >"$temporary/.source"
    chmod 755 "$temporary"
    rm -rf "$target/jvm"
    mv "$temporary" "$target/jvm"
    trap - EXIT
}

build_python() {
    local part=$1 lock=$sources/python/requirements/$1.lock venv=$target/$1 wanted
    command -v "$python" >/dev/null || fail "needs $python: apt-get install python3 python3-venv"
    [[ "$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')" == 3.11 ]] ||
        fail "the locked packages are for Python 3.11, $python is another: name one with PYTHON="
    # The path is part of it: an environment does not survive a move.
    wanted=$(fingerprint "$PWD" "$lock")
    if fresh "$part" "$wanted"; then return; fi
    echo "peers: installing $(grep -c '^[^ ]*==' "$lock") Python packages for $part" >&2
    "$python" -m venv --clear "$venv" || fail "could not create $venv: apt-get install python3-venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes -r "$lock" ||
        fail "pip could not install $lock: see its message above; a mirror or proxy is set in pip's own configuration"
    echo "$wanted" >"$venv/.source"
}

for part in "$@"; do
    case " ${parts[*]} " in
    *" $part "*) ;;
    *)
        usage >&2
        fail "unknown part $part"
        ;;
    esac
done
(($#)) || set -- "${parts[@]}"

mkdir -p "$target"
# Contenders may be set up side by side: one at a time.
exec 9>"$target/build.lock"
flock 9
for part in "$@"; do
    case $part in
    go) build_go ;;
    jvm) build_jvm ;;
    *) build_python "$part" ;;
    esac
done
