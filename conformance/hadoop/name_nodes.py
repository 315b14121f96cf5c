"""Two NameNodes and their failover controllers on ZooKeeper, with a folder for the shared edits and one DataNode; files are
written all the time while NameNodes, controllers and ZooKeeper's servers are killed. At most one NameNode is ever active, and
no file that was acknowledged is lost.
"""

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from scenario import Broken, Driver, Jvm, Servers, main, until  # noqa: E402
from servers import free_port  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SERVICE = "letters"
NODES = ("nn1", "nn2")
SESSION_MILLIS = 10_000
FORMAT_DENIED = 2
USER = "hdfs:secret"


class NameNode(Jvm):
    """One whose process the other's fencing can find."""

    def __init__(self, name, command, folder):
        super().__init__(name, command, folder)
        self.pid_file = os.path.join(folder, f"{name}.pid")

    def start(self):
        super().start()
        with open(self.pid_file, "w", encoding="ascii") as out:
            out.write(f"{self.process.pid}\n")


class Hdfs:
    def __init__(self, args, members):
        self.args = args
        self.servers = Servers(args.server, os.path.join(args.work, "ensemble"), members, ways=NODES)
        self.ports = {node: {role: free_port() for role in ("rpc", "http", "zkfc")} for node in NODES}
        self.name_nodes, self.controllers = {}, {}
        for node in NODES:
            conf = self.configure(node)
            self.name_nodes[node] = NameNode(node, self.java(conf, "256m", "org.apache.hadoop.hdfs.server.namenode.NameNode"), args.work)
            self.controllers[node] = Jvm(f"zkfc-{node}", self.controller(node), args.work)
        self.data_node = Jvm(
            "datanode", self.java(self.configure("datanode"), "256m", "org.apache.hadoop.hdfs.server.datanode.DataNode"), args.work
        )
        self.driver = Driver("client", self.java(self.configure("client"), "256m", "HdfsDriver"), args.work)

    def settings(self, name):
        work = self.args.work
        yield "fs.defaultFS", f"hdfs://{SERVICE}"
        yield "dfs.nameservices", SERVICE
        yield f"dfs.ha.namenodes.{SERVICE}", ",".join(NODES)
        for node in NODES:
            for key, role in (("namenode.rpc-address", "rpc"), ("namenode.http-address", "http")):
                yield f"dfs.{key}.{SERVICE}.{node}", f"127.0.0.1:{self.ports[node][role]}"
            yield f"dfs.ha.zkfc.port.{SERVICE}.{node}", str(self.ports[node]["zkfc"])
        if name in NODES:
            yield "dfs.ha.namenode.id", name
            yield "dfs.namenode.name.dir", f"file://{work}/{name}"
        yield "hadoop.tmp.dir", f"{work}/tmp/{name}"
        yield "dfs.namenode.shared.edits.dir", f"file://{work}/edits"
        yield f"dfs.client.failover.proxy.provider.{SERVICE}", "org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider"
        yield "dfs.client.failover.max.attempts", "300"
        yield "dfs.client.failover.sleep.base.millis", "50"
        yield "dfs.client.failover.sleep.max.millis", "500"
        yield "ipc.client.connect.max.retries", "0"
        # A NameNode that stands still must not hold the client for long.
        yield "ipc.client.rpc-timeout.ms", "5000"
        yield "dfs.ha.automatic-failover.enabled", "true"
        yield "dfs.ha.fencing.methods", f"shell({HERE}/fence.sh {work} $target_namenodeid)"
        yield "ha.zookeeper.quorum", self.servers.address_for(name)
        yield "ha.zookeeper.session-timeout.ms", str(SESSION_MILLIS)
        digest = base64.b64encode(hashlib.sha1(USER.encode()).digest()).decode()
        yield "ha.zookeeper.acl", f"digest:{USER.split(':', 1)[0]}:{digest}:rwcda"
        yield "ha.zookeeper.auth", f"digest:{USER}"
        yield "ha.health-monitor.rpc-timeout.ms", "4000"
        yield "ha.failover-controller.graceful-fence.rpc-timeout.ms", "3000"
        yield "ha.failover-controller.new-active.rpc-timeout.ms", "60000"
        yield "dfs.ha.tail-edits.period", "1"
        yield "dfs.replication", "1"
        yield "dfs.namenode.safemode.extension", "0"
        yield "dfs.heartbeat.interval", "1"
        yield "dfs.namenode.datanode.registration.ip-hostname-check", "false"
        yield "dfs.namenode.handler.count", "6"
        yield "dfs.namenode.fs-limits.min-block-size", "0"
        yield "dfs.permissions.enabled", "false"
        for key in ("address", "http.address", "ipc.address"):
            yield f"dfs.datanode.{key}", "127.0.0.1:0"
        yield "dfs.datanode.data.dir", f"file://{work}/blocks"

    def configure(self, name):
        folder = os.path.join(self.args.work, "conf", name)
        # The consoles' pages are in no jar; the servers want their folders.
        for page in ("hdfs", "datanode", "static"):
            os.makedirs(os.path.join(folder, "webapps", page))
        # In both, since the defaults of HDFS come between them.
        for file in ("core-site.xml", "hdfs-site.xml"):
            with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
                out.write("<configuration>\n")
                for key, value in self.settings(name):
                    out.write(f"<property><name>{key}</name><value>{value}</value></property>\n")
                out.write("</configuration>\n")
        return folder

    def java(self, conf, heap, *words):
        flags = [f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j.configuration=file:{HERE}/log4j.properties"]
        flags += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util")]
        return [self.args.java, *flags, "-cp", f"{conf}:{self.args.classes}:{self.args.lib}/*", *words]

    def controller(self, node, *words):
        conf = os.path.join(self.args.work, "conf", node)
        return self.java(conf, "128m", "org.apache.hadoop.hdfs.tools.DFSZKFailoverController", *words)

    def once(self, name, command, want):
        """Runs a command to its end, which must be this status."""
        with open(os.path.join(self.args.work, f"{name}.log"), "ab") as log:
            try:
                status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=120, check=False).returncode
            except subprocess.TimeoutExpired:
                raise Broken(f"{name} did not end within 120 s") from None
        if status != want:
            raise Broken(f"{name} ended with status {status}, not {want}")

    def start(self):
        self.servers.start()

    def stop(self):
        for process in [self.driver, *self.controllers.values(), *self.name_nodes.values(), self.data_node]:
            if process.is_running:
                process.kill()
        self.servers.stop()

    def states(self):
        return dict(zip(NODES, self.driver.ask("states").split()))

    def active(self):
        """The id of the active one; Broken while there is none."""
        states = self.states()
        active = [node for node in NODES if states[node] == "active"]
        if len(active) != 1:
            raise Broken(f"the NameNodes are {states}")
        return active[0]

    def await_states(self, seconds=120, **want):
        until(f"NameNodes as {want}", lambda: all(self.states()[node] == state for node, state in want.items()), seconds)

    def fenced(self):
        try:
            with open(os.path.join(self.args.work, "fenced"), encoding="utf-8") as lines:
                return lines.read().splitlines()
        except FileNotFoundError:
            return []

    def written(self):
        return int(self.driver.ask("written"))

    def expect_progress(self, files=30, seconds=120):
        before = self.written()
        until(f"{files} more files acknowledged", lambda: self.written() >= before + files, seconds, every=0.1)

    def verify(self):
        owed, found, missing, wrong = (int(word) for word in self.driver.ask("verify").split())
        if missing or wrong or owed == 0:
            raise Broken(f"of {owed} acknowledged files {missing} are missing and {wrong} are wrong; {found} are there")

    def fail_over(self, kill, seconds=120):
        """`kill` does away with the active one, somehow; the other must become active, and the killed one come back."""
        active = self.active()
        other = next(node for node in NODES if node != active)
        kill(active)
        self.await_states(seconds, **{other: "active"})
        self.expect_progress()
        return active, other

    def restart(self, node):
        """What is not running of this one is started; it becomes the standby."""
        for process in (self.name_nodes[node], self.controllers[node]):
            if not process.is_running:
                process.start()
        self.await_states(**{node: "standby"})
        until(f"the controller of {node}", lambda: self.controllers[node].is_listening(self.ports[node]["zkfc"]))

    def expect_no_failover(self, active, fenced):
        """As before: the same one is active, nobody was fenced, and the controllers live."""
        for process in [*self.name_nodes.values(), *self.controllers.values(), self.data_node]:
            process.expect_running()
        if self.active() != active or len(self.fenced()) != fenced:
            raise Broken(f"a failover that nothing called for: {self.states()}, fenced: {self.fenced()}")
        if self.states()[next(node for node in NODES if node != active)] != "standby":
            raise Broken(f"the NameNodes are {self.states()}")


