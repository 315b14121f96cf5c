package paddock.conformance;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
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
    private static final Observer OBSERVER = Mockito.mock(Observer.class);

    private final long id;
    private final Path config;
    private volatile ServerProcess process;
    private QuorumServer last;

    /**
     * @param id the server's number
     * @param config its zoo.cfg
     */
    public ExternalPeer(long id, Path config) throws SaslException {
        this.id = id;
        this.config = config;
    }

    /** The process that it is from now on; null when there is none. */
    public void is(ServerProcess process) {
        this.process = process;
        refresh();
    }

    /** Looks what part the process has now, for those that read the fields. */
    public final void refresh() {
        String mode = mode();
        leader = mode.equals("leader") || mode.equals("standalone") ? LEADER : null;
        follower = mode.equals("follower") ? FOLLOWER : null;
        observer = mode.equals("observer") ? OBSERVER : null;
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
        ServerProcess now = process;
        String answer = now == null ? "" : now.fourLetter("srvr");
        return answer.lines().filter(line -> line.startsWith("Mode: ")).findFirst().map(line -> line.substring(6)).orElse("");
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
