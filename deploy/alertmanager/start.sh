#!/bin/sh
# Alertmanager in docker-compose.yml: alertmanager.yml with the addresses of the environment, since it reads none.
#
#   FRAUD_MAIL_SMARTHOST HOST:PORT      where mails are handed in
#   FRAUD_MAIL_TLS true|false           whether that place must speak STARTTLS
#   FRAUD_MAIL_FROM, FRAUD_MAIL_TO      addresses
#   FRAUD_MAIL_USER, FRAUD_MAIL_PASSWORD   where it asks for them; empty: it does not
#   FRAUD_DOCUMENTS_URL                 what makes a link of a path such as docs/RUNBOOK.md; may be empty
#
# The password goes into a file in memory, never onto a command line. Arguments go to Alertmanager.
set -eu

shipped=${ALERTMANAGER_SHIPPED:-/etc/alertmanager}
made=${ALERTMANAGER_MADE:-/tmp}

fail() {
    echo "error: $1" >&2
    exit 64
}

# What stands in a quoted string of YAML, and in sed's replacement, without a second thought.
plain() {
    case $2 in
    '') fail "$1 is empty: scripts/environment.sh makes an .env with all settings" ;;
    *[!A-Za-z0-9@.:/_+~%=-]*) fail "$1 has a character that an address does not have: $2" ;;
    esac
}

plain FRAUD_MAIL_SMARTHOST "${FRAUD_MAIL_SMARTHOST-}"
plain FRAUD_MAIL_FROM "${FRAUD_MAIL_FROM-}"
plain FRAUD_MAIL_TO "${FRAUD_MAIL_TO-}"
case ${FRAUD_MAIL_TLS-} in
true | false) ;;
*) fail "FRAUD_MAIL_TLS is true or false, not \"${FRAUD_MAIL_TLS-}\"" ;;
esac
[ -z "${FRAUD_DOCUMENTS_URL-}" ] || plain FRAUD_DOCUMENTS_URL "$FRAUD_DOCUMENTS_URL"

umask 077
login=
if [ -n "${FRAUD_MAIL_USER-}" ]; then
    plain FRAUD_MAIL_USER "$FRAUD_MAIL_USER"
    printf '%s' "${FRAUD_MAIL_PASSWORD-}" >"$made/mail-password"
    login="\\
  smtp_auth_username: \"$FRAUD_MAIL_USER\"\\
  smtp_auth_password_file: $made/mail-password"
fi
sed -e "s|^  smtp_smarthost: .*|  smtp_smarthost: \"$FRAUD_MAIL_SMARTHOST\"$login|" \
    -e "s|^  smtp_from: .*|  smtp_from: \"$FRAUD_MAIL_FROM\"|" \
    -e "s|^  smtp_require_tls: .*|  smtp_require_tls: $FRAUD_MAIL_TLS|" \
    -e "s|^      - to: .*|      - to: \"$FRAUD_MAIL_TO\"|" \
    "$shipped/alertmanager.yml" >"$made/alertmanager.yml"
sed -e "s|^{{ define \"fraud.documents\" }}|&${FRAUD_DOCUMENTS_URL-}|" "$shipped/mail.tmpl" >"$made/mail.tmpl"
unset FRAUD_MAIL_PASSWORD
exec "${ALERTMANAGER:-/bin/alertmanager}" "--config.file=$made/alertmanager.yml" "$@"
