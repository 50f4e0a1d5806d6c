#!/bin/sh
# Keeps the media volume and its copy in the vault together. Runs in rclone's image.
#
#   restore   before Mastodon starts: fills a new volume from the vault, and brings what an older one lacks after a takeover, or
#             since the vault was told to forget it
#   push      on the active site, every 15 minutes: new files to the vault
#   pull      on a standby, every 15 minutes: new files from the vault
#
# Nothing here deletes a file, on either side. Mastodon writes over one when it has re-encoded a video: what differs and
# is newer takes the other's place, and the vault keeps its old copy under another name.
#
# VOLUME  where the volume is mounted            REMOTE  the vault, as rclone has it: vault:bucket
# FILES   where in the vault the copies are      SITE    home, vps or dev
# CLAIM   UID of the volume's claim              EPOCH   (restore) counts the switches of the active site
#
# No globs (-f): patterns are rclone's.
set -euf

# Its absence tells a share that is not mounted from a volume that is empty, and the web host shows it to the world.
sentinel="$VOLUME/homestead/volume.txt"
files="$REMOTE/${FILES%/}"
replaced="$REMOTE/media/replaced"
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

# Assignments of their own: within a test, a list that failed would count as an empty one.
look() {
  listed=$(list)
  known=
  if echo "$listed" | grep -qx "$seen"; then known=$(ask cat "$REMOTE/media/$seen"); fi
}

insist_on_volume() {
  [ -f "$sentinel" ] || fail "expected homestead/volume.txt on the volume, got none: $1"
}
lost="the share behind the claim 'media' is empty or not mounted. Mount it; if its files are lost, delete the claim (docs/runbooks/media-volume.md)"

# Words of their own, wherever they are used without quotes.
talk="--stats-one-line --stats 1m --log-level NOTICE"
# The whole list at once, a thousand objects a request. Asked folder by folder, and Mastodon's lie six deep, or for each
# one's time, a vault that bills requests costs more by them than by all it keeps (docs/runbooks/media-volume.md).
whole="--fast-list"
# Not what other servers' files are cached from, which they still have. Not what may still be being written.
chosen="--min-age ${MIN_AGE:-1m} --exclude /cache/** --exclude /homestead/** --exclude /lost+found/**"

written() {
  ask lsf --format t "$1"
}

# Of the files that differ, those that are newer than the other side's. One that differs and was not written since was
# damaged, here or there: that is a fault to be looked at, and no reason to lose the good one.
#
#   take_newer FROM TO KEPT [FILTER...]   KEPT: where in the vault to keep what gives way, or nothing
take_newer() {
  from=$1 to=$2 kept=$3
  shift 3
  differing=$(mktemp)
  # Its exit code is the same for files that differ and for what went wrong: the copy after it fails on the latter again.
  # It holds its filters against both sides: by when the vault was given an object, which the list says, and not by the
  # file's own time, for which it would be asked object by object.
  rclone check $whole --use-server-modtime --size-only --one-way --log-level ERROR "$@" --differ "$differing" "$from" "$to" || :
  while IFS= read -r name; do
    new=$(written "$from/$name")
    old=$(written "$to/$name")
    expr "$new" \> "$old" > /dev/null || continue
    # Not --backup-dir, which moves: the keys need not be able to delete. Named by its time: tried again, it is kept once.
    if [ "$kept" != "" ]; then ask copyto "$to/$name" "$kept/$name.$(echo "$old" | tr -d ' :-')"; fi
    ask copyto "$from/$name" "$to/$name"
    echo "media: $name of $new took the place of that of $old"
  done < "$differing"
  rm "$differing"
}

from_vault() {
  rclone copy $whole --size-only --immutable --transfers 8 $talk "$files" "$VOLUME" && return
  take_newer "$files" "$VOLUME" ""
  ask copy $whole --size-only --ignore-existing --transfers 8 $talk "$files" "$VOLUME"
}

# --delete-excluded deletes nothing, as `copy` never does. It keeps the filters from what is in the vault: whether that is
# a minute old, the vault would have to be asked object by object.
to_vault() {
  "$@" copy $whole --delete-excluded --size-only --immutable --transfers 4 $chosen $talk "$VOLUME" "$files"
}

case "$1" in
restore)
  look
  if [ "$known" = "$CLAIM" ]; then insist_on_volume "$lost"; fi
  # Once for a volume and an epoch: what Mastodon has deleted is still in the vault, and would come back every time. And where
  # the vault does not know the volume, though that says it is filled: another one has served since, or a bucket.
  filled="$VOLUME/homestead/restored"
  if [ "$known $(cat "$filled" 2> /dev/null)" != "$CLAIM $CLAIM $EPOCH" ] &&
    echo "$listed" | grep -qx "$(basename "$FILES")/"; then
    from_vault
  fi
  mkdir -p "$VOLUME/homestead"
  echo "homestead media volume of $SITE" > "$sentinel"
  echo "$CLAIM $EPOCH" > "$filled"
  printf %s "$CLAIM" | ask rcat "$REMOTE/media/$seen"
  echo "media: $(find "$VOLUME" -type f ! -path "$VOLUME/homestead/*" | wc -l) files on the volume"
  ;;
push)
  insist_on_volume "$lost"
  # A cluster that was given up, and is back: what it copied, and when, would be taken for the new one's.
  look
  if [ "$known" != "" ] && [ "$known" != "$CLAIM" ]; then
    fail "expected media/$seen in the vault to name this volume's claim, $CLAIM, got $known: $SITE goes on with that one, on another cluster. If it does not, delete the object"
  fi
  # What was uploaded while it copies may not be in it.
  began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  if ! to_vault rclone; then
    take_newer "$VOLUME" "$files" "$replaced" $chosen
    to_vault ask
  fi
  echo "$began" | ask rcat "$REMOTE/media/copied-$SITE"
  echo "media: copied"
  ;;
pull)
  insist_on_volume "$lost"
  from_vault
  echo "media: copied"
  ;;
*) fail "expected restore, push or pull, got '$1'" ;;
esac
