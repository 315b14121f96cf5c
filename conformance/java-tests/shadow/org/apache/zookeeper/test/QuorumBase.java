package org.apache.zookeeper.test;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import javax.security.sasl.SaslException;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.server.Request;
import org.apache.zookeeper.server.ZKDatabase;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.apache.zookeeper.server.persistence.FileTxnLog;
import org.apache.zookeeper.server.persistence.TxnLog;
import org.apache.zookeeper.server.quorum.Leader.Proposal;
import org.apache.zookeeper.server.quorum.QuorumPeer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import paddock.conformance.ServerProcess;

/**
 * Stands before the class of this name in ZooKeeper's tests, which starts five servers inside the JVM: here they are
 * five processes. What tests ask the server objects for is answered from outside: who leads by {@code srvr}, and the
 * committed log from the files of the server's log.
 */
public class QuorumBase extends ClientBase {

    private static final int SERVERS = 5;
    private static final long START_MILLIS = 60_000;
    private static final int TICK_MILLIS = 2000;

    protected boolean localSessionsEnabled = false;
    protected boolean localSessionsUpgradingEnabled = false;

    private final List<ServerProcess> servers = new ArrayList<>();
    private final List<Path> folders = new ArrayList<>();

    @BeforeEach
    @Override
    public void setUp() throws Exception {
        setupTestEnv();
        setUpAll();
        List<String> addresses = new ArrayList<>();
        StringBuilder hosts = new StringBuilder();
        int[] clientPorts = new int[SERVERS];
        for (int i = 0; i < SERVERS; i++) {
            addresses.add("127.0.0.1:" + ServerProcess.freePort() + ":" + ServerProcess.freePort());
            clientPorts[i] = ServerProcess.freePort();
            hosts.append(i == 0 ? "" : ",").append("127.0.0.1:").append(clientPorts[i]);
        }
        hostPort = hosts.toString();
        for (int i = 0; i < SERVERS; i++) {
            File folder = createTmpDir();
            Files.writeString(folder.toPath().resolve("myid"), (i + 1) + "\n");
            folders.add(folder.toPath());
            Map<String, String> settings = new TreeMap<>();
            settings.put("dataDir", folder.getAbsolutePath());
            settings.put("clientPort", Integer.toString(clientPorts[i]));
            settings.put("clientPortAddress", "127.0.0.1");
            settings.put("tickTime", Integer.toString(TICK_MILLIS));
            // More than the three ticks of the embedded servers: five processes share few cores.
            settings.put("initLimit", "10");
            settings.put("syncLimit", "5");
            settings.put("admin.enableServer", "false");
            settings.put("localSessionsEnabled", Boolean.toString(localSessionsEnabled));
            settings.put("localSessionsUpgradingEnabled", Boolean.toString(localSessionsUpgradingEnabled));
            for (int other = 0; other < SERVERS; other++) {
                settings.put("server." + (other + 1), addresses.get(other));
            }
            servers.add(ServerProcess.launch(settings));
        }
        for (ServerProcess server : servers) {
            server.awaitServing(START_MILLIS);
        }
        // Something for every log, so that a log in which a test finds nothing was read.
        try (ZooKeeper client = createClient()) {
            client.create("/started", new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
    }

    @AfterEach
    @Override
    public void tearDown() throws Exception {
        shutdownServers();
    }

    public void shutdownServers() {
        servers.forEach(ServerProcess::stop);
        servers.clear();
    }

    /** What tests that start servers themselves end them with. */
    public static void shutdown(QuorumPeer peer) {
        if (peer != null) {
            peer.shutdown();
        }
    }

    /** Which of the servers leads, from 0; -1 when none does. */
    public int getLeaderIndex() {
        for (int i = 0; i < servers.size(); i++) {
            if (servers.get(i).fourLetter("srvr").contains("Mode: leader")) {
                return i;
            }
        }
        return -1;
    }

    /** Stand-ins that know their server's committed log, and nothing else. */
    public ArrayList<QuorumPeer> getPeerList() {
        ArrayList<QuorumPeer> peers = new ArrayList<>();
        for (Path folder : folders) {
            peers.add(LoggedPeer.of(folder));
        }
        return peers;
    }

    private static final class LoggedPeer extends QuorumPeer {

        private final Path folder;

        private LoggedPeer(Path folder) throws SaslException {
            this.folder = folder;
        }

        static LoggedPeer of(Path folder) {
            try {
                return new LoggedPeer(folder);
            } catch (SaslException e) {
                throw new IllegalStateException("no SASL is configured", e);
            }
        }

        @Override
        public synchronized ZooKeeperServer getActiveServer() {
            ZKDatabase database = new ZKDatabase(null) {
                @Override
                public synchronized List<Proposal> getCommittedLog() {
                    try {
                        return proposals(folder);
                    } catch (IOException e) {
                        throw new IllegalStateException(e);
                    }
                }
            };
            ZooKeeperServer server = new ZooKeeperServer();
            server.setZKDatabase(database);
            return server;
        }
    }

    private static List<Proposal> proposals(Path folder) throws IOException {
        Path apache = folder.resolve("version-2");
        List<long[]> logged = Files.isDirectory(apache) ? apacheLog(apache) : paddockLog(folder.resolve("paddock-log"));
        if (logged.isEmpty()) {
            throw new IOException("nothing is logged in " + folder + ", and something must be");
        }
        List<Proposal> proposals = new ArrayList<>();
        for (long[] txn : logged) {
            Request request = new Request(null, txn[0], 0, (int) txn[1], null, null);
            proposals.add(proposal(request));
        }
        return proposals;
    }

    /** Since 3.9 a constructor takes the request; before, it is a field that anyone may set. */
    private static Proposal proposal(Request request) throws IOException {
        try {
            for (Constructor<?> constructor : Proposal.class.getConstructors()) {
                if (constructor.getParameterCount() == 2) {
                    return (Proposal) constructor.newInstance(request, null);
                }
            }
            Proposal proposal = Proposal.class.getConstructor().newInstance();
            Proposal.class.getField("request").set(proposal, request);
            return proposal;
        } catch (ReflectiveOperationException e) {
            throw new IOException("a proposal of this release cannot be made", e);
        }
    }

    /** Session and type of each transaction. */
    private static List<long[]> apacheLog(Path folder) throws IOException {
        List<long[]> logged = new ArrayList<>();
        TxnLog.TxnIterator txns = new FileTxnLog(folder.toFile()).read(0);
        while (txns.getHeader() != null) {
            logged.add(new long[] {txns.getHeader().getClientId(), txns.getHeader().getType()});
            txns.next();
        }
        txns.close();
        return logged;
    }

    /**
     * The same out of Paddock's log: behind a page, records of length, kind (2 is a transaction), zxid and offset, then
     * the transaction and a checksum, each rounded up to eight bytes.
     */
    private static List<long[]> paddockLog(Path folder) throws IOException {
        List<long[]> logged = new ArrayList<>();
        List<Path> segments;
        try (Stream<Path> files = Files.list(folder)) {
            segments = files.filter(path -> path.toString().endsWith(".log")).sorted().toList();
        }
        for (Path segment : segments) {
            ByteBuffer bytes = ByteBuffer.wrap(Files.readAllBytes(segment)).order(ByteOrder.LITTLE_ENDIAN);
            int at = 4096;
            while (at + 24 <= bytes.limit() && bytes.get(at + 4) != 0) {
                int length = bytes.getInt(at);
                if (bytes.get(at + 4) == 2) {
                    ByteBuffer txn = bytes.slice(at + 20, length).order(ByteOrder.BIG_ENDIAN);
                    logged.add(new long[] {txn.getLong(0), txn.getInt(28)});
                }
                at += (20 + length + 4 + 7) / 8 * 8;
            }
        }
        return logged;
    }
}
