#!/bin/bash
# Exits 0 when the worker on this machine says it is ready: the container's health check, without an HTTP client.
# usage: readyz [PORT]; the port defaults to that of FRAUD_SCORER_HTTP, then 9464
set -euo pipefail
address=${FRAUD_SCORER_HTTP:-127.0.0.1:9464}
port=${1:-${address##*:}}

exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
answer=$(timeout 2 cat <&3)
# The status line, and the body, which says why not; docker inspect shows it.
echo "${answer%%$'\r'*}: ${answer##*$'\n'}"
[[ $answer =~ ^HTTP/1\.[01]\ 200\  ]]
