#!/bin/sh
# Writes the settings that upstream's image has, with the user of the RABBITMQ_DEFAULT_ variables; becomes the server.
set -eu
cat >/etc/rabbitmq/rabbitmq.conf <<END
default_user = ${RABBITMQ_DEFAULT_USER:-guest}
default_pass = ${RABBITMQ_DEFAULT_PASS:-guest}
loopback_users.guest = false
log.file = false
log.console = true
END
unset RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS
printf '[rabbitmq_management,rabbitmq_prometheus].\n' >/etc/rabbitmq/enabled_plugins
chown -R rabbitmq:rabbitmq /var/lib/rabbitmq /etc/rabbitmq /var/log/rabbitmq
exec setpriv --reuid=rabbitmq --regid=rabbitmq --clear-groups -- /usr/lib/rabbitmq/bin/rabbitmq-server
