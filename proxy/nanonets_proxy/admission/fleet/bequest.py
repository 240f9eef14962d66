"""What a replica tells the process that replaces it in a restart, in case that process cannot reach Redis.

Until the earlier process has ended, there is one replica more than the others know of. While no leader decides,
each of the two uses half of the share.
"""

from collections.abc import Mapping
from typing import Any

from nanonets_proxy.admission.fleet.replica import Replica
from nanonets_proxy.core.ratelimit.adaptive.other_gates import merge
from nanonets_proxy.core.ratelimit.fleet.believer import Believer
from nanonets_proxy.core.ratelimit.fleet.grant_log import NOBODY


def give(replica: Replica, now_s: float) -> dict[str, Any]:
    """Returns the JSON document for the new process. From now on, the replica uses half of its share."""
    replica.counts.tell_now()  # or `everything` would lack the latest ones
    document = {
        "at_s": now_s,
        "name": replica.position.name,
        "hello": replica.position.hello(NOBODY),
        "log": replica.own.granted(),
        "used": replica.counts.shared.everything(),
        "used_alone": replica.counts.shared.used_alone(),
        "replicas": replica.replicas,
        "others": replica.own.others,
        "epoch": replica.position.epoch,
    }
    replica.use_part(2)
    return document


def take(replica: Replica, document: Mapping[str, Any], now_s: float) -> None:
    """Tells a replica, before its `start`, what an earlier one gave. Raises ValueError, KeyError or TypeError."""
    away_s = now_s - document["at_s"]  # by the monotonic clock, which both processes share
    hello, log, name = document["hello"], document["log"], document["name"]
    epoch, age_s, limits, *leader = hello["beliefs"]
    replicas, heard_ago_s = leader or (document["replicas"], 0.0)  # an earlier version does not tell them
    replica.beliefs.note_document(limits, age_s + away_s, now_s)
    replica.beliefs.of = Believer(epoch, replicas, now_s - away_s - heard_ago_s)
    for scope, (_, opens_in_s) in hello["scopes"].items():
        if opens_in_s > away_s:
            merge(replica.gate().limit_to_tell(scope, now_s), (), now_s + opens_in_s - away_s)
    for scope, age_s, cost, of_epoch in sorted(log, key=lambda grant: -grant[1]):
        replica.own.bequeathed = replica.room.log.add(scope, now_s - away_s - age_s, cost, of_epoch)
    replica.own.predecessor = name
    counts = replica.counts.shared
    replica.counts.hear_counts(document["used"])
    counts.meet()
    replica.own.replicas, replica.position.epoch = int(document["replicas"]), int(document["epoch"])
    replica.own.others = int(document.get("others", 0))  # an earlier version does not tell it
    counts.go_on_alone(replica.replicas + replica.own.others, document.get("used_alone", ()))  # likewise
    replica.use_part(2)