def formats(hdfs):
    hdfs.once("zkfc-format", hdfs.controller("nn1", "-formatZK", "-nonInteractive"), 0)
    hdfs.once("zkfc-format", hdfs.controller("nn1", "-formatZK", "-nonInteractive"), FORMAT_DENIED)
    hdfs.once("format", [*hdfs.name_nodes["nn1"].command, "-format", "-nonInteractive"], 0)
    shutil.copytree(os.path.join(hdfs.args.work, "nn1"), os.path.join(hdfs.args.work, "nn2"))


def elects_an_active_name_node(hdfs):
    for process in [*hdfs.name_nodes.values(), hdfs.data_node, hdfs.driver]:
        process.start()
    hdfs.await_states(nn1="standby", nn2="standby")
    for controller in hdfs.controllers.values():
        controller.start()
    until("one active and one standby", lambda: sorted(hdfs.states().values()) == ["active", "standby"])
    hdfs.driver.ask("watch-states")


def writes_reads_and_deletes(hdfs):
    # The DataNode says who it is to a NameNode after that has become active.
    until("a file is taken", lambda: hdfs.driver.ask("put", 1))
    hdfs.driver.ask("put", 49)
    hdfs.verify()
    if hdfs.driver.ask("delete", 7) != "false":
        raise Broken("file 7 is there after it was deleted")
    hdfs.driver.ask("write")
    hdfs.expect_progress()


