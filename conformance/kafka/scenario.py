"""Kafka on an ensemble of three: brokers that keep all their metadata in it, faults of the ensemble and of the brokers while
messages flow, and the migration of that metadata to KRaft, there, back and there for good.

Each case is a step. After one that fails, what is down is started again and the next is tried; only the steps of the
migration stand on each other.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import CONTROLLER_ID, Broken, Cluster, until  # noqa: E402
from cases import Skipped  # noqa: E402
from network import Divisible  # noqa: E402
from servers import Server, say  # noqa: E402

TOPIC, PARTITIONS = "letters", 6
# What the ensemble's servers get, for a leader that is cut off to step down well before a broker's session ends.
TIMES, LIMITS = ("tickTime=1000",), ("initLimit=20", "syncLimit=4")


class Kafka:
    """What the cases share."""

    def __init__(self, args, ensemble, size):
        self.args, self.ensemble = args, ensemble
        self.cluster = Cluster(args, ensemble, size)
        self.brokers = self.cluster.brokers
        self.made = self.flows = 0
        self.before = None

    def ask(self, op, **fields):
        """Whichever broker is asked: it may be one that has not heard of a new topic yet."""
        end = time.monotonic() + 15
        while True:
            try:
                return self.cluster.driver.ask(op, **fields)
            except Broken as error:
                if "UnknownTopicOrPartitionException" not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def znode(self, path):
        """Its data, as JSON; None when there is no such node."""
        data = self.ask("zk-get", name=path)
        return None if data is None else json.loads(data)

    def create(self, topic, partitions=3, replicas=0):
        self.ask("create-topic", topic=topic, partitions=partitions, replicas=replicas or len(self.brokers))

    def creates_another(self):
        """A topic that was not there before comes to be, and is deleted: the controller and the ensemble work."""
        self.made += 1
        topic = f"another-{self.made}"
        # One broker may be down.
        self.create(topic, replicas=max(1, len(self.brokers) - 1))
        until(f"{topic} has leaders", lambda: self.has_leaders(topic))
        self.deletes(topic)

    def deletes(self, topic):
        self.ask("delete-topic", topic=topic)
        until(f"{topic} is gone", lambda: topic not in self.ask("topics"))

    def has_leaders(self, topic):
        return all(one["leader"] >= 0 for one in self.ask("describe", topic=topic)["partitions"])

    def await_in_sync(self):
        """Every partition has all its replicas in sync."""

        def lagging():
            for topic in self.ask("topics"):
                for number, one in enumerate(self.ask("describe", topic=topic)["partitions"]):
                    if one["leader"] < 0 or one["isr"] != sorted(one["replicas"]):
                        raise Broken(f"{topic}-{number}: {one}")
            return True

        until("every replica is in sync", lagging, 180, 0.2)

    def produce(self, topic=TOPIC, count=100, partitions=PARTITIONS, **more):
        found = self.ask("produce", topic=topic, count=count, partitions=partitions, patience=150, **more)
        if found["refusals"]:
            raise Broken(f"{found['refusals']} of {count} messages to {topic} were refused: {found['refused']}")

    def verify(self, topic=TOPIC):
        """Each acknowledged message is there once, where its acknowledgement said, and in order."""
        found = self.ask("verify", topic=topic)
        if found["refused"]:
            raise Broken(f"{topic}: messages were refused: {found['refused']}")
        if any(found[what] for what in ("missing", "twice", "unordered", "elsewhere")) or not found["acknowledged"]:
            raise Broken(f"{topic}: {found}")

    @contextlib.contextmanager
    def flowing(self):
        """Messages flow before, during and after what is done inside; then all must be there, and a group have got them all."""
        self.flows += 1
        follower = f"follower-{self.flows}"
        self.ask("load-start", name="flow", topic=TOPIC, partitions=PARTITIONS)
        self.ask("member-start", name=follower, group="followers", topic=TOPIC)
        try:
            try:
                self.await_flow(100)
                yield
                self.await_flow(self.ask("load-acknowledged", name="flow") + 200)
            finally:
                self.ask("load-stop", name="flow", patience=150)
            until("the group has read everything", lambda: self.is_through("followers", follower))
        finally:
            failure = self.ask("member-stop", name=follower)
        if failure:
            raise Broken(f"the consumer: {failure}")
        self.verify()

    def member(self, name):
        found = self.ask("member", name=name)
        if found["error"]:
            raise Broken(f"member {name}: {found['error']}")
        return found

    def is_through(self, group, member):
        """Whether the group has seen and committed every message."""
        self.member(member)
        found = self.ask("group", group=group, topic=TOPIC)
        if found["missed"] or found["behind"]:
            raise Broken(f"group {group}: {found}")
        return True

    def await_flow(self, count):
        until(f"{count} messages are acknowledged", lambda: self.ask("load-acknowledged", name="flow") >= count, 150)

    @contextlib.contextmanager
    def sessions_last(self):
        """No broker's session ends in what is done inside."""
        marks = {broker: broker.mark() for broker in self.brokers}
        ids = {broker: self.ask("zk-get", name=f"/brokers/ids/{broker.number}") for broker in self.brokers}
        yield
        for broker, mark in marks.items():
            if broker.logged("Session expired", mark):
                raise Broken(f"the session of {broker} expired")
            # It has the time of the registration in it.
            if self.ask("zk-get", name=f"/brokers/ids/{broker.number}") != ids[broker]:
                raise Broken(f"{broker} registered anew")

    def controller(self):
        """The broker that is controller, and its epoch."""

        def found():
            node = self.znode("/controller")
            return node and node["brokerid"] in range(1, len(self.brokers) + 1) and node["brokerid"]

        number = until("a broker is controller", found)
        return self.cluster.broker(number), int(self.ask("zk-get", name="/controller_epoch"))

    def controller_node_is_kraft(self):
        node = self.znode("/controller")
        return node["brokerid"] == CONTROLLER_ID and node.get("kraftControllerEpoch", -1) >= 0

    def metadata(self):
        """What Kafka knows, as its clients see it."""
        topics = {topic: self.ask("describe", topic=topic) for topic in self.ask("topics")}
        return {
            "topics": {
                topic: {"id": found["id"], "replicas": [one["replicas"] for one in found["partitions"]]} for topic, found in topics.items()
            },
            "configs": {topic: self.ask("config", type="topic", name=topic) for topic in topics},
            "brokers": {broker.number: self.ask("config", type="broker", name=str(broker.number)) for broker in self.brokers},
            "quotas": self.ask("quotas"),
            "users": self.ask("users"),
            "acls": self.ask("acls"),
        }

    def expect_metadata(self):
        def same():
            found = self.metadata()
            for what, expected in self.before.items():
                if found[what] != expected:
                    raise Broken(f"{what}: {found[what]} and not {expected}")
            return True

        until("the metadata are as before", same, every=1)

    def produces_as(self, name, password, topic, expected):
        """What becomes of a user's message, once every broker has heard of what changed."""

        def found():
            outcome = self.ask("produce-as", name=name, password=password, topic=topic)
            if outcome != expected:
                raise Broken(outcome or "acknowledged")
            return True

        until(f"a message of {name} to {topic} ends with {expected or 'an acknowledgement'}", found, every=0.3)

    def roll(self, mode, before_the_last=lambda: None):
        """Each broker in turn is stopped and comes back in that mode."""
        for broker in self.brokers:
            self.await_in_sync()
            broker.stop()
            broker.mode = mode
            if broker is self.brokers[-1]:
                before_the_last()
            broker.start()
            broker.await_registered()
        self.await_in_sync()

    def mend(self):
        """After a case that failed: what it stopped, cut off or killed is there again."""
        self.ensemble.heal()
        for member in self.ensemble.members:
            if not member.is_running:
                member.spawn()
        self.ensemble.leader()
        for broker in self.brokers:
            if broker.is_running:
                broker.resume()
            else:
                broker.start()
            broker.await_registered()


