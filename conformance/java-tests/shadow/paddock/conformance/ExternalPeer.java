package paddock.conformance;

import java.io.IOException;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import javax.security.sasl.SaslException;
import org.apache.zookeeper.server.quorum.Follower;
import org.apache.zookeeper.server.quorum.Leader;
import org.apache.zookeeper.server.quorum.Observer;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import org.apache.zookeeper.server.quorum.flexible.QuorumVerifier;
import org.mockito.Mockito;

/**
 * What tests take for the server in their JVM, and is a process. It is never run. What it is asked for comes from outside:
 * its part from {@code srvr}, the members and their addresses from the files that the server writes.
 */
public class ExternalPeer extends ReleasePeer {

    // What tests compare with null.
    private static final Leader LEADER = Mockito.mock(Leader.class);
    private static final Follower FOLLOWER = Mockito.mock(Follower.class);

    private final long id;
    private final Path config;
    private final Observer asObserver = Mockito.mock(Observer.class);
    private volatile ServerProcess process;
    private QuorumServer last;

    /**
     * @param id the server's number
     * @param config its zoo.cfg
     */
    public ExternalPeer(long id, Path config) throws SaslException {
        this.id = id;
        this.config = config;
        // Tests ask it which port of the server that it learns from it is connected to.
        Mockito.when(asObserver.getSocket()).thenReturn(new Socket() {
            @Override
            public int getPort() {
                return learnsFrom();
            }
        });
    }

