"""A Kafka broker in ZooKeeper mode on an ensemble of three: it registers, topics are made, messages go in and come out, and
it all goes on while the leader of the ensemble is killed and comes back.

Each case is a step; one that fails ends the scenario, and those behind it count as failed for that reason.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from servers import Ensemble, free_port, say  # noqa: E402

TOPIC = "letters"


class Broken(Exception):
    """What a case found."""


class Kafka:
    def __init__(self, args, ensemble):
        self.args, self.ensemble = args, ensemble
        self.port = free_port()
        self.process = None
        self.config = os.path.join(args.work, "broker.properties")
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(
                f"broker.id=1\nlog.dirs={args.work}/kafka-data\nlisteners=PLAINTEXT://127.0.0.1:{self.port}\n"
                f"zookeeper.connect={ensemble.address}/kafka\nzookeeper.session.timeout.ms=6000\n"
                "zookeeper.connection.timeout.ms=20000\noffsets.topic.replication.factor=1\n"
                "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\nnum.partitions=3\n"
                "offsets.topic.num.partitions=3\ngroup.initial.rebalance.delay.ms=0\ncontrolled.shutdown.enable=false\n"
            )

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def java(self, heap, main, *arguments):
        log4j = os.path.join(os.path.dirname(os.path.abspath(__file__)), "log4j.properties")
        flags = [f"-Xmx{heap}", "-XX:TieredStopAtLevel=1", f"-Dlog4j.configuration=file:{log4j}"]
        return [self.args.java, *flags, "-cp", os.path.join(self.args.lib, "*"), main, *arguments]

    def start(self):
        with open(os.path.join(self.args.work, "broker.log"), "ab") as log:
            self.process = subprocess.Popen(
                self.java("512m", "kafka.Kafka", self.config), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self):
        if self.process is None:
            return None
        self.process.terminate()
        try:
            status = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Broken("the broker did not end within 40 s of SIGTERM") from None
        self.process = None
        return status

    def tool(self, main, *arguments, stdin=None, timeout=60):
        command = self.java("256m", main, *arguments)
        try:
            done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{main} took more than {timeout} s: {(error.stdout or b'')[-400:]}") from None
        if done.returncode != 0:
            raise Broken(f"{main} ended with status {done.returncode}: {done.stdout[-400:]}")
        return done.stdout

    def stored_bytes(self):
        """The size of what the broker has stored of the topic."""
        folders = glob.glob(os.path.join(self.args.work, "kafka-data", f"{TOPIC}-*"))
        return sum(os.path.getsize(log) for folder in folders for log in glob.glob(os.path.join(folder, "*.log")))

    def topics(self, *arguments):
        return self.tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.bootstrap, *arguments)

    def produce(self, messages):
        self.tool(
            "kafka.tools.ConsoleProducer", "--bootstrap-server", self.bootstrap, "--topic", TOPIC,
            "--request-required-acks", "-1", "--sync", "--timeout", "2", stdin="".join(f"{message}\n" for message in messages), timeout=120,
        )  # fmt: skip

    def consume(self, count):
        out = self.tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", self.bootstrap, "--topic", TOPIC,
            "--from-beginning", "--max-messages", str(count), "--timeout-ms", "30000",
        )  # fmt: skip
        return [line for line in out.splitlines() if line.startswith("message-")]


def messages(first, count):
    return [f"message-{number:06d}" for number in range(first, first + count)]


def registers(kafka):
    kafka.start()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if kafka.process.poll() is not None:
            raise Broken(f"the broker ended with status {kafka.process.returncode}")
        try:
            return kafka.topics("--list")
        except Broken:
            time.sleep(1)
    raise Broken("the broker did not serve within 60 s")


def creates_a_topic(kafka):
    kafka.topics("--create", "--topic", TOPIC, "--partitions", "3", "--replication-factor", "1")
    if "PartitionCount: 3" not in kafka.topics("--describe", "--topic", TOPIC):
        raise Broken("the topic has not three partitions")


def expect_all(kafka, count):
    found = kafka.consume(count)
    if sorted(found) != messages(0, count):
        raise Broken(f"{len(set(found))} of {count} messages came out")


def produces_and_consumes(kafka):
    kafka.produce(messages(0, 100))
    expect_all(kafka, 100)


def produces_while_the_leader_is_killed(kafka):
    leader = kafka.ensemble.leader()
    failure = []

    def produce():
        try:
            kafka.produce(messages(100, 2000))
        except Broken as error:
            failure.append(error)

    before = kafka.stored_bytes()
    thread = threading.Thread(target=produce)
    thread.start()
    # In the middle of it: some messages are there, and the producer has not ended.
    while kafka.stored_bytes() == before and thread.is_alive():
        time.sleep(0.01)
    if not thread.is_alive():
        raise failure[0] if failure else Broken("everything was produced before the leader could be killed")
    leader.kill()
    kafka.killed = leader
    thread.join()
    if failure:
        raise failure[0]
    expect_all(kafka, 2100)


def creates_a_topic_without_the_old_leader(kafka):
    kafka.topics("--create", "--topic", "second", "--partitions", "2", "--replication-factor", "1")
    if "PartitionCount: 2" not in kafka.topics("--describe", "--topic", "second"):
        raise Broken("the topic has not two partitions")


def changes_a_configuration(kafka):
    arguments = ("--bootstrap-server", kafka.bootstrap, "--entity-type", "topics", "--entity-name", "second")
    kafka.tool("kafka.admin.ConfigCommand", *arguments, "--alter", "--add-config", "retention.ms=3600000")
    if "retention.ms=3600000" not in kafka.tool("kafka.admin.ConfigCommand", *arguments, "--describe"):
        raise Broken("the configuration did not change")


def goes_on_when_the_old_leader_is_back(kafka):
    kafka.killed.spawn()
    kafka.killed.await_reply("/kafka/brokers/ids/1", time.monotonic())
    kafka.ensemble.leader()
    kafka.produce(messages(2100, 100))
    expect_all(kafka, 2200)


def keeps_its_session_through_every_leader(kafka):
    """Each leader in turn is killed and comes back; the broker must not have lost its registration."""
    for _ in range(3):
        leader = kafka.ensemble.leader()
        leader.kill()
        kafka.ensemble.leader(without=leader)
        kafka.topics("--list")
        leader.spawn()
        leader.await_reply("/kafka/brokers/ids/1", time.monotonic())
    kafka.ensemble.leader()
    with open(os.path.join(kafka.args.work, "broker.log"), encoding="utf-8", errors="replace") as log:
        if "Session expired" in log.read():
            raise Broken("the broker's session expired")


def deletes_a_topic(kafka):
    kafka.topics("--delete", "--topic", "second")
    end = time.monotonic() + 30
    while "second" in kafka.topics("--list").split():
        if time.monotonic() > end:
            raise Broken("the topic is still there after 30 s")


def stops_cleanly(kafka):
    status = kafka.stop()
    if status not in (0, 143):
        raise Broken(f"the broker ended with status {status}")


CASES = [
    registers,
    creates_a_topic,
    produces_and_consumes,
    produces_while_the_leader_is_killed,
    creates_a_topic_without_the_old_leader,
    changes_a_configuration,
    goes_on_when_the_old_leader_is_back,
    keeps_its_session_through_every_leader,
    deletes_a_topic,
    stops_cleanly,
]
SLOW = {keeps_its_session_through_every_leader, changes_a_configuration, deletes_a_topic}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ("--server", "--java", "--lib", "--work", "--results"):
        parser.add_argument(name, required=True)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    ensemble = Ensemble(args.server, os.path.join(args.work, "ensemble"))
    kafka = Kafka(args, ensemble)
    broken = None
    with open(args.results, "w", encoding="utf-8") as results:
        try:
            ensemble.start()
            for case in CASES:
                if args.quick and case in SLOW:
                    continue
                name, result, reason = case.__name__.replace("_", "-"), "passed", ""
                begun = time.monotonic()
                if broken:
                    result, reason = "failed", f"not tried: {broken}"
                else:
                    try:
                        case(kafka)
                    except (Broken, OSError, SystemExit) as error:
                        result, reason = "failed", str(error)
                        broken = f"{name} failed"
                say(f"  {name}: {result} in {time.monotonic() - begun:.1f} s {reason}")
                results.write(json.dumps({"name": name, "result": result, "reason": reason}) + "\n")
        finally:
            try:
                kafka.stop()
            except Broken as error:
                say(str(error))
            ensemble.stop()


if __name__ == "__main__":
    main()
