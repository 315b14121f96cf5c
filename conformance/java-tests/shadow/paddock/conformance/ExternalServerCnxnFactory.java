package paddock.conformance;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.zookeeper.server.ServerCnxn;
import org.apache.zookeeper.server.SyncRequestProcessor;
import org.apache.zookeeper.server.ZooKeeperServer;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;

/**
 * The listener that ZooKeeper's tests start their embedded server behind ({@code -Dzookeeper.serverCnxnFactory}), which
 * starts a server process instead: same address, same data folder, same tick and session limits. The test's
 * {@link ZooKeeperServer} object is never started; what a test reads out of it is empty.
 */
public class ExternalServerCnxnFactory extends ReleaseCnxnFactory {

    private static final long START_MILLIS = 30_000;
    private static final int DEFAULT_SNAP_COUNT = 100_000;

    private InetSocketAddress address;
    private int maxPerHost;
    private ServerProcess process;

    @Override
    void listenAt(InetSocketAddress addr, int maxcc, boolean secure) throws IOException {
        if (secure) {
            throw new IOException("a TLS listener is not part of this suite");
        }
        int port = addr.getPort() == 0 ? ServerProcess.freePort() : addr.getPort();
        boolean any = addr.getAddress() == null || addr.getAddress().isAnyLocalAddress();
        address = any ? new InetSocketAddress("127.0.0.1", port) : new InetSocketAddress(addr.getAddress(), port);
        maxPerHost = maxcc;
    }

    @Override
    public void startup(ZooKeeperServer zks, boolean startServer) throws IOException, InterruptedException {
        setZooKeeperServer(zks);
        if (!startServer) {
            return;
        }
        Map<String, String> settings = new TreeMap<>();
        // The transaction log object names the version-2 folder; a configuration names its parent.
        Path data = zks.getTxnLogFactory().getSnapDir().toPath().getParent();
        Path log = logFolder(zks.getTxnLogFactory()).toPath().getParent();
        settings.put("dataDir", data.toAbsolutePath().toString());
        if (!log.equals(data)) {
            settings.put("dataLogDir", log.toAbsolutePath().toString());
        }
        settings.put("clientPort", Integer.toString(address.getPort()));
        // Java appends the interface to a link's own IPv6 address (::1%lo), which nobody writes in a zoo.cfg.
        settings.put("clientPortAddress", address.getAddress().getHostAddress().split("%")[0]);
        settings.put("maxClientCnxns", Integer.toString(Math.max(0, maxPerHost)));
        settings.put("tickTime", Integer.toString(zks.getTickTime()));
        settings.put("minSessionTimeout", Integer.toString(zks.getMinSessionTimeout()));
        settings.put("maxSessionTimeout", Integer.toString(zks.getMaxSessionTimeout()));
        // Some tests want frequent snapshots and say so in a static field of the embedded server.
        if (SyncRequestProcessor.getSnapCount() != DEFAULT_SNAP_COUNT) {
            settings.put("snapCount", Integer.toString(SyncRequestProcessor.getSnapCount()));
        }
        // Likewise that it may be asked to change its members.
        if (QuorumPeerConfig.isReconfigEnabled()) {
            settings.put("reconfigEnabled", "true");
        }
        process = ServerProcess.start(settings, START_MILLIS);
    }

    @Override
    public void shutdown() {
        if (process != null) {
            process.stop();
            process = null;
        }
    }

    @Override
    public void start() {
    }

    @Override
    public void join() throws InterruptedException {
        while (process != null && process.isAlive()) {
            Thread.sleep(50);
        }
    }

    @Override
    public int getLocalPort() {
        return address.getPort();
    }

    @Override
    public InetSocketAddress getLocalAddress() {
        return address;
    }

    @Override
    public int getMaxClientCnxnsPerHost() {
        return maxPerHost;
    }

    @Override
    public void setMaxClientCnxnsPerHost(int max) {
        maxPerHost = max;
        if (process == null) {
            return;
        }
        // A process takes the limit from its configuration, so it starts again with the new one.
        try {
            shutdown();
            startup(zkServer, true);
        } catch (IOException e) {
            throw new IllegalStateException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public Iterable<ServerCnxn> getConnections() {
        return List.of();
    }

    @Override
    public Iterable<Map<String, Object>> getAllConnectionInfo(boolean brief) {
        return List.of();
    }

    @Override
    public void reconfigure(InetSocketAddress addr) {
        throw new UnsupportedOperationException("the server runs in another process");
    }

    @Override
    public void resetAllConnectionStats() {
    }
}