    private int configuredTick() {
        try {
            return Integer.parseInt(read(config).getProperty("tickTime", "3000").trim());
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The port of an observers' master or of the leader that the process has a connection to; -1 when there is none. */
    private int learnsFrom() {
        try {
            Set<Integer> ports = new HashSet<>();
            String masters = read(config).getProperty("observerMasterPort");
            if (masters != null) {
                ports.add(Integer.parseInt(masters.trim()));
            }
            getView().values().forEach(member -> ports.addAll(quorumPorts(member)));
            ServerProcess now = process;
            return now == null ? -1 : now.connectedTo().stream().filter(ports::contains).findFirst().orElse(-1);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The process that it is from now on; null when there is none. */
    public void is(ServerProcess process) {
        this.process = process;
        if (process != null) {
            tickTime = configuredTick(); // a field that is read without asking
        }
        refresh();
    }

    /** Looks what part the process has now, for those that read the fields. */
    public final void refresh() {
        String mode = mode();
        leader = mode.equals("leader") || mode.equals("standalone") ? LEADER : null;
        follower = mode.equals("follower") ? FOLLOWER : null;
        observer = mode.equals("observer") ? asObserver : null;
    }

    /** Looks again and again, until the process ends. */
    public void refreshAlways() {
        Thread thread = new Thread(() -> {
            for (ServerProcess now = process; now != null && now.isAlive(); now = process) {
                refresh();
                try {
                    Thread.sleep(100);
                } catch (InterruptedException e) {
                    return;
                }
            }
        }, "part-of-" + id);
        thread.setDaemon(true);
        thread.start();
    }

    /** `leader`, `follower`, ...; empty while the process does not serve. */
    public String mode() {
        return told("Mode");
    }

    /** What `srvr` says behind this word; empty while the process does not serve. */
    protected final String told(String word) {
        ServerProcess now = process;
        String answer = now == null ? "" : now.fourLetter("srvr");
        String start = word + ": ";
        return answer.lines().filter(line -> line.startsWith(start)).findFirst().map(line -> line.substring(start.length())).orElse("");
    }

    /** The last that it made part of its tree, which at rest is the last of its log. */
    @Override
    public long getLastLoggedZxid() {
        String zxid = told("Zxid");
        return zxid.isEmpty() ? -1 : Long.parseUnsignedLong(zxid.substring(2), 16);
    }

    /** From 3.6 on it overrides. */
    public long getMyId() {
        return id;
    }

    /** What it says that it is configured with; -1 while it does not answer. */
    private int configured(String key) {
        ServerProcess now = process;
        String answer = now == null ? "" : now.fourLetter("conf");
        return answer.lines().filter(line -> line.startsWith(key + "=")).findFirst()
            .map(line -> Integer.parseInt(line.substring(key.length() + 1))).orElse(-1);
    }

    @Override
    public int getTickTime() {
        return configured("tickTime");
    }

    @Override
    public int getMinSessionTimeout() {
        return configured("minSessionTimeout");
    }

    @Override
    public int getMaxSessionTimeout() {
        return configured("maxSessionTimeout");
    }

    @Override
    public synchronized ServerState getPeerState() {
        switch (mode()) {
        case "leader":
            return ServerState.LEADING;
        case "follower":
            return ServerState.FOLLOWING;
        case "observer":
            return ServerState.OBSERVING;
        default:
            return ServerState.LOOKING;
        }
    }

    @Override
    public boolean isRunning() {
        ServerProcess now = process;
        return now != null && now.isAlive();
    }

    private static Properties read(Path file) throws IOException {
        Properties properties = new Properties();
        try (Reader reader = Files.newBufferedReader(file)) {
            properties.load(reader);
        }
        return properties;
    }

    /** Of the configuration that the server wrote last, or was given. */
    @Override
    public QuorumVerifier getQuorumVerifier() {
        try {
            Properties properties = read(config);
            String dynamic = properties.getProperty("dynamicConfigFile");
            String version = "0";
            if (dynamic != null) {
                String backup = properties.getProperty("clientPort");
                properties = read(Path.of(dynamic));
                if (backup != null) {
                    properties.putIfAbsent("clientPort", backup);
                }
                if (dynamic.matches(".*\\.dynamic\\.[0-9a-f]+")) {
                    version = dynamic.substring(dynamic.lastIndexOf('.') + 1);
                }
            }
            Properties members = new Properties();
            for (String key : properties.stringPropertyNames()) {
                if (key.startsWith("server.") || key.startsWith("group") || key.startsWith("weight")) {
                    members.setProperty(key, properties.getProperty(key));
                }
            }
            QuorumVerifier verifier = parse(members);
            verifier.setVersion(Long.parseLong(properties.getProperty("version", version), 16));
            return verifier;
        } catch (IOException | QuorumPeerConfig.ConfigException e) {
            throw new IllegalStateException("the files of server " + id + " cannot be read", e);
        }
    }

    @Override
    public QuorumVerifier getLastSeenQuorumVerifier() {
        return getQuorumVerifier();
    }

    @Override
    public Map<Long, QuorumServer> getView() {
        return getQuorumVerifier().getAllMembers();
    }

    /** Itself; as it was, when it is no member any more. */
    @Override
    QuorumServer itself() {
        QuorumServer now = getView().get(id);
        last = now == null ? last : now;
        return last;
    }

    @Override
    public int getClientPort() {
        return itself().clientAddr.getPort();
    }

    @Override
    public String getNextDynamicConfigFilename() {
        return config + ".dynamic.next";
    }

    /** Apache's server keeps it in a file; ours tells the epoch of its history, which is the same at rest. */
    @Override
    public long getAcceptedEpoch() throws IOException {
        Path file = Path.of(read(config).getProperty("dataDir"), "version-2", "acceptedEpoch");
        if (Files.exists(file)) {
            return Long.parseLong(Files.readString(file).trim());
        }
        return process.fourLetter("mntr").lines().filter(line -> line.startsWith("zk_paddock_epoch\t")).findFirst()
            .map(line -> Long.parseLong(line.substring(line.indexOf('\t') + 1).trim())).orElse(-1L);
    }

    @Override
    public void shutdown() {
        ServerProcess now = process;
        process = null;
        if (now != null) {
            now.stop();
        }
        refresh();
    }
}
