#!/bin/bash
# Starts Ghost the way the official image does: content that is missing is copied from what came with the image, then
# the server runs as user node.
set -e

if [[ "$*" == node*current/index.js* ]] && [ "$(id -u)" = 0 ]; then
  # Several instances may share the folder; a file that another one moves away meanwhile is no failure.
  find "$GHOST_CONTENT" \! -user node -exec chown node '{}' + || true
  exec setpriv --reuid=node --regid=node --init-groups "$0" "$@"
fi

if [[ "$*" == node*current/index.js* ]]; then
  for from in "$GHOST_INSTALL"/content.orig/*/ "$GHOST_INSTALL"/content.orig/*/*; do
    to=$GHOST_CONTENT/${from#"$GHOST_INSTALL"/content.orig/}
    to=${to%/}
    if [ ! -e "$to" ]; then
      mkdir -p "$(dirname "$to")"
      # Instances that start together copy the same files; each file is whole, whoever comes last.
      cp -r "$from" "$to.$HOSTNAME" && mv -T "$to.$HOSTNAME" "$to" 2>/dev/null || rm -rf "$to.$HOSTNAME"
    fi
  done
fi
exec "$@"
