#!/bin/bash
# Starts MariaDB the way the official image does: on an empty data folder it makes the system tables, the database and
# the users that the environment names, with a server nobody else can reach; then the server itself, as user mysql.
set -eo pipefail

data=/var/lib/mysql
socket=/run/mysqld/mysqld.sock

say() { printf '%s [entrypoint] %s\n' "$(date -u +%FT%TZ)" "$*" >&2; }

# For text between single quotes in SQL.
quoted() { printf '%s' "$1" | sed -e 's/\\/\\\\/g' -e "s/'/\\\\'/g"; }

first_start() {
  if [ -z "$MYSQL_ROOT_PASSWORD" ]; then
    say 'MYSQL_ROOT_PASSWORD is not set'
    exit 1
  fi
  say 'an empty data folder: making the system tables'
  mariadb-install-db --user=mysql --datadir="$data" --skip-test-db --auth-root-authentication-method=normal >/dev/null
  mariadbd --skip-networking --socket="$socket" --datadir="$data" &
  local server=$! tries=0
  until mariadb --socket="$socket" --user=root --execute 'SELECT 1' >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -gt 150 ] || ! kill -0 "$server" 2>/dev/null; then
      say 'the first server did not come up'
      exit 1
    fi
    sleep 0.2
  done
  say "making database ${MYSQL_DATABASE:-(none)} and user ${MYSQL_USER:-(none)}"
  {
    if [ -n "$MYSQL_DATABASE" ]; then echo "CREATE DATABASE IF NOT EXISTS \`$MYSQL_DATABASE\`;"; fi
    if [ -n "$MYSQL_USER" ]; then
      echo "CREATE USER '$(quoted "$MYSQL_USER")'@'%' IDENTIFIED BY '$(quoted "$MYSQL_PASSWORD")';"
      if [ -n "$MYSQL_DATABASE" ]; then
        echo "GRANT ALL ON \`${MYSQL_DATABASE//_/\\_}\`.* TO '$(quoted "$MYSQL_USER")'@'%';"
      fi
    fi
    echo "CREATE USER 'root'@'%' IDENTIFIED BY '$(quoted "$MYSQL_ROOT_PASSWORD")';"
    echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
    # Last, since it locks this session out.
    echo "ALTER USER 'root'@'localhost' IDENTIFIED BY '$(quoted "$MYSQL_ROOT_PASSWORD")';"
  } | mariadb --socket="$socket" --user=root
  kill "$server"
  wait "$server"
  # Written last: a folder that a kill left half-made is made anew.
  touch "$data/.made"
  say 'the data folder is made'
}

if [ "$1" = mariadbd ] && [ "$(id -u)" = 0 ]; then
  mkdir -p "$data" /run/mysqld
  find "$data" /run/mysqld \! -user mysql -exec chown mysql: '{}' +
  exec setpriv --reuid=mysql --regid=mysql --init-groups "$0" "$@"
fi
if [ "$1" = mariadbd ] && [ ! -e "$data/.made" ]; then
  find "$data" -mindepth 1 -delete
  first_start
fi
exec "$@"