class Alone(Server):
    """One server, to be asked what an ensemble is."""

    def __init__(self, kind, directory):
        super().__init__(kind, directory, TIMES)

    @property
    def members(self):
        return [self]


# --- ZooKeeper mode ---


def brokers_register(k):
    for broker in k.brokers:
        broker.start()
    k.cluster.start_driver()
    for broker in k.brokers:
        broker.await_registered()
    numbers = [str(broker.number) for broker in k.brokers]
    if k.ask("zk-children", name="/brokers/ids") != numbers:
        raise Broken(f"/brokers/ids has {k.ask('zk-children', name='/brokers/ids')}")
    for number in numbers:
        if not k.ask("zk-is-ephemeral", name=f"/brokers/ids/{number}"):
            raise Broken(f"/brokers/ids/{number} is not ephemeral")
    k.controller()


def creates_topics(k):
    k.create(TOPIC, PARTITIONS)
    until(f"{TOPIC} has leaders", lambda: k.has_leaders(TOPIC))
    k.await_in_sync()
    stored = k.znode(f"/brokers/topics/{TOPIC}")["partitions"]
    if {int(number): replicas for number, replicas in stored.items()} != {
        number: one["replicas"] for number, one in enumerate(k.ask("describe", topic=TOPIC)["partitions"])
    }:
        raise Broken(f"/brokers/topics/{TOPIC} has {stored}")


