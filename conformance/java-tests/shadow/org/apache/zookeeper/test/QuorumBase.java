package org.apache.zookeeper.test;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.TestableZooKeeper;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.server.Request;
import org.apache.zookeeper.server.ZKDatabase;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.apache.zookeeper.server.persistence.FileTxnLog;
import org.apache.zookeeper.server.persistence.FileTxnSnapLog;
import org.apache.zookeeper.server.persistence.TxnLog;
import org.apache.zookeeper.server.quorum.Leader.Proposal;
import org.apache.zookeeper.server.quorum.QuorumPeer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import paddock.conformance.ExternalPeer;
import paddock.conformance.ServerProcess;

/**
 * Stands before the class of this name in ZooKeeper's tests, which starts five servers inside the JVM: here they are
 * five processes. What tests ask the server objects for is answered from outside: who leads by {@code srvr}, and the
 * committed log from the files of the server's log. The file with which upstream breaks ties between two servers is not
 * configured: with five there are none.
 */
public class QuorumBase extends ClientBase {

    private static final int SERVERS = 5;
    private static final long START_MILLIS = 60_000;
    private static final int TICK_MILLIS = 2000;

    protected static final String LOCALADDR = "127.0.0.1";

    File s1dir;
    File s2dir;
    File s3dir;
    File s4dir;
    File s5dir;
    QuorumPeer s1;
    QuorumPeer s2;
    QuorumPeer s3;
    QuorumPeer s4;
    QuorumPeer s5;
    protected int portClient1;
    protected int portClient2;
    protected int portClient3;
    protected int portClient4;
    protected int portClient5;

    protected boolean localSessionsEnabled = false;
    protected boolean localSessionsUpgradingEnabled = false;

    private boolean withObservers;
    private final File[] folders = new File[SERVERS];
    private final int[] clientPorts = new int[SERVERS];
    /** Between peers: for the quorum, for elections. */
    private final String[] addresses = new String[SERVERS];

    @BeforeEach
    @Override
    public void setUp() throws Exception {
        setUp(false, true);
    }

