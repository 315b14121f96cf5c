"""Kafka's processes on loopback: brokers that keep their metadata in ZooKeeper or in KRaft, a KRaft controller, and the driver.

    Cluster(args, ensemble, brokers)   `brokers` of them, numbered from 1; `driver` once `start_driver` was called
    Broker                             start, stop, kill, suspend, resume; `mode` is zookeeper, migration or kraft
    Controller                         the same; `mode` is migration or kraft
    Driver                             Kafka's own clients in a process that is told what to do, see Driver.java

Whatever does not go as it should raises Broken.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
import cases  # noqa: E402
from cases import Broken  # noqa: E402
from servers import free_port  # noqa: E402

CHROOT = "/kafka"
CONTROLLER_ID = 3000
# A session of a broker ends this long after the broker has.
SESSION_MS = 9000
FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xss512k")


def until(what, condition, patience=120.0, every=0.1):
    return cases.until(what, condition, patience, every, again=Broken)


class Process:
    """A JVM with a log of its own."""

    HEAP, MAIN = "256m", "kafka.Kafka"

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.process = None
        self.log = os.path.join(cluster.args.work, f"{name}.log")
        self.config = os.path.join(cluster.args.work, f"{name}.properties")
        self.data = os.path.join(cluster.args.work, f"{name}-data")

    def __str__(self):
        return self.name

    def start(self):
        with open(self.config, "w", encoding="utf-8") as out:
            out.writelines(f"{key}={value}\n" for key, value in self.properties().items())
        with open(self.log, "ab") as log:
            command = self.cluster.java(self.HEAP, self.MAIN, self.config)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self):
        """SIGTERM; it must end by itself."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            status = self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Broken(f"{self} did not end within 120 s of SIGTERM") from None
        finally:
            self.process = None
        if status not in (0, 143):
            raise Broken(f"{self} ended with status {status} after SIGTERM")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def suspend(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def mark(self):
        return os.path.getsize(self.log) if os.path.exists(self.log) else 0

    def logged(self, phrase, mark=0):
        with open(self.log, "rb") as log:
            log.seek(mark)
            return phrase in log.read().decode(errors="replace")


class Broker(Process):
    def __init__(self, cluster, number):
        super().__init__(cluster, f"broker-{number}")
        self.number, self.mode = number, "zookeeper"
        self.port, self.sasl_port = free_port(), free_port()

    def properties(self):
        cluster = self.cluster
        replicas = min(3, cluster.size)
        config = {
            "log.dirs": self.data,
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},SASL_PLAINTEXT://127.0.0.1:{self.sasl_port}",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config":
                "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            # The other listener's users, brokers among them, may do everything.
            "super.users": "User:ANONYMOUS",
            "auto.create.topics.enable": "false",
            # Otherwise the election that a case asks for could have been this one's.
            "auto.leader.rebalance.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": max(1, replicas - 1),
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "controlled.shutdown.max.retries": 1,
            "controlled.shutdown.retry.backoff.ms": 500,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "background.threads": 2,
            "log.cleaner.dedupe.buffer.size": 4194304,
            "log.segment.delete.delay.ms": 1000,
        }  # fmt: skip
        if self.mode == "kraft":
            config |= {"process.roles": "broker", "node.id": self.number, **cluster.quorum()}
            config["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            # A broker that was killed is fenced as soon as its session would have ended.
            config["broker.session.timeout.ms"] = SESSION_MS
            return config
        config |= {"broker.id": self.number, "authorizer.class.name": "kafka.security.authorizer.AclAuthorizer", **cluster.zookeeper()}
        if self.mode == "migration":
            config |= {"zookeeper.metadata.migration.enable": "true", "inter.broker.protocol.version": "3.9", **cluster.quorum()}
        return config

    def await_registered(self, patience=180.0):
        def registered():
            if not self.is_running:
                raise SystemExit(f"{self} ended with status {self.process.returncode}")
            return self.number in self.cluster.driver.ask("cluster", patience=20)["brokers"]

        until(f"{self} registers", registered, patience)


class Controller(Process):
    def __init__(self, cluster, attempt):
        super().__init__(cluster, f"controller-{attempt}")
        self.port, self.mode = free_port(), "migration"

    def properties(self):
        config = {
            "process.roles": "controller",
            "node.id": CONTROLLER_ID,
            "listeners": f"CONTROLLER://127.0.0.1:{self.port}",
            "log.dirs": self.data,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            **self.cluster.quorum(),
        }
        # A rule of Kafka's: a controller knows the listener of the brokers that it migrates.
        if self.mode == "migration":
            config |= {"zookeeper.metadata.migration.enable": "true", "inter.broker.listener.name": "PLAINTEXT", **self.cluster.zookeeper()}
        return config

    def format(self, cluster_id):
        with open(self.config, "w", encoding="utf-8") as out:
            out.writelines(f"{key}={value}\n" for key, value in self.properties().items())
        self.cluster.tool("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", self.config)


class Driver:
    def __init__(self, cluster):
        brokers = cluster.brokers
        flags = ("--class-path", os.path.join(cluster.args.lib, "*"), os.path.join(HERE, "Driver.java"))
        command = [cluster.args.java, "-Xmx192m", *FLAGS, f"-Dlog4j.configuration=file:{HERE}/log4j.properties", *flags]
        plain = ",".join(f"127.0.0.1:{broker.port}" for broker in brokers)
        sasl = ",".join(f"127.0.0.1:{broker.sasl_port}" for broker in brokers)
        with open(os.path.join(cluster.args.work, "driver.log"), "ab") as log:
            self.process = subprocess.Popen(
                [*command, plain, sasl, cluster.ensemble.address + CHROOT],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.next, self.lock, self.waiting = 0, threading.Lock(), {}
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            if (waiting := self.waiting.pop(answer["id"], None)) is not None:
                waiting.put(answer)
        for waiting in list(self.waiting.values()):
            waiting.put({"error": f"the driver ended with status {self.process.wait()}"})

    def ask(self, op, patience=90.0, **fields):
        answered = queue.Queue()
        with self.lock:
            self.next += 1
            number = self.next
            self.waiting[number] = answered
            try:
                self.process.stdin.write(json.dumps({"id": number, "op": op, **fields}) + "\n")
                self.process.stdin.flush()
            except OSError as error:
                raise Broken(f"the driver is gone: {error}") from None
        try:
            answer = answered.get(timeout=patience)
        except queue.Empty:
            self.waiting.pop(number, None)
            raise Broken(f"{op} took more than {patience:.0f} s") from None
        if "error" in answer:
            raise Broken(f"{op} {json.dumps(fields) if fields else ''}: {answer['error']}")
        return answer.get("result")

    def stop(self):
        with contextlib.suppress(OSError):  # it may have ended before
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Cluster:
    def __init__(self, args, ensemble, size):
        self.args, self.ensemble, self.size = args, ensemble, size
        self.brokers = [Broker(self, number) for number in range(1, size + 1)]
        self.controller = self.driver = None
        self.attempts = 0

    def java(self, heap, main, *arguments):
        flags = [f"-Xmx{heap}", *FLAGS, f"-Dlog4j.configuration=file:{HERE}/log4j.properties"]
        return [self.args.java, *flags, "-cp", os.path.join(self.args.lib, "*"), main, *arguments]

    def tool(self, main, *arguments, timeout=180):
        command = self.java("192m", main, *arguments)
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise Broken(f"{main} took more than {timeout} s: {(error.stdout or b'')[-400:]}") from None
        if done.returncode != 0:
            raise Broken(f"{main} ended with status {done.returncode}: {done.stdout[-400:]}")
        return done.stdout

    def zookeeper(self):
        return {
            "zookeeper.connect": self.ensemble.address + CHROOT,
            "zookeeper.session.timeout.ms": SESSION_MS,
            "zookeeper.connection.timeout.ms": 60000,
        }

    def quorum(self):
        return {
            "controller.quorum.voters": f"{CONTROLLER_ID}@127.0.0.1:{self.controller.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        }

    def start_driver(self):
        self.driver = Driver(self)

    def new_controller(self):
        self.attempts += 1
        self.controller = Controller(self, self.attempts)
        return self.controller

    def broker(self, number):
        return self.brokers[number - 1]

    def stop(self):
        """Whatever still runs, brokers first. For the end of a run: a case asks the processes themselves."""
        for process in [*self.brokers, *([self.controller] if self.controller else [])]:
            process.kill()
        if self.driver is not None:
            self.driver.stop()
