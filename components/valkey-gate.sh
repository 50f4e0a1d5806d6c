#!/bin/sh
# Valkey's entry point: the gate that the site lease opens and closes (docs/lease.md). Everything Mastodon does needs
# Valkey, so a site whose gate is closed neither federates nor acknowledges a post.
#
# The keeper beside it (lib/lease/keeper.ts) reads the lease and leaves a mark:
#   ours SINCE GRACE   this site is active, asked at uptime SINCE; good for GRACE seconds
#   others             another site is, or another epoch
# Uptime and not the time of day: a clock that is set must neither open nor close anything.
#
# lib/lease/gate.ts has the same rules for the model; test/lease-gate.test.ts holds the two together.
set -u

gate=${GATE:-/gate}
mark="$gate/mark"
uptime=${UPTIME:-/proc/uptime}
configuration=${CONFIGURATION:-/etc/valkey/valkey.conf}
password=${PASSWORD:-/etc/valkey/secret/password.conf}
port=${PORT:-6379}
tick=${TICK:-2}
# Milliseconds that one pause lasts: a day, so that it outlives a gate that is held up itself. It is ended by a word.
pause=${PAUSE:-86400000}
# Tries to pause, a tick each, before Valkey is killed: what cannot be paused must not write.
patience=${PATIENCE:-5}

# On standard input of the shell and never on a command line: those are there for everyone on the node to read.
REDISCLI_AUTH=$(sed -n 's/^requirepass //p' "$password")
VALKEYCLI_AUTH=$REDISCLI_AUTH
export REDISCLI_AUTH VALKEYCLI_AUTH

say() {
  echo "gate: $1"
}

# -> open, closed (for good: others), or unverified
verdict() {
  word='' since='' grace=''
  [ -r "$mark" ] && read -r word since grace < "$mark"
  case "$word" in
    others) echo closed ;;
    ours)
      # Two whole numbers, or it is no mark: the shell would give up at the sum.
      case "$since:$grace" in :* | *: | *[!0-9:]*) echo unverified && return ;; esac
      read -r now _ < "$uptime"
      age=$((${now%%.*} - since))
      if [ "$age" -ge 0 ] && [ "$age" -lt "$grace" ]; then echo open; else echo unverified; fi
      ;;
    *) echo unverified ;;
  esac
}

client() {
  timeout 5 valkey-cli -p "$port" "$@" 2> /dev/null
}

server=''
ending=''
stop() {
  ending=yes
  [ -n "$server" ] && kill -TERM "$server" 2> /dev/null
}
trap stop TERM INT

rm -f "$gate/ended"
last=''
while [ "$(verdict)" != open ]; do
  now=$(verdict)
  [ "$now" != "$last" ] && say "$now: Valkey waits"
  last=$now
  [ -n "$ending" ] && touch "$gate/ended" && exit 0
  # In the background, so that a signal is acted upon at once.
  sleep "$tick" &
  wait $!
done
# The mark may have come in the moment of the signal.
[ -n "$ending" ] && touch "$gate/ended" && exit 0

say "open: Valkey starts"
valkey-server "$configuration" &
server=$!
state=open
failed=0

while kill -0 "$server" 2> /dev/null; do
  # One that cannot write its snapshot stays, and goes on writing: the mark counts until its end.
  [ -n "$ending" ] && kill -TERM "$server" 2> /dev/null
  case "$(verdict)" in
    open)
      if [ "$state" = unverified ] && [ "$(client CLIENT UNPAUSE)" = OK ]; then
        say "open: writes go on"
        state=open
      fi
      failed=0
      ;;
    closed)
      [ "$state" != closed ] && say "closed: Valkey stops"
      state=closed
      # What it holds is of an epoch that is over: its snapshot is not waited for any longer than this.
      failed=$((failed + 1))
      if [ "$failed" -ge $((patience * 2)) ]; then kill -KILL "$server"; else kill -TERM "$server"; fi 2> /dev/null
      ;;
    *)
      if [ "$(client CLIENT PAUSE "$pause" WRITE)" = OK ]; then
        [ "$state" = open ] && say "unverified: writes are paused"
        state=unverified
        failed=0
      else
        failed=$((failed + 1))
        if [ "$failed" -ge "$patience" ]; then
          say "unverified, and Valkey does not pause: killed"
          kill -KILL "$server" 2> /dev/null
        fi
      fi
      ;;
  esac
  sleep "$tick" &
  wait $!
done
wait "$server"
code=$?
touch "$gate/ended"
[ -n "$ending" ] && exit 0
say "Valkey ended with $code"
# Not nothing: the container is to start again, and to wait at the gate.
[ "$code" -eq 0 ] && code=1
exit "$code"
