package org.apache.zookeeper.test;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.zookeeper.PortAssignment;
import org.apache.zookeeper.server.quorum.QuorumPeer;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import paddock.conformance.ExternalPeer;
import paddock.conformance.ServerProcess;

/**
 * The ensemble of 2n+1 members that ZooKeeper's tests start inside their JVM, as processes. A {@link QuorumPeer} here is
 * never run: it passes on what can be done to a process from outside.
 */
public class QuorumUtil {

    private static final int TICK_MILLIS = 2000;
    private static final int INIT_LIMIT = 3;

    /** One member. */
    public static class PeerStruct {

        public int id;
        public QuorumPeer peer;
        public File dataDir;
        public int clientPort;

        private Path config;
        private int quorumPort;
        private int electionPort;
        private boolean localSessions;
        private ServerProcess process;
    }

    /** What a test asks of the object in its JVM, done to the process. */
    private final class Peer extends ExternalPeer {

        private final PeerStruct member;
        private boolean reconfigEnabled;

        Peer(PeerStruct member) throws IOException {
            super(member.id, member.config);
            this.member = member;
        }

        /** A process reads this once, so one that runs starts again. */
        @Override
        public void enableLocalSessions(boolean enabled) {
            boolean changes = member.localSessions != enabled;
            member.localSessions = enabled;
            if (changes && member.process != null) {
                QuorumUtil.this.shutdown(member.id);
                try {
                    QuorumUtil.this.start(member.id);
                } catch (IOException e) {
                    throw new IllegalStateException(e);
                }
            }
        }

        /** Upstream's member stops where it would join a leader; the process stops altogether. Since 3.9 it overrides one. */
        public void setSuspended(boolean suspended) {
            member.process.pause(suspended);
        }

        @Override
        public boolean isReconfigEnabled() {
            return reconfigEnabled;
        }
    }

    public final int N;

    public final int ALL;

    public boolean disableJMXTest = false;

    private final Map<Integer, PeerStruct> peers = new TreeMap<>();
    private final int syncLimit;
    // The tests of the read-only mode in 3.5 do not ask for them, and without there are no sessions in that mode since 3.7.
    private boolean localSessionEnabled = Boolean.getBoolean("conformance.localSessions");

    public QuorumUtil(int n, int syncLimit) throws RuntimeException {
        N = n;
        ALL = 2 * n + 1;
        this.syncLimit = syncLimit;
        try {
            ClientBase.setupTestEnv();
            for (int id = 1; id <= ALL; id++) {
                PeerStruct member = new PeerStruct();
                member.id = id;
                member.dataDir = ClientBase.createTmpDir();
                member.clientPort = PortAssignment.unique();
                member.quorumPort = PortAssignment.unique();
                member.electionPort = PortAssignment.unique();
                member.config = ClientBase.createTmpDir().toPath().resolve("zoo.cfg");
                peers.put(id, member);
            }
            for (PeerStruct member : peers.values()) {
                configure(member);
                member.peer = new Peer(member);
            }
        } catch (IOException e) {
            throw new RuntimeException(e);
        }
    }

    public QuorumUtil(int n) throws RuntimeException {
        this(n, 3);
    }

    public PeerStruct getPeer(int id) {
        PeerStruct member = peers.get(id);
        ((Peer) member.peer).refresh();
        return member;
    }

    public void enableLocalSession(boolean enabled) {
        localSessionEnabled = enabled;
    }

    public void startAll() throws IOException {
        startFirst(ALL);
    }

    /** The first n+1. */
    public void startQuorum() throws IOException {
        startFirst(N + 1);
    }

    private void startFirst(int count) throws IOException {
        shutdownAll();
        for (int id = 1; id <= count; id++) {
            start(id);
        }
        for (int id = 1; id <= count; id++) {
            awaitUp(id);
        }
    }

