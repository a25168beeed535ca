#!/usr/bin/env bash
# Writes the settings of docker-compose.yml and of the schedule, with random secrets in place, for its owner's eyes
# only:
#
#   scripts/environment.sh [FILE]       FILE defaults to .env in the checkout
#
# An existing file is never overwritten: whoever holds data encrypted or guarded by the old secrets would lose it.
# Nothing of the secrets is printed.
set -euo pipefail
# Also where the caller traces its commands.
set +x

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
template=$root/deploy/env/template

fail() {
    echo "error: $1" >&2
    exit 1
}

case ${1-} in
-h | --help)
    sed -n 's/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed -n 2,8p
    exit 0
    ;;
-*) fail "unknown option $1: scripts/environment.sh [FILE]" ;;
esac
(($# <= 1)) || fail "too many arguments: scripts/environment.sh [FILE]"
target=${1:-$root/.env}
[[ -r $template ]] || fail "$template is missing: this is no whole checkout"
[[ -r /dev/urandom ]] || fail "/dev/urandom is missing: there is nothing to draw secrets from"

# So many letters and digits, which need no quoting in a file of variables, an address or a connection string.
random() {
    local drawn=
    while ((${#drawn} < $1)); do
        drawn+=$(head -c 256 /dev/urandom | LC_ALL=C tr -dc 'A-Za-z0-9')
    done
    printf '%s' "${drawn:0:$1}"
}

umask 077
# Written whole beside its place, so that an interrupted run leaves no half of it.
draft=$(mktemp "$target.XXXXXX") || fail "cannot write beside $target"
trap 'rm -f "$draft"' EXIT
count=0
while IFS= read -r line || [[ -n $line ]]; do
    if [[ $line != \#* && $line =~ ^(.*)@random:([0-9]+)@(.*)$ ]]; then
        line=${BASH_REMATCH[1]}$(random "${BASH_REMATCH[2]}")${BASH_REMATCH[3]}
        count=$((count + 1))
    fi
    printf '%s\n' "$line"
done <"$template" >"$draft"
chmod 600 "$draft"
# A link, not a move: it fails where the file exists, also when it came to be just now.
ln "$draft" "$target" 2>/dev/null ||
    fail "$target exists already (or cannot be written): move it away first if its secrets are no longer in use"
echo "wrote $target with $count new secrets, readable by its owner only" >&2
