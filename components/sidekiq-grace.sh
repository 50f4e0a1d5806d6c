#!/bin/sh
# Helm hands this what Mastodon's chart has rendered, and installs what comes out (postrender, components/mastodon.ts). The
# chart has no value for how long Sidekiq is given to end. Kubernetes' own 30 s are hardly more than the 25 s after which
# Sidekiq gives back to Valkey the jobs that it has not done (and 3 s for its threads): on a slow node it would be killed
# with them in its hands.
awk '
  /^---/ { sidekiq = 0 }
  /^  name: mastodon-sidekiq-/ { sidekiq = 1 }
  sidekiq && /^      containers:/ { print "      terminationGracePeriodSeconds: 60"; said = 1 }
  { print }
  END { exit !said }
' || {
  tested=$(sed -n 's/^  mastodon: {.* version: "\([^"]*\)".*/\1/p' "$(dirname "$0")/../versions.ts")
  echo "homestead:charts.mastodon: the chart makes no Deployment mastodon-sidekiq-* into which the time that Sidekiq has to end" \
    "could be written (components/sidekiq-grace.sh); allowed: a version that renders as $tested does;" \
    "mend: pulumi config rm --path 'homestead:charts.mastodon' --stack <site>" >&2
  exit 1
}
