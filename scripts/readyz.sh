#!/bin/bash
# Exits 0 when the worker on this machine says it is ready: the container's health check, without an HTTP client.
# usage: readyz [PORT]; the port defaults to that of FRAUD_SCORER_HTTP, then 9464
set -euo pipefail
address=${FRAUD_SCORER_HTTP:-127.0.0.1:9464}
port=${1:-${address##*:}}

request='GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
if [[ -n ${FRAUD_SCORER_TLS_CERT:-} ]]; then
    # Whose certificate it is need not be asked: nothing is told to it, and it is this machine's.
    answer=$(printf '%b' "$request" | timeout 2 openssl s_client -quiet -connect "127.0.0.1:$port" 2>/dev/null) || true
else
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf '%b' "$request" >&3
    answer=$(timeout 2 cat <&3)
fi
# The status line, and the body, which says why not; docker inspect shows it.
echo "${answer%%$'\r'*}: ${answer##*$'\n'}"
[[ $answer =~ ^HTTP/1\.[01]\ 200\  ]]