def a_killed_name_node_is_replaced(hdfs):
    fenced = len(hdfs.fenced())
    active, _ = hdfs.fail_over(lambda node: hdfs.name_nodes[node].kill())
    # The new one cannot know that the old one is gone, and must make sure.
    if hdfs.fenced()[fenced:] != [f"{active} was gone"]:
        raise Broken(f"fencing did {hdfs.fenced()[fenced:]}")
    hdfs.restart(active)


def a_name_node_that_hangs_is_fenced(hdfs):
    fenced = len(hdfs.fenced())
    active, _ = hdfs.fail_over(lambda node: hdfs.name_nodes[node].process.send_signal(signal.SIGSTOP))
    if hdfs.fenced()[fenced:] != [f"{active} killed"]:
        raise Broken(f"fencing did {hdfs.fenced()[fenced:]}")
    hdfs.name_nodes[active].wait(10)
    hdfs.restart(active)


def a_killed_controller_costs_the_active_state(hdfs):
    """Its session expires, and the other's controller turns the NameNode into a standby, which needs no fencing."""
    fenced = len(hdfs.fenced())
    active, _ = hdfs.fail_over(lambda node: hdfs.controllers[node].kill())
    if hdfs.states()[active] != "standby" or len(hdfs.fenced()) != fenced:
        raise Broken(f"the NameNodes are {hdfs.states()}, fenced: {hdfs.fenced()[fenced:]}")
    hdfs.restart(active)


def hands_over(hdfs):
    """A failover by request, which fences nobody."""
    fenced = len(hdfs.fenced())

    def hand_over(node):
        other = next(one for one in NODES if one != node)
        # A controller refuses until it has seen its NameNode healthy; to be asked twice changes nothing.
        until("a failover by request", lambda: hdfs.driver.ask("failover", other) == "")

    _, other = hdfs.fail_over(hand_over)
    until("one active and one standby", lambda: sorted(hdfs.states().values()) == ["active", "standby"])
    hdfs.expect_no_failover(other, fenced)


def a_graceful_failover_fences_nobody(hdfs):
    hands_over(hdfs)


def unmoved(hdfs, fault):
    """A fault of ZooKeeper's that the NameNodes must bear as they are."""
    active, fenced = hdfs.active(), len(hdfs.fenced())
    fault()
    hdfs.expect_progress()
    # As long as a session lives: whatever was lost would show by now.
    time.sleep(SESSION_MILLIS / 1000)
    hdfs.expect_no_failover(active, fenced)


def stays_as_it_is_when_zookeeper_is_killed_and_back(hdfs):
    unmoved(hdfs, lambda: hdfs.servers.kill_and_bring_back(hdfs.servers.leader()))


def stays_as_it_is_without_zookeepers_leader(hdfs):
    unmoved(hdfs, lambda: hdfs.servers.kill_and_bring_back(hdfs.servers.leader(), hdfs.expect_progress))


def stays_as_it_is_without_a_follower(hdfs):
    unmoved(hdfs, lambda: hdfs.servers.kill_and_bring_back(hdfs.servers.follower(), hdfs.expect_progress))


def stays_as_it_is_through_a_rolling_restart(hdfs):
    unmoved(hdfs, lambda: hdfs.servers.rolling_restart(hdfs.expect_progress))


def stays_as_it_is_when_the_leader_stands_still(hdfs):
    unmoved(hdfs, hdfs.servers.suspend_leader)


def stays_as_it_is_when_the_leader_is_cut_off(hdfs):
    """The controller of the active NameNode is at the leader that the others no longer hear."""
    unmoved(hdfs, lambda: hdfs.servers.cut_off_leader(f"/hadoop-ha/{SERVICE}/ActiveStandbyElectorLock", hdfs.expect_progress))


