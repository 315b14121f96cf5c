package paddock.conformance;

import java.io.IOException;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.ZKDatabase;
import org.apache.zookeeper.server.ZooKeeperServer;

/**
 * What Hadoop's tests take for the server inside their JVM, and ask two things: the data of a node whatever its ACL, and
 * that a session ends. Here clients do both: the super user reads, and a session is taken over by its id and its password
 * (which the servers compute from the id) and closed.
 */
final class OutsideServer extends ZooKeeperServer {

    static final String SUPER_USER = "super:test";

    private static final long PASSWORD_SECRET = 0xB3415C00L;
    private static final int SESSION_MILLIS = 30_000;
    private static final long PATIENCE_MILLIS = 20_000;

    private final String servers;
    private ZooKeeper reader;

    OutsideServer(String servers) {
        this.servers = servers;
    }

    @Override
    public void closeSession(long session) {
        byte[] password = new byte[16];
        new Random(session ^ PASSWORD_SECRET).nextBytes(password);
        CountDownLatch decided = new CountDownLatch(1);
        try {
            ZooKeeper taken = new ZooKeeper(servers, SESSION_MILLIS, event -> {
                if (event.getState() == KeeperState.SyncConnected || event.getState() == KeeperState.Expired) {
                    decided.countDown();
                }
            }, session, password);
            boolean done = decided.await(PATIENCE_MILLIS, TimeUnit.MILLISECONDS);
            taken.close();
            if (!done) {
                throw new IllegalStateException("session 0x" + Long.toHexString(session) + " could not be taken over");
            }
        } catch (IOException e) {
            throw new IllegalStateException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public ZKDatabase getZKDatabase() {
        return new ZKDatabase(null) {
            @Override
            public byte[] getData(String path, Stat stat, Watcher watcher) throws KeeperException.NoNodeException {
                return read(path, stat);
            }

            @Override
            public void close() {
                stopReading();
            }
        };
    }

    private synchronized byte[] read(String path, Stat stat) throws KeeperException.NoNodeException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(PATIENCE_MILLIS);
        while (true) {
            try {
                if (reader == null) {
                    reader = new ZooKeeper(servers, SESSION_MILLIS, event -> { });
                    reader.addAuthInfo("digest", SUPER_USER.getBytes());
                }
                // A test reads the server that did the write; one of several may be behind.
                CountDownLatch synced = new CountDownLatch(1);
                reader.sync(path, (result, p, context) -> synced.countDown(), null);
                synced.await();
                return reader.getData(path, false, stat);
            } catch (KeeperException.NoNodeException e) {
                throw e;
            } catch (KeeperException e) {
                if (e.code() == Code.SESSIONEXPIRED) {
                    reader = null;
                }
                if (!Arrays.asList(Code.CONNECTIONLOSS, Code.SESSIONEXPIRED).contains(e.code()) || System.nanoTime() > end) {
                    throw new IllegalStateException("cannot read " + path, e);
                }
            } catch (IOException e) {
                throw new IllegalStateException(e);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                throw new IllegalStateException("interrupted while reading " + path, e);
            }
        }
    }

    synchronized void stopReading() {
        if (reader != null) {
            try {
                reader.close(1000);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
            reader = null;
        }
    }
}
