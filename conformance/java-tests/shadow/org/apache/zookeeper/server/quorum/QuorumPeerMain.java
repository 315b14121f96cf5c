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
        // Static fields in the servers of a JVM: what one of them has been told the next ones know.
        QuorumPeerConfig.setReconfigEnabled(told(config, settings, "reconfigEnabled", QuorumPeerConfig.isReconfigEnabled()));
        QuorumPeerConfig.setStandaloneEnabled(told(config, settings, "standaloneEnabled", QuorumPeerConfig.isStandaloneEnabled()));
        if (!ExternalPeer.closesSessionsByTxn()) {
            told(config, settings, "closeSessionTxn.enabled", false);
        }
        long id = Long.parseLong(Files.readString(Path.of(settings.getProperty("dataDir"), "myid")).trim());
        // First: a server can be up at once, and then it is looked for.
        ExternalPeer peer = isEnsemble(settings) ? peer(id, config) : null;
        quorumPeer = peer;
        ServerProcess process = ServerProcess.launch(config);
        if (peer != null) {
            peer.is(process);
            peer.refreshAlways();
        }
        try {
            process.awaitEnd();
        } catch (InterruptedException e) {
            process.stop();
        }
    }

    /** What the zoo.cfg says, or else what it is made to say. */
    private static boolean told(Path config, Properties settings, String key, boolean otherwise) throws IOException {
        if (!settings.containsKey(key)) {
            Files.writeString(config, key + "=" + otherwise + "\n" + Files.readString(config));
        }
        return Boolean.parseBoolean(settings.getProperty(key, Boolean.toString(otherwise)));
    }

    /** Otherwise there is no QuorumPeer, which tests look for. */
    private static boolean isEnsemble(Properties settings) throws IOException {
        Properties members = new Properties();
        members.putAll(settings);
        if (settings.containsKey("dynamicConfigFile")) {
            try (Reader reader = Files.newBufferedReader(Path.of(settings.getProperty("dynamicConfigFile")))) {
                members.load(reader);
            }
        }
        long count = members.stringPropertyNames().stream().filter(key -> key.startsWith("server.")).count();
        return count > 1 || count == 1 && !QuorumPeerConfig.isStandaloneEnabled();
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