def a_controller_that_is_cut_off_costs_the_active_state(hdfs):
    """From ZooKeeper alone: its NameNode stays active until the other's controller makes it a standby, which needs no fencing."""
    active, fenced = hdfs.active(), len(hdfs.fenced())
    controller, beaten = hdfs.controllers[active], "should become standby"
    before = controller.logged(beaten)
    with hdfs.servers.cut_off_client(active):
        _, other = hdfs.fail_over(lambda _: None)
        if hdfs.states()[active] != "standby":
            raise Broken(f"the NameNodes are {hdfs.states()}")
    # It finds that it is not what it was, and is a candidate again.
    until(f"{controller.name} has lost an election", lambda: controller.logged(beaten) > before)
    hdfs.expect_no_failover(other, fenced)
    hands_over(hdfs)


def stays_as_it_is_when_all_of_zookeeper_is_down(hdfs):
    """For longer than a session lives: servers count its time anew from their start."""

    def fault():
        for member in hdfs.servers.members:
            member.kill()
        time.sleep(2 * SESSION_MILLIS / 1000)
        hdfs.expect_progress()
        for member in hdfs.servers.members:
            member.spawn()
        for member in hdfs.servers.members:
            member.await_reply("/zookeeper", time.monotonic())
        hdfs.servers.leader()

    unmoved(hdfs, fault)


def a_name_node_is_killed_while_zookeeper_is_down(hdfs):
    """The only server: nobody can be elected before it is back."""
    server = hdfs.servers.leader()

    def kill(node):
        server.kill()
        hdfs.name_nodes[node].kill()
        time.sleep(SESSION_MILLIS / 2000)
        if "active" in hdfs.states().values():
            raise Broken(f"the NameNodes are {hdfs.states()} without ZooKeeper")
        hdfs.servers.bring_back(server)

    active, _ = hdfs.fail_over(kill)
    hdfs.restart(active)


def fails_over_while_the_leader_is_down(hdfs):
    leader = hdfs.servers.leader()

    def kill(node):
        leader.kill()
        hdfs.name_nodes[node].kill()

    active, _ = hdfs.fail_over(kill)
    hdfs.servers.bring_back(leader)
    hdfs.restart(active)


def a_whole_machine_is_lost_with_the_leader(hdfs):
    leader = hdfs.servers.leader()

    def kill(node):
        leader.kill()
        hdfs.controllers[node].kill()
        hdfs.name_nodes[node].kill()

    active, _ = hdfs.fail_over(kill)
    hdfs.servers.bring_back(leader)
    hdfs.restart(active)


def fails_over_during_a_rolling_restart(hdfs):
    lost = []

    def meanwhile():
        active, _ = hdfs.fail_over(lambda node: hdfs.name_nodes[node].kill())
        hdfs.restart(active)
        lost.append(active)

    hdfs.servers.rolling_restart(meanwhile)
    if len(set(lost)) != len(NODES):
        raise Broken(f"the NameNodes lost were {lost}")


def never_two_were_active(hdfs):
    samples, doubles = (int(word) for word in hdfs.driver.ask("seen-states").split())
    if doubles or samples < 50:
        raise Broken(f"both NameNodes were active in {doubles} of {samples} samples")


def no_acknowledged_file_is_lost(hdfs):
    hdfs.driver.ask("stop-writing")
    hdfs.verify()


QUICK = [
    formats,
    elects_an_active_name_node,
    writes_reads_and_deletes,
    a_killed_name_node_is_replaced,
    stays_as_it_is_when_zookeeper_is_killed_and_back,
    never_two_were_active,
    no_acknowledged_file_is_lost,
]
FULL = [
    *QUICK[:4],
    a_name_node_that_hangs_is_fenced,
    a_killed_controller_costs_the_active_state,
    a_graceful_failover_fences_nobody,
    stays_as_it_is_without_zookeepers_leader,
    stays_as_it_is_without_a_follower,
    stays_as_it_is_through_a_rolling_restart,
    stays_as_it_is_when_the_leader_stands_still,
    stays_as_it_is_when_the_leader_is_cut_off,
    a_controller_that_is_cut_off_costs_the_active_state,
    stays_as_it_is_when_all_of_zookeeper_is_down,
    fails_over_while_the_leader_is_down,
    a_whole_machine_is_lost_with_the_leader,
    fails_over_during_a_rolling_restart,
    *QUICK[5:],
]
ALONE = [*QUICK[:5], a_name_node_is_killed_while_zookeeper_is_down, *QUICK[5:]]


if __name__ == "__main__":
    main(__doc__, Hdfs, QUICK, FULL, ALONE, group="NameNodes.")
