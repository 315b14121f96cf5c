package org.apache.zookeeper.server.embedded;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig;
import paddock.conformance.ServerProcess;

/**
 * Stands before ZooKeeper's class of this name, which the builder of {@link ZooKeeperServerEmbedded} makes. Curator's
 * TestingServer and TestingCluster start their servers through that builder; this one starts a process.
 */
class ZooKeeperServerEmbeddedImpl implements ZooKeeperServerEmbedded {

    private final Map<String, String> settings = new TreeMap<>();
    private ServerProcess process;

    ZooKeeperServerEmbeddedImpl(Properties configuration, Path baseDir, ExitHandler exitHandler) throws Exception {
        for (Map.Entry<Object, Object> entry : configuration.entrySet()) {
            settings.put(entry.getKey().toString(), entry.getValue().toString());
        }
        settings.putIfAbsent("dataDir", baseDir.resolve("data").toAbsolutePath().toString());
        if (settings.getOrDefault("clientPort", "0").equals("0")) {
            settings.put("clientPort", Integer.toString(ServerProcess.freePort()));
        }
        // Static fields in the servers of a JVM.
        if (QuorumPeerConfig.isReconfigEnabled()) {
            settings.putIfAbsent("reconfigEnabled", "true");
        }
        if (!QuorumPeerConfig.isStandaloneEnabled()) {
            settings.putIfAbsent("standaloneEnabled", "false");
        }
        if (!isMember()) {
            settings.putIfAbsent("clientPortAddress", "127.0.0.1");
        }
    }

    /** The member of an ensemble, whose own line may name the address for clients. */
    private boolean isMember() {
        return settings.keySet().stream().anyMatch(key -> key.startsWith("server."));
    }

    @Override
    public void start() throws Exception {
        start(60_000);
    }

    /** Waits until the server serves; a member, which may have to wait for others, until it answers at all. */
    @Override
    public void start(long startupTimeout) throws Exception {
        process = ServerProcess.launch(settings);
        if (isMember()) {
            process.awaitListening(startupTimeout);
        } else {
            process.awaitServing(startupTimeout);
        }
    }

    // The two ports are part of the interface from 3.9 on, and Hadoop's tests bring 3.8.
    public int getClientPort() {
        return Integer.parseInt(settings.get("clientPort"));
    }

    public int getSecureClientPort() {
        return 0;
    }

    @Override
    public String getConnectionString() {
        try {
            InetSocketAddress address = process.address();
            return address.getHostString() + ":" + address.getPort();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @Override
    public String getSecureConnectionString() {
        throw new IllegalStateException("no TLS listener is configured");
    }

    @Override
    public void close() {
        if (process != null) {
            process.stop();
            process = null;
        }
    }
}
