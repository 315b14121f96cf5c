package paddock.conformance;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.apache.zookeeper.server.ServerCnxn;
import org.apache.zookeeper.server.ZooKeeperServer;

/**
 * The listener that Hadoop's tests start their embedded server behind: one server process, or an ensemble of them
 * ({@code -Dconformance.members=3}), behind the address that the test knows. A test that stops its server and starts it
 * again finds the same ports and data.
 */
public final class EnsembleCnxnFactory extends ExternalServerCnxnFactory {

    private static final int MEMBERS = Integer.getInteger("conformance.members", 1);
    private static final long START_MILLIS = 60_000;

    /** By data folder: a test that starts its server anew makes a new listener for the same folder. */
    private static final Map<Path, int[]> PORTS = new TreeMap<>();

    private final List<ServerProcess> processes = new ArrayList<>();
    private OutsideServer outside;
    private Relay relay;

    @Override
    public void startup(ZooKeeperServer zks, boolean startServer) throws IOException, InterruptedException {
        Path folder = zks.getTxnLogFactory().getSnapDir().toPath().getParent().toAbsolutePath();
        int[] ports = PORTS.get(folder);
        if (ports == null) {
            ports = new int[3 * MEMBERS];
            for (int i = 0; i < ports.length; i++) {
                ports[i] = ServerProcess.freePort();
            }
            PORTS.put(folder, ports);
        }
        List<InetSocketAddress> addresses = new ArrayList<>();
        for (int i = 0; i < MEMBERS; i++) {
            Path data = Files.createDirectories(folder.resolve("member-" + (i + 1)));
            Map<String, String> settings = new TreeMap<>();
            settings.put("dataDir", data.toString());
            settings.put("clientPort", Integer.toString(ports[3 * i]));
            settings.put("clientPortAddress", "127.0.0.1");
            settings.put("maxClientCnxns", "0");
            settings.put("tickTime", Integer.toString(zks.getTickTime()));
            settings.put("admin.enableServer", "false");
            settings.put("4lw.commands.whitelist", "*");
            if (MEMBERS > 1) {
                Files.writeString(data.resolve("myid"), (i + 1) + "\n");
                settings.put("initLimit", "10");
                settings.put("syncLimit", "5");
                for (int other = 0; other < MEMBERS; other++) {
                    settings.put("server." + (other + 1), "127.0.0.1:" + ports[3 * other + 1] + ":" + ports[3 * other + 2]);
                }
            }
            processes.add(ServerProcess.launch(settings));
            addresses.add(new InetSocketAddress("127.0.0.1", ports[3 * i]));
        }
        for (ServerProcess process : processes) {
            process.awaitServing(START_MILLIS);
        }
        outside = new OutsideServer(addresses.stream().map(a -> a.getHostString() + ":" + a.getPort()).collect(Collectors.joining(",")));
        setZooKeeperServer(outside);
        relay = new Relay(getLocalAddress(), addresses);
    }

    @Override
    public void shutdown() {
        if (relay == null) {
            return;
        }
        outside.stopReading();
        try {
            relay.close();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        relay = null;
        processes.parallelStream().forEach(ServerProcess::stop);
        processes.clear();
    }

    @Override
    public void closeAll(ServerCnxn.DisconnectReason reason) {
        relay.dropAll();
    }
}