def adds_partitions(k):
    k.create("grows", 2)
    k.produce("grows", 40, 2)
    k.ask("add-partitions", topic="grows", partitions=5)
    until("grows has five partitions with leaders", lambda: len(k.ask("describe", topic="grows")["partitions"]) == 5 and k.has_leaders("grows"))
    k.await_in_sync()
    k.produce("grows", 100, 5)
    k.verify("grows")


def produces_and_consumes(k):
    k.produce(count=1000)
    k.verify()


def a_group_shares_its_topic(k):
    for name in ("first", "second"):
        k.ask("member-start", name=name, group="readers", topic=TOPIC)
    until("the partitions are shared", lambda: len(k.member("first")["assigned"]) == len(k.member("second")["assigned"]) == PARTITIONS // 2)
    k.produce(count=300)
    until("the group has read everything", lambda: k.is_through("readers", "second"))
    if failure := k.ask("member-stop", name="first"):
        raise Broken(failure)
    k.produce(count=300)
    until("the other member has all partitions", lambda: len(k.member("second")["assigned"]) == PARTITIONS)
    until("the group has read everything", lambda: k.is_through("readers", "second"))
    if failure := k.ask("member-stop", name="second"):
        raise Broken(failure)


def topic_configuration_takes_effect(k):
    k.create("small")
    k.ask("config-set", type="topic", name="small", config={"max.message.bytes": "500", "retention.ms": "3600000"})
    if k.ask("config", type="topic", name="small") != {"max.message.bytes": "500", "retention.ms": "3600000"}:
        raise Broken(f"small is configured as {k.ask('config', type='topic', name='small')}")
    if k.znode("/config/topics/small")["config"].get("max.message.bytes") != "500":
        raise Broken(f"/config/topics/small has {k.znode('/config/topics/small')}")

    def refused():
        found = k.ask("produce", topic="small", count=1, partitions=1, size=2000)
        return found["refusals"] == 1 and "RecordTooLarge" in found["refused"][0]

    until("a large message is refused", refused)
    k.ask("config-set", type="topic", name="small", drop=["max.message.bytes"])
    until("a large message is taken", lambda: k.ask("produce", topic="small", count=1, partitions=1, size=2000)["refusals"] == 0)


def broker_configuration_takes_effect(k):
    k.ask("config-set", type="broker", name="1", config={"log.cleaner.threads": "2"})
    k.ask("config-set", type="broker", name="", config={"background.threads": "3"})
    expected = {"log.cleaner.threads": "2", "background.threads": "3"}
    until("broker 1 has its configuration", lambda: k.ask("config", type="broker", name="1") == expected)
    until("broker 2 has what is said of all", lambda: k.ask("config", type="broker", name="2") == {"background.threads": "3"})
    for path, key in (("/config/brokers/1", "log.cleaner.threads"), ("/config/brokers/<default>", "background.threads")):
        if key not in k.znode(path)["config"]:
            raise Broken(f"{path} has {k.znode(path)}")


def quotas_throttle(k):
    def throttled():
        return k.ask("produce", topic=TOPIC, count=100, partitions=PARTITIONS, size=2000, client="slow")["throttled"]

    k.ask("quota-set", entity={"client-id": "slow"}, quota={"producer_byte_rate": 20000})
    if "producer_byte_rate" not in k.znode("/config/clients/slow")["config"]:
        raise Broken(f"/config/clients/slow has {k.znode('/config/clients/slow')}")
    until("the client is throttled", lambda: throttled() > 0)
    k.ask("quota-set", entity={"client-id": "slow"}, quota={"producer_byte_rate": None})
    until("the client is not throttled", lambda: throttled() == 0)
    # For the migration to find.
    k.ask("quota-set", entity={"client-id": "counted"}, quota={"producer_byte_rate": 100000000})
    k.ask("quota-set", entity={"user": "alice"}, quota={"consumer_byte_rate": 100000000})


def users_authenticate_from_what_is_stored(k):
    k.create("open")
    k.ask("acl-add", topic="open", user="*", operation="write")
    k.ask("user-set", name="alice", password="first")
    if "SCRAM-SHA-256" not in k.znode("/config/users/alice")["config"]:
        raise Broken("/config/users/alice has no SCRAM-SHA-256")
    k.produces_as("alice", "first", "open", "")
    k.produces_as("alice", "second", "open", "SaslAuthenticationException")
    k.ask("user-set", name="alice", password="second")
    k.produces_as("alice", "second", "open", "")
    k.produces_as("alice", "first", "open", "SaslAuthenticationException")


def acls_are_enforced(k):
    k.create("private")
    k.ask("user-set", name="bob", password="bob")
    k.produces_as("bob", "bob", "private", "TopicAuthorizationException")
    k.ask("acl-add", topic="private", user="bob", operation="write")
    if "User:bob" not in json.dumps(k.znode("/kafka-acl/Topic/private")):
        raise Broken(f"/kafka-acl/Topic/private has {k.znode('/kafka-acl/Topic/private')}")
    k.produces_as("bob", "bob", "private", "")
    k.ask("acl-add", topic="pri", prefixed=True, user="bob", operation="write", permission="deny")
    k.produces_as("bob", "bob", "private", "TopicAuthorizationException")
    if k.ask("acl-delete", topic="pri", prefixed=True, user="bob", operation="write", permission="deny") != 1:
        raise Broken("the prefixed ACL was not deleted")
    k.produces_as("bob", "bob", "private", "")
    k.verify("private")


def tools_write_to_zookeeper(k):
    """Kafka's own tools that speak to the ensemble and not to a broker."""
    connect = f"zookeeper.connect={k.ensemble.address}/kafka"
    acls = ("kafka.admin.AclCommand", "--authorizer-properties", connect)
    k.create("tooled")
    k.cluster.tool(*acls, "--add", "--allow-principal", "User:carol", "--operation", "Write", "--topic", "tooled")
    k.cluster.tool(
        "kafka.admin.ConfigCommand", "--zookeeper", f"{k.ensemble.address}/kafka", "--alter", "--entity-type", "users",
        "--entity-name", "carol", "--add-config", "SCRAM-SHA-256=[password=carol]",
    )  # fmt: skip
    k.produces_as("carol", "carol", "tooled", "")
    if "User:carol" not in k.cluster.tool(*acls, "--list", "--topic", "tooled"):
        raise Broken("the ACL is not listed")
    k.cluster.tool(*acls, "--remove", "--force", "--allow-principal", "User:carol", "--operation", "Write", "--topic", "tooled")
    k.produces_as("carol", "carol", "tooled", "TopicAuthorizationException")


def reassigned(k, topic, placed):
    def done():
        found = [one["replicas"] for one in k.ask("describe", topic=topic)["partitions"]]
        return found == placed and k.ask("reassignments") == 0

    until(f"{topic} is on {placed}", done)
    k.await_in_sync()


def reassigns_partitions(k):
    k.ask("create-placed-topic", topic="moved", placed={"0": [1, 2], "1": [2, 3], "2": [3, 1]})
    k.produce("moved", 300, 3)
    k.ask("reassign", topic="moved", moves={"0": [3, 1], "1": [1, 2]})
    reassigned(k, "moved", [[3, 1], [1, 2], [3, 1]])
    k.verify("moved")


def reassigns_by_a_node(k):
    """As the tools did up to 2.3, and the controller still does: a node says what is to be moved, and goes when it is."""
    k.ask("create-placed-topic", topic="moved-by-node", placed={"0": [1, 2], "1": [2, 3]})
    k.produce("moved-by-node", 300, 2)
    asked = [{"topic": "moved-by-node", "partition": 0, "replicas": [2, 3]}, {"topic": "moved-by-node", "partition": 1, "replicas": [3, 1]}]
    k.ask("zk-create", name="/admin/reassign_partitions", data=json.dumps({"version": 1, "partitions": asked}))
    until("the node is gone", lambda: not k.ask("zk-exists", name="/admin/reassign_partitions"))
    reassigned(k, "moved-by-node", [[2, 3], [3, 1]])
    k.verify("moved-by-node")


def elects_preferred_leaders(k):
    """By a node too. The order of the replicas says which is preferred, and changing it moves no leader."""
    k.ask("create-placed-topic", topic="preferred", placed={"0": [1, 2], "1": [1, 2]})
    until("preferred has leaders", lambda: k.has_leaders("preferred"))
    k.ask("reassign", topic="preferred", moves={"0": [2, 1], "1": [2, 1]})
    reassigned(k, "preferred", [[2, 1], [2, 1]])

    def leaders():
        return [one["leader"] for one in k.ask("describe", topic="preferred")["partitions"]]

    if leaders() != [1, 1]:
        raise Broken(f"the leaders are {leaders()} before the election")
    asked = {"version": 1, "partitions": [{"topic": "preferred", "partition": 0}]}
    k.ask("zk-create", name="/admin/preferred_replica_election", data=json.dumps(asked))
    until("partition 0 has the preferred leader", lambda: leaders() == [2, 1])
    until("the node is gone", lambda: not k.ask("zk-exists", name="/admin/preferred_replica_election"))
    k.ask("elect-preferred")
    until("partition 1 has it too", lambda: leaders() == [2, 2])


def another_controller(k, old, epoch):
    """The next controller, with the next epoch."""

    def found():
        node = k.znode("/controller")
        return node and node["brokerid"] != old.number

    until("another broker is controller", found)
    _, now = k.controller()
    if now != epoch + 1:
        raise Broken(f"the controller's epoch went from {epoch} to {now}")
    k.creates_another()


def the_controller_is_killed(k):
    k.await_in_sync()
    controller, epoch = k.controller()
    with k.flowing():
        controller.kill()
        another_controller(k, controller, epoch)
    if k.ask("zk-exists", name=f"/brokers/ids/{controller.number}"):
        raise Broken(f"{controller} is dead and registered")
    controller.start()
    controller.await_registered()
    k.await_in_sync()


def a_broker_outlives_its_session(k):
    """A broker that is suspended for longer than its session lasts is taken for dead, and comes back with another."""
    k.await_in_sync()
    controller, epoch = k.controller()
    mark = controller.mark()
    with k.flowing():
        controller.suspend()
        try:
            another_controller(k, controller, epoch)
        finally:
            controller.resume()
        controller.await_registered()
    k.await_in_sync()
    if not controller.logged("Session expired", mark):
        raise Broken(f"{controller} does not say that its session expired")


def deletes_topics(k):
    k.create("short-lived")
    k.produce("short-lived", 30, 3)
    k.deletes("short-lived")
    for path in ("/brokers/topics/short-lived", "/admin/delete_topics/short-lived", "/config/topics/short-lived"):
        until(f"{path} is gone", lambda path=path: not k.ask("zk-exists", name=path))
    # A topic of the same name is another one, and empty.
    k.create("short-lived")
    until("short-lived has leaders", lambda: k.has_leaders("short-lived"))
    if k.ask("verify", topic="short-lived")["found"]:
        raise Broken("the new topic has the messages of the old one")
    k.deletes("short-lived")


# --- faults of the ensemble ---


def brings_back(k, member):
    member.spawn()
    member.await_reply("/kafka/brokers/ids", time.monotonic())
    k.ensemble.leader()


def the_leader_is_killed(k):
    with k.sessions_last(), k.flowing():
        leader = k.ensemble.leader()
        leader.kill()
        k.creates_another()
        brings_back(k, leader)


def a_follower_is_killed(k):
    with k.sessions_last(), k.flowing():
        leader = k.ensemble.leader()
        follower = next(member for member in k.ensemble.members if member is not leader)
        follower.kill()
        k.creates_another()
        brings_back(k, follower)


def every_leader_is_killed_in_turn(k):
    with k.sessions_last(), k.flowing():
        for _ in range(3):
            leader = k.ensemble.leader()
            leader.kill()
            k.ensemble.leader(without=leader)
            k.creates_another()
            brings_back(k, leader)


def the_ensemble_is_restarted_one_by_one(k):
    with k.sessions_last(), k.flowing():
        for member in k.ensemble.members:
            member.stop()
            k.creates_another()
            brings_back(k, member)


def the_leader_is_cut_off(k):
    """The other two go on; the old leader steps down, and follows when the network is whole again."""
    with k.sessions_last(), k.flowing():
        leader = k.ensemble.leader()
        k.ensemble.cut_off(leader)
        try:
            k.ensemble.leader(without=leader)
            k.creates_another()
            until("the leader that was cut off has stepped down", lambda: leader.mode() != "leader")
        finally:
            k.ensemble.heal()
        if k.ensemble.leader() is leader:
            raise Broken("the one that was cut off leads again")


def one_server_is_killed_and_comes_back(k):
    """A broker of its own on a server of its own, without which nothing can be written for a while."""
    args = argparse.Namespace(**{**vars(k.args), "work": os.path.join(k.args.work, "alone")})
    server = Alone(args.server, os.path.join(args.work, "server"))
    alone = Kafka(args, server, 1)
    try:
        server.start()
        brokers_register(alone)
        creates_topics(alone)
        with alone.sessions_last(), alone.flowing():
            server.kill()
            time.sleep(2)
            server.start("/kafka/brokers/ids/1")
            alone.creates_another()
        brokers_stop(alone)
    finally:
        alone.cluster.stop()
        server.stop()


def the_leader_and_the_controller_are_killed(k):
    k.await_in_sync()
    controller, epoch = k.controller()
    with k.flowing():
        leader = k.ensemble.leader()
        leader.kill()
        controller.kill()
        another_controller(k, controller, epoch)
        brings_back(k, leader)
        controller.start()
        controller.await_registered()
    k.await_in_sync()


# --- migration to KRaft ---


def enters_migration(k, before_the_last=lambda: None):
    """A new controller reads everything from the ensemble, and the brokers are its from then on."""
    k.before = k.metadata()
    epoch = int(k.ask("zk-get", name="/controller_epoch"))
    controller = k.cluster.new_controller()
    controller.format(k.ask("cluster")["id"])
    controller.start()
    with k.flowing():
        k.roll("migration", before_the_last)
        until("the metadata are migrated", lambda: k.znode("/migration"), 180)
        until("the new controller is in /controller", k.controller_node_is_kraft)
        until("what is written is written twice", lambda: controller.logged("DUAL_WRITE"), 180)
    if k.ask("zk-is-ephemeral", name="/controller") or int(k.ask("zk-get", name="/controller_epoch")) <= epoch:
        raise Broken(f"/controller_epoch was {epoch} and is {k.ask('zk-get', name='/controller_epoch')}")
    k.expect_metadata()


def enters_migration_while_the_leader_is_killed(k):
    """It begins when the last broker has come; the ensemble has lost its leader a moment before."""
    leader = k.ensemble.leader()
    enters_migration(k, leader.kill)
    brings_back(k, leader)


def writes_twice(k, name):
    """What KRaft's controller is told is in the ensemble a moment later."""
    k.create(name)
    k.ask("config-set", type="topic", name=name, config={"retention.ms": "7200000"})
    k.ask("acl-add", topic=name, user="dave", operation="read")
    k.ask("user-set", name=name, password="x")
    k.ask("quota-set", entity={"client-id": name}, quota={"producer_byte_rate": 1000000})
    k.ask("quota-set", entity={"user": name}, quota={"producer_byte_rate": 1000000})
    wanted = (
        (f"/brokers/topics/{name}", "partitions"),
        (f"/config/topics/{name}", "7200000"),
        (f"/kafka-acl/Topic/{name}", "User:dave"),
        (f"/config/users/{name}", "SCRAM-SHA-256"),
        (f"/config/users/{name}", "producer_byte_rate"),
        (f"/config/clients/{name}", "producer_byte_rate"),
    )
    for path, text in wanted:
        until(f"{path} has {text}", lambda path=path, text=text: text in (k.ask("zk-get", name=path) or ""))
    k.ask("add-partitions", topic=name, partitions=4)
    until("there are four partitions in the ensemble", lambda: len(k.znode(f"/brokers/topics/{name}")["partitions"]) == 4)
    until(f"{name} has leaders", lambda: k.has_leaders(name))
    k.ask("acl-delete", topic=name, user="dave", operation="read")
    # Not that of the client: Kafka 3.9 writes nothing more to ZooKeeper once it has to remove such a quota there.
    k.ask("quota-set", entity={"user": name}, quota={"producer_byte_rate": None})
    k.ask("user-delete", name=name)
    k.deletes(name)
    for path in (f"/brokers/topics/{name}", f"/config/topics/{name}"):
        until(f"{path} is gone", lambda path=path: not k.ask("zk-exists", name=path))
    for path, text in wanted[:-1]:
        until(f"{path} has no {text}", lambda path=path, text=text: text not in (k.ask("zk-get", name=path) or ""))


def what_is_written_is_written_twice(k):
    with k.flowing():
        writes_twice(k, "twice")


def written_twice_while_the_leader_is_killed(k):
    with k.flowing():
        leader = k.ensemble.leader()
        leader.kill()
        writes_twice(k, "twice-killed")
        brings_back(k, leader)


def written_twice_after_the_controller_is_killed(k):
    epoch = k.znode("/controller")["kraftControllerEpoch"]
    with k.flowing():
        k.cluster.controller.kill()
        k.cluster.controller.start()
        until("the controller claims its place again", lambda: k.znode("/controller")["kraftControllerEpoch"] > epoch)
        writes_twice(k, "twice-restarted")


def goes_back_to_zookeeper(k):
    """The way back that Kafka's manual describes: no KRaft controller, its claim and its state removed, brokers as before."""
    k.create("made-in-kraft")
    until("made-in-kraft is in the ensemble", lambda: k.ask("zk-exists", name="/brokers/topics/made-in-kraft"))
    k.await_in_sync()
    k.before = k.metadata()
    with k.flowing():
        k.cluster.controller.stop()
        k.ask("zk-delete", name="/controller")
        k.ask("zk-delete", name="/migration")
        # One that has not heard of its controller yet asks the one that is gone whether it may stop, for five minutes.
        k.controller()
        k.creates_another()
        for broker in k.brokers:
            broker.stop()
            broker.mode = "zookeeper"
            broker.start()
            broker.await_registered()
        k.await_in_sync()
        k.controller()
        k.creates_another()
    k.expect_metadata()


def the_brokers_leave_zookeeper(k):
    k.before = k.metadata()
    with k.flowing():
        k.roll("kraft")
        until("no broker is registered in the ensemble", lambda: not k.ask("zk-children", name="/brokers/ids"))
        k.creates_another()
    k.expect_metadata()
    k.produces_as("bob", "bob", "private", "")
    k.produces_as("alice", "second", "private", "TopicAuthorizationException")


def the_migration_is_finished(k):
    """The controller leaves too; then there is no ensemble, and Kafka goes on."""
    with k.flowing():
        controller = k.cluster.controller
        controller.stop()
        controller.mode = "kraft"
        controller.start()
        k.creates_another()
    k.ensemble.stop()
    with k.flowing():
        k.creates_another()
    k.expect_metadata()


def every_message_is_there(k):
    for topic in ("letters", "grows", "moved", "moved-by-node", "private", "open"):
        if topic in k.ask("topics"):
            k.verify(topic)


def brokers_stop(k):
    # The registration of the last one has to be gone too, so the driver asks the ensemble and not a broker.
    for broker in k.brokers:
        broker.stop()
        if broker.mode == "zookeeper" and k.ask("zk-exists", name=f"/brokers/ids/{broker.number}"):
            raise Broken(f"{broker} has ended and is registered")
    if k.cluster.controller is not None:
        k.cluster.controller.stop()


# Those without which no other is tried.
FOUNDATION = (brokers_register, creates_topics)
ZOOKEEPER = (
    brokers_register, creates_topics, adds_partitions, produces_and_consumes, a_group_shares_its_topic,
    topic_configuration_takes_effect, broker_configuration_takes_effect, quotas_throttle, users_authenticate_from_what_is_stored,
    acls_are_enforced, tools_write_to_zookeeper, reassigns_partitions, reassigns_by_a_node, elects_preferred_leaders,
    the_controller_is_killed, a_broker_outlives_its_session, deletes_topics, the_leader_is_killed, a_follower_is_killed,
    every_leader_is_killed_in_turn, the_ensemble_is_restarted_one_by_one, the_leader_is_cut_off,
    the_leader_and_the_controller_are_killed, one_server_is_killed_and_comes_back,
)  # fmt: skip
# Each stands on the one before.
MIGRATION = (
    enters_migration, what_is_written_is_written_twice, written_twice_while_the_leader_is_killed,
    written_twice_after_the_controller_is_killed, goes_back_to_zookeeper,
    enters_migration_while_the_leader_is_killed, the_brokers_leave_zookeeper, the_migration_is_finished,
)  # fmt: skip
LAST = (every_message_is_there, brokers_stop)
QUICK = {
    brokers_register, creates_topics, produces_and_consumes, a_group_shares_its_topic, topic_configuration_takes_effect,
    acls_are_enforced, the_leader_is_killed, the_controller_is_killed, a_follower_is_killed, deletes_topics,
    enters_migration, what_is_written_is_written_twice, every_message_is_there, brokers_stop,
}  # fmt: skip


def attempt(k, case):
    """The result of a case and its reason."""
    try:
        case(k)
        return "passed", ""
    except Skipped as reason:
        return "skipped", str(reason)
    except (Broken, OSError, SystemExit) as error:
        return "failed", str(error)
    except Exception as error:  # a fault of the suite fails one case, not those behind it
        traceback.print_exc()
        return "failed", repr(error)


def run(k, only, results):
    ended = chain = ""
    for case in (*ZOOKEEPER, *MIGRATION, *LAST):
        name = case.__name__.replace("_", "-")
        if k.args.quick and case not in QUICK:
            continue
        if case not in FOUNDATION and not any(fnmatch.fnmatchcase(name, pattern) for pattern in only or ["*"]):
            continue
        begun = time.monotonic()
        why = ended or (chain if case in MIGRATION else "")
        result, reason = ("failed", f"not tried: {why}") if why else attempt(k, case)
        say(f"  {name}: {result} in {time.monotonic() - begun:.1f} s {reason}")
        results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
        results.flush()
        if result != "failed" or why:
            continue
        if case in FOUNDATION:
            ended = f"{name} failed"
        elif case in MIGRATION:
            chain = f"{name} failed"
        else:
            mended, reason = attempt(k, Kafka.mend)
            if mended != "passed":
                ended = f"{name} failed, and then: {reason}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    for name in ("--server", "--java", "--lib", "--work", "--results"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("cases", nargs="*", help="only these (and those that all stand on); patterns")
    args = parser.parse_args()
    # A run that is ended cleans up after itself: what it has made is not only processes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ.setdefault("APACHE_JVMFLAGS", "-Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
    ensemble = Divisible(args.server, os.path.join(args.work, "ensemble"), TIMES, LIMITS)
    k = Kafka(args, ensemble, 2 if args.quick else 3)
    with open(args.results, "w", encoding="utf-8") as results:
        try:
            ensemble.start()
            run(k, args.cases, results)
        finally:
            k.cluster.stop()
            ensemble.close()


if __name__ == "__main__":
    main()
