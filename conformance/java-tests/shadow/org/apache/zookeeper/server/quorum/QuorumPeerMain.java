package org.apache.zookeeper.server.quorum;

import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import javax.security.sasl.SaslException;
import org.apache.zookeeper.server.admin.AdminServer.AdminServerException;
import org.apache.zookeeper.server.quorum.QuorumPeerConfig.ConfigException;
import paddock.conformance.ExternalPeer;
import paddock.conformance.ServerProcess;

/**
 * Stands before the class of this name, which the threads of {@code QuorumPeerTestBase} run: the server of that zoo.cfg is a
 * process. It edits that file itself, and tests look at what becomes of it.
 */
public class QuorumPeerMain {

    protected QuorumPeer quorumPeer;

    protected void initializeAndRun(String[] args) throws ConfigException, IOException, AdminServerException {
        Path config = Path.of(args[0]);
        Properties settings = new Properties();
        try (Reader reader = Files.newBufferedReader(config)) {
            settings.load(reader);
        }
        provide(config, settings, "reconfigEnabled", Boolean.toString(QuorumPeerConfig.isReconfigEnabled()));
        provide(config, settings, "standaloneEnabled", Boolean.toString(QuorumPeerConfig.isStandaloneEnabled()));
        long id = Long.parseLong(Files.readString(Path.of(settings.getProperty("dataDir"), "myid")).trim());
        ExternalPeer peer = peer(id, config);
        ServerProcess process = ServerProcess.launch(config);
        peer.is(process);
        quorumPeer = peer;
        peer.refreshAlways();
        try {
            process.awaitEnd();
        } catch (InterruptedException e) {
            process.stop();
        }
    }

    /** What a test has set in its JVM, for a process to know. */
    private static void provide(Path config, Properties settings, String key, String value) throws IOException {
        if (!settings.containsKey(key)) {
            Files.writeString(config, key + "=" + value + "\n" + Files.readString(config));
        }
    }

    private static ExternalPeer peer(long id, Path config) throws IOException {
        try {
            return new ExternalPeer(id, config);
        } catch (SaslException e) {
            throw new IOException("no SASL is configured", e);
        }
    }

    public void close() {
        if (quorumPeer != null) {
            quorumPeer.shutdown();
        }
    }

    @Override
    public String toString() {
        return quorumPeer == null ? "" : quorumPeer.toString();
    }
}