    protected void setUp(boolean withObservers, boolean withOracle) throws Exception {
        // Some tests set up twice.
        shutdownServers();
        setupTestEnv();
        setUpAll();
        StringBuilder hosts = new StringBuilder();
        for (int i = 0; i < SERVERS; i++) {
            folders[i] = createTmpDir();
            addresses[i] = LOCALADDR + ":" + ServerProcess.freePort() + ":" + ServerProcess.freePort();
            clientPorts[i] = ServerProcess.freePort();
            hosts.append(i == 0 ? "" : ",").append(LOCALADDR + ":").append(clientPorts[i]);
        }
        hostPort = hosts.toString();
        s1dir = folders[0];
        s2dir = folders[1];
        s3dir = folders[2];
        s4dir = folders[3];
        s5dir = folders[4];
        portClient1 = clientPorts[0];
        portClient2 = clientPorts[1];
        portClient3 = clientPorts[2];
        portClient4 = clientPorts[3];
        portClient5 = clientPorts[4];
        startServers(withObservers, withOracle);
        // Something for every log, so that a log in which a test finds nothing was read.
        try (ZooKeeper client = createClient()) {
            for (int tries = 1; client.exists("/started", false) == null; tries++) {
                try {
                    client.create("/started", new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                } catch (KeeperException.ConnectionLossException e) {
                    // On a busy machine a server may fall back behind its start.
                    assertTrue(tries < 3, "connections are lost again and again");
                }
            }
        }
    }

    void startServers() throws Exception {
        startServers(false, true);
    }

    void startServers(boolean withObservers, boolean withOracle) throws Exception {
        this.withObservers = withObservers;
        setupServers();
        for (QuorumPeer peer : getPeerList()) {
            peer.start();
        }
        for (String address : hostPort.split(",")) {
            assertTrue(waitForServerUp(address, START_MILLIS), address + " is not up");
        }
    }

    public void setupServers() throws IOException {
        for (int id = 1; id <= SERVERS; id++) {
            setupServer(id);
        }
    }

    public void setupServer(int id) throws IOException {
        Peer peer = new Peer(id);
        switch (id) {
        case 1:
            s1 = peer;
            break;
        case 2:
            s2 = peer;
            break;
        case 3:
            s3 = peer;
            break;
        case 4:
            s4 = peer;
            break;
        default:
            s5 = peer;
        }
    }

    @AfterEach
    @Override
    public void tearDown() throws Exception {
        shutdownServers();
    }

    public void shutdownServers() {
        getPeerList().forEach(QuorumBase::shutdown);
    }

    public static void shutdown(QuorumPeer peer) {
        if (peer != null) {
            peer.shutdown();
        }
    }

    public ArrayList<QuorumPeer> getPeerList() {
        ArrayList<QuorumPeer> peers = new ArrayList<>();
        peers.add(s1);
        peers.add(s2);
        peers.add(s3);
        peers.add(s4);
        peers.add(s5);
        return peers;
    }

    /** Which of the servers leads, from 0; -1 when none does. */
    public int getLeaderIndex() {
        return indexOf(QuorumPeer.ServerState.LEADING);
    }

    private int indexOf(QuorumPeer.ServerState state) {
        List<QuorumPeer> peers = getPeerList();
        for (int i = 0; i < SERVERS; i++) {
            if (peers.get(i).getPeerState() == state) {
                return i;
            }
        }
        return -1;
    }

    public int getLeaderClientPort() {
        int leader = getLeaderIndex();
        return leader < 0 ? -1 : clientPorts[leader];
    }

    public QuorumPeer getLeaderQuorumPeer() {
        int leader = getLeaderIndex();
        return leader < 0 ? null : getPeerList().get(leader);
    }

    public File getLeaderDataDir() {
        int leader = getLeaderIndex();
        return leader < 0 ? null : folders[leader];
    }

    public QuorumPeer getFirstObserver() {
        int observer = indexOf(QuorumPeer.ServerState.OBSERVING);
        return observer < 0 ? null : getPeerList().get(observer);
    }

    public int getFirstObserverClientPort() {
        int observer = indexOf(QuorumPeer.ServerState.OBSERVING);
        return observer < 0 ? -1 : clientPorts[observer];
    }

    /** Their addresses, with a comma behind each. */
    public String getPeersMatching(QuorumPeer.ServerState state) {
        StringBuilder hosts = new StringBuilder();
        List<QuorumPeer> peers = getPeerList();
        for (int i = 0; i < SERVERS; i++) {
            if (peers.get(i).getPeerState() == state) {
                hosts.append(LOCALADDR + ":").append(clientPorts[i]).append(',');
            }
        }
        return hosts.toString();
    }

    public QuorumPeer getPeerByClientPort(int clientPort) {
        for (int i = 0; i < SERVERS; i++) {
            if (clientPorts[i] == clientPort) {
                return getPeerList().get(i);
            }
        }
        return null;
    }

    protected TestableZooKeeper createClient() throws IOException, InterruptedException {
        return createClient(hostPort);
    }

    protected TestableZooKeeper createClient(String address) throws IOException, InterruptedException {
        return createClient(new CountdownWatcher(), address);
    }

    protected TestableZooKeeper createClient(CountdownWatcher watcher, QuorumPeer.ServerState state)
        throws IOException, InterruptedException {
        return createClient(watcher, getPeersMatching(state));
    }

    /** The zoo.cfg of one member. */
    private Map<String, String> settings(int id) {
        Map<String, String> settings = new TreeMap<>();
        settings.put("dataDir", folders[id - 1].getAbsolutePath());
        settings.put("clientPort", Integer.toString(clientPorts[id - 1]));
        settings.put("clientPortAddress", LOCALADDR);
        settings.put("tickTime", Integer.toString(TICK_MILLIS));
        // More than the three ticks of the embedded servers: five processes share few cores.
        settings.put("initLimit", "10");
        settings.put("syncLimit", "5");
        settings.put("admin.enableServer", "false");
        settings.put("localSessionsEnabled", Boolean.toString(localSessionsEnabled));
        settings.put("localSessionsUpgradingEnabled", Boolean.toString(localSessionsUpgradingEnabled));
        // A static field in the servers of a JVM.
        settings.put("enableEagerACLCheck", Boolean.toString(ExternalPeer.checksAclsEagerly()));
        for (int other = 1; other <= SERVERS; other++) {
            String part = withObservers && other > 3 ? "observer" : "participant";
            String client = ";" + LOCALADDR + ":" + clientPorts[other - 1];
            settings.put("server." + other, addresses[other - 1] + ":" + part + client);
        }
        if (withObservers && id > 3) {
            settings.put("peerType", "observer");
        }
        return settings;
    }

    private final class Peer extends ExternalPeer {

        private final int id;
        private final Path folder;
        private final Path config;

        Peer(int id) throws IOException {
            this(id, folders[id - 1].toPath().resolve("zoo.cfg"));
        }

        private Peer(int id, Path config) throws IOException {
            super(id, config);
            this.id = id;
            this.config = config;
            folder = config.getParent();
            Files.writeString(folder.resolve("myid"), id + "\n");
            StringBuilder text = new StringBuilder();
            settings(id).forEach((key, value) -> text.append(key).append('=').append(value).append('\n'));
            Files.writeString(config, text);
        }

        @Override
        public synchronized void start() {
            try {
                is(ServerProcess.launch(settings(id), config));
                refreshAlways();
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        @Override
        public InetSocketAddress getClientAddress() {
            return new InetSocketAddress(LOCALADDR, clientPorts[id - 1]);
        }

        @Override
        public LearnerType getLearnerType() {
            return withObservers && id > 3 ? LearnerType.OBSERVER : LearnerType.PARTICIPANT;
        }

        @Override
        public FileTxnSnapLog getTxnFactory() {
            try {
                return new FileTxnSnapLog(folder.toFile(), folder.toFile());
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }

        /** It knows its process's committed log and what that has in hand, and nothing else. */
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
            ZooKeeperServer server = new ZooKeeperServer() {
                @Override
                public int getInProcess() {
                    return Integer.parseInt(told("Outstanding"));
                }
            };
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
