import java.io.BufferedReader;
import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.Channels;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.RetryForever;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/** What the programs here share: how they connect, print, and write to a storage that is fenced. */
final class Common {
    private static final int SESSION = 6000; // milliseconds
    private static final int CONNECTION = 3000;

    private Common() {}

    /** A client that never gives up: what fails for want of a connection is tried again for ever. */
    static CuratorFramework connect(String hosts) {
        CuratorFramework client = CuratorFrameworkFactory.newClient(hosts, SESSION, CONNECTION, new RetryForever(100));
        Runtime.getRuntime().addShutdownHook(new Thread(client::close));
        client.start();
        return client;
    }

    /** Creates the node, empty, if it is not there. */
    static void ensure(CuratorFramework client, String path) throws Exception {
        try {
            client.create().creatingParentsIfNeeded().forPath(path, new byte[0]);
        } catch (KeeperException.NodeExistsException there) {
            // As wanted.
        }
    }

    static long session(CuratorFramework client) throws Exception {
        return client.getZookeeperClient().getZooKeeper().getSessionId();
    }

    /** Returns when the server we are at has all that the leader has. Curator always does this in the background. */
    static void sync(CuratorFramework client, String path) throws Exception {
        while (true) {
            CountDownLatch done = new CountDownLatch(1);
            boolean[] synced = new boolean[1];
            client.sync().inBackground((self, event) -> {
                synced[0] = event.getResultCode() == 0;
                done.countDown();
            }).forPath(path);
            if (done.await(5, TimeUnit.SECONDS) && synced[0]) {
                return;
            }
        }
    }

    /** The zxid that created our ephemeral node, as the leader sees it; -1 when the node is gone or another session's. */
    static long token(CuratorFramework client, String node) throws Exception {
        sync(client, node);
        Stat stat = client.checkExists().forPath(node);
        return stat != null && stat.getEphemeralOwner() == session(client) ? stat.getCzxid() : -1;
    }

    static void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object word : words) {
            line.append(line.length() == 0 ? "" : " ").append(word);
        }
        // In one piece, so that the lines of several processes do not mix.
        byte[] bytes = line.append('\n').toString().getBytes(StandardCharsets.UTF_8);
        System.out.write(bytes, 0, bytes.length);
        System.out.flush();
    }

    /** The storage has seen a higher token: whoever writes has been replaced. */
    static final class Stale extends Exception {}

    /** What a lock protects. It remembers the highest token it was shown, and refuses a lower one. */
    static final class Storage {
        private final SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
        private final BufferedReader answers;

        Storage(String address) throws IOException {
            channel.connect(UnixDomainSocketAddress.of(address));
            answers = new BufferedReader(Channels.newReader(channel, StandardCharsets.UTF_8));
        }

        void write(long token, String text) throws IOException, Stale {
            channel.write(ByteBuffer.wrap((token + " " + text + "\n").getBytes(StandardCharsets.UTF_8)));
            if (!"ok".equals(answers.readLine())) {
                throw new Stale();
            }
        }
    }
}