    /** As upstream's servers it starts with the members of the beginning, and learns of others from the ensemble. */
    public void start(int id) throws IOException {
        PeerStruct member = peers.get(id);
        member.localSessions |= localSessionEnabled;
        Peer peer = (Peer) member.peer;
        peer.reconfigEnabled = QuorumPeerConfig.isReconfigEnabled();
        member.process = ServerProcess.launch(configure(member), member.config);
        peer.is(member.process);
    }

    /** Writes its zoo.cfg. */
    private Map<String, String> configure(PeerStruct member) throws IOException {
        Map<String, String> settings = new TreeMap<>();
        settings.put("dataDir", member.dataDir.getAbsolutePath());
        settings.put("clientPort", Integer.toString(member.clientPort));
        settings.put("clientPortAddress", "127.0.0.1");
        settings.put("tickTime", Integer.toString(TICK_MILLIS));
        settings.put("initLimit", Integer.toString(INIT_LIMIT));
        settings.put("syncLimit", Integer.toString(syncLimit));
        settings.put("connectToLearnerMasterLimit", Integer.toString(INIT_LIMIT));
        settings.put("localSessionsEnabled", Boolean.toString(member.localSessions));
        settings.put("reconfigEnabled", Boolean.toString(QuorumPeerConfig.isReconfigEnabled()));
        for (PeerStruct other : peers.values()) {
            String client = ":participant;127.0.0.1:" + other.clientPort;
            settings.put("server." + other.id, "127.0.0.1:" + other.quorumPort + ":" + other.electionPort + client);
        }
        Files.writeString(member.dataDir.toPath().resolve("myid"), member.id + "\n");
        StringBuilder text = new StringBuilder();
        settings.forEach((key, value) -> text.append(key).append('=').append(value).append('\n'));
        Files.writeString(member.config, text);
        return settings;
    }

    public void restart(int id) throws IOException {
        start(id);
        awaitUp(id);
    }

    public void startThenShutdown(int id) throws IOException {
        restart(id);
        shutdown(id);
    }

    private void awaitUp(int id) {
        String address = getConnectionStringForServer(id);
        assertTrue(ClientBase.waitForServerUp(address, ClientBase.CONNECTION_TIMEOUT), address + " is not up");
    }

    public void shutdownAll() {
        peers.keySet().forEach(this::shutdown);
    }

    public void shutdown(int id) {
        PeerStruct member = peers.get(id);
        if (member.process != null) {
            member.process.stop();
            member.process = null;
            ((Peer) member.peer).is(null);
        }
    }

    public String getConnString() {
        return peers.keySet().stream().map(this::getConnectionStringForServer).collect(Collectors.joining(","));
    }

    public String getConnectString(QuorumPeer peer) {
        return "127.0.0.1:" + peer.getClientPort();
    }

    public String getConnectionStringForServer(int id) {
        return "127.0.0.1:" + peers.get(id).clientPort;
    }

    private static String mode(PeerStruct member) {
        return ((Peer) member.peer).mode();
    }

    public boolean allPeersAreConnected() {
        return peers.values().stream().allMatch(member -> member.peer.getPeerState() != QuorumPeer.ServerState.LOOKING);
    }

    public QuorumPeer getLeaderQuorumPeer() {
        return peers.get(getLeaderServer()).peer;
    }

    public List<QuorumPeer> getFollowerQuorumPeers() {
        List<QuorumPeer> followers = new ArrayList<>();
        for (PeerStruct member : peers.values()) {
            if (!mode(member).equals("leader")) {
                followers.add(member.peer);
            }
        }
        return followers;
    }

    public int getLeaderServer() {
        int leader = peers.values().stream().filter(member -> mode(member).equals("leader")).mapToInt(member -> member.id).findFirst().orElse(0);
        assertTrue(leader > 0, "Leader server not found.");
        return leader;
    }

    public boolean leaderExists() {
        return peers.values().stream().anyMatch(member -> mode(member).equals("leader"));
    }

    public void tearDown() throws Exception {
        shutdownAll();
    }
}
