#!/bin/sh
# Keeps the media volume and its copy in the vault together. Runs in rclone's image.
#
#   restore   before Mastodon starts: fills a new volume from the vault, and brings what an older one lacks
#   push      on the active site, every 15 minutes: new files to the vault
#   pull      on a standby, every 15 minutes: new files from the vault
#
# Nothing here deletes or changes a file that is there, on either side: Mastodon never changes a file it has stored.
#
# VOLUME  where the volume is mounted            REMOTE  the vault, as rclone has it: vault:bucket
# SITE    home, vps or dev                       CLAIM   UID of the volume's claim
set -eu

# Its absence tells a share that is not mounted from a volume that is empty, and the web host shows it to the world.
sentinel="$VOLUME/homestead/volume.txt"
files="$REMOTE/media/files"
# Which volume of this site has been in use: one that was, and has no sentinel, is not there.
seen="volume-$SITE"

fail() {
  echo "media: $1" >&2
  exit 1
}

ask() {
  rclone "$@" || fail "expected the vault to answer 'rclone $1', got exit code $?; the lines above say why"
}

# What is kept right below media/. A prefix that nobody has written to is an error for some stores, and an empty list
# for others; a bucket that cannot be listed is an error for all.
list() {
  rclone lsf "$REMOTE/media" && return
  code=$?
  [ "$code" = 3 ] && ask lsf "$REMOTE" > /dev/null && return
  fail "expected the vault to list media/, got exit code $code; the lines above say why"
}

insist_on_volume() {
  [ -f "$sentinel" ] || fail "expected homestead/volume.txt on the volume, got none: $1"
}
lost="the share behind the claim 'media' is empty or not mounted. Mount it; if its files are lost, delete the claim (docs/runbooks/media-volume.md)"

from_vault() {
  ask copy --size-only --ignore-existing --transfers 8 --stats-one-line --stats 1m --log-level NOTICE "$files" "$VOLUME"
}

case "$1" in
restore)
  # Assignments of their own: within a test, a list that failed would count as an empty one.
  listed=$(list)
  known=
  if echo "$listed" | grep -qx "$seen"; then known=$(ask cat "$REMOTE/media/$seen"); fi
  if [ "$known" = "$CLAIM" ]; then insist_on_volume "$lost"; fi
  if echo "$listed" | grep -qx "files/"; then from_vault; fi
  mkdir -p "$VOLUME/homestead"
  echo "homestead media volume of $SITE" > "$sentinel"
  printf %s "$CLAIM" | ask rcat "$REMOTE/media/$seen"
  echo "media: $(find "$VOLUME" -type f | wc -l) files on the volume"
  ;;
push)
  insist_on_volume "$lost"
  # Not what other servers' files are cached from, which they still have. Not what may still be being written. A file
  # that differs from its copy is a fault to be looked at, and no reason to lose the copy.
  ask copy --size-only --immutable --min-age "${MIN_AGE:-1m}" --exclude '/cache/**' --exclude '/homestead/**' \
    --exclude '/lost+found/**' --transfers 4 --stats-one-line --stats 1m --log-level NOTICE "$VOLUME" "$files"
  date -u +%Y-%m-%dT%H:%M:%SZ | ask rcat "$REMOTE/media/copied-$SITE"
  echo "media: copied"
  ;;
pull)
  insist_on_volume "$lost"
  from_vault
  echo "media: copied"
  ;;
*) fail "expected restore, push or pull, got '$1'" ;;
esac
