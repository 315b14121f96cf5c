import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** Asks for everything once, so that a recorder sees every request, reply and event. */
public final class Recorded {
    private static final Watcher NOTHING = event -> { };

    private interface Call {
        void run() throws Exception;
    }

    /** Runs a call that must fail with this code. */
    private static void fails(KeeperException.Code code, Call call) throws Exception {
        try {
            call.run();
        } catch (KeeperException e) {
            if (e.code() == code) {
                return;
            }
            throw e;
        }
        throw new AssertionError("expected " + code);
    }

    private static ZooKeeper connect(String address) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeperAdmin(address, 30000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) {
                connected.countDown();
            }
        });
        if (!connected.await(30, TimeUnit.SECONDS)) {
            throw new AssertionError("not connected to " + address);
        }
        return zk;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("client")) {
            client(args[1]);
        } else if (args[0].equals("ensemble")) {
            ensemble(args[1], args[2]);
        } else if (args[0].equals("write")) {
            write(args[1], args[2], args.length > 3);
        } else if (args[0].equals("reconfig")) {
            reconfig(args[1], args[2], args[3]);
        }
        System.exit(0);
    }

    private static void client(String address) throws Exception {
        ZooKeeper zk = connect(address);
        List<ACL> open = Ids.OPEN_ACL_UNSAFE;

        zk.create("/v", bytes("data"), open, CreateMode.PERSISTENT);
        zk.create("/v/null", null, open, CreateMode.PERSISTENT);
        zk.create("/v/empty", new byte[0], open, CreateMode.PERSISTENT);
        zk.create("/v/ephemeral", bytes("e"), open, CreateMode.EPHEMERAL);
        zk.create("/v/seq-", bytes("s"), open, CreateMode.PERSISTENT_SEQUENTIAL);
        zk.create("/v/eseq-", bytes("s"), open, CreateMode.EPHEMERAL_SEQUENTIAL);
        zk.create("/v/\u00e4\u65e5", bytes("\u00fc"), open, CreateMode.PERSISTENT);
        Stat stat = new Stat();
        zk.create("/v/with-stat", bytes("x"), open, CreateMode.PERSISTENT, stat);
        zk.create("/v/container", bytes("c"), open, CreateMode.CONTAINER, stat);
        zk.create("/v/ttl", bytes("t"), open, CreateMode.PERSISTENT_WITH_TTL, stat, 600000);
        zk.create("/v/ttl-seq-", bytes("t"), open, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, stat, 600000);
        zk.create("/v/short-lived", bytes("t"), open, CreateMode.PERSISTENT_WITH_TTL, stat, 1);
        fails(KeeperException.Code.NODEEXISTS, () -> zk.create("/v", null, open, CreateMode.PERSISTENT));
        fails(KeeperException.Code.NONODE, () -> zk.create("/none/x", null, open, CreateMode.PERSISTENT));
        fails(KeeperException.Code.NOCHILDRENFOREPHEMERALS,
            () -> zk.create("/v/ephemeral/x", null, open, CreateMode.PERSISTENT));
        fails(KeeperException.Code.INVALIDACL, () -> zk.create("/v/bad-acl", null,
            Collections.singletonList(new ACL(Perms.ALL, new Id("nosuch", "x"))), CreateMode.PERSISTENT));

        zk.exists("/v", false);
        fails(KeeperException.Code.NONODE, () -> {
            if (zk.exists("/v/none", false) == null) {
                throw KeeperException.create(KeeperException.Code.NONODE);
            }
        });
        zk.getData("/v", false, stat);
        zk.getData("/v/null", false, stat);
        zk.getData("/v/empty", false, stat);
        fails(KeeperException.Code.NONODE, () -> zk.getData("/v/none", false, null));
        zk.setData("/v", bytes("data 2"), 0);
        zk.setData("/v/null", null, -1);
        fails(KeeperException.Code.BADVERSION, () -> zk.setData("/v", bytes("x"), 7));
        zk.getACL("/v", stat);
        zk.getChildren("/v", false);
        zk.getChildren("/v/with-stat", false);
        zk.getChildren("/v", false, stat);
        CountDownLatch synced = new CountDownLatch(1);
        zk.sync("/v", (rc, path, ctx) -> synced.countDown(), null);
        synced.await();
        zk.getEphemerals();
        zk.getEphemerals("/v/ese");
        zk.getAllChildrenNumber("/v");
        zk.whoAmI();
        fails(KeeperException.Code.NOTEMPTY, () -> zk.delete("/v", -1));
        zk.delete("/v/with-stat", 0);
        fails(KeeperException.Code.NONODE, () -> zk.delete("/v/with-stat", -1));

        zk.addAuthInfo("digest", bytes("user:secret"));
        zk.whoAmI();
        zk.create("/v/mine", bytes("m"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        zk.getACL("/v/mine", stat);
        zk.setACL("/v/mine", Arrays.asList(new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE), new ACL(Perms.ALL, Ids.AUTH_IDS)), 0);
        ZooKeeper other = connect(address);
        fails(KeeperException.Code.NOAUTH, () -> other.setData("/v/mine", bytes("x"), -1));

        zk.multi(Arrays.asList(
            Op.check("/v", -1),
            Op.create("/m", bytes("m"), open, CreateMode.PERSISTENT),
            Op.create("/m/c", null, open, CreateMode.CONTAINER),
            Op.create("/m/ttl", new byte[0], open, CreateMode.PERSISTENT_WITH_TTL, 600000),
            Op.setData("/m", bytes("m2"), 0),
            Op.create("/m/d", bytes("d"), open, CreateMode.EPHEMERAL_SEQUENTIAL),
            Op.delete("/m/c", -1)));
        fails(KeeperException.Code.NONODE, () -> zk.multi(Arrays.asList(
            Op.create("/m/x", bytes("x"), open, CreateMode.PERSISTENT),
            Op.delete("/m/none", -1),
            Op.setData("/m", bytes("y"), -1))));
        zk.multi(Collections.emptyList());
        zk.multi(Arrays.asList(Op.getData("/m"), Op.getChildren("/m"), Op.getData("/m/none")));

        // Every kind of event, and every kind of watch.
        zk.getData("/m", NOTHING, null);
        zk.exists("/w", NOTHING);
        zk.getChildren("/m", NOTHING);
        other.setData("/m", bytes("changed"), -1);
        other.create("/w", null, open, CreateMode.PERSISTENT);
        other.create("/m/child", null, open, CreateMode.PERSISTENT);
        zk.getData("/w", NOTHING, null);
        other.delete("/w", -1);
        zk.addWatch("/m", NOTHING, AddWatchMode.PERSISTENT);
        zk.addWatch("/v", NOTHING, AddWatchMode.PERSISTENT_RECURSIVE);
        other.create("/v/deep", null, open, CreateMode.PERSISTENT);
        zk.getData("/v", NOTHING, null);
        Watcher second = event -> { };
        zk.getData("/v/null", second, null);
        zk.removeWatches("/v/null", second, Watcher.WatcherType.Data, false);
        zk.removeAllWatches("/v", Watcher.WatcherType.Data, false);
        zk.removeAllWatches("/m", Watcher.WatcherType.Persistent, false);
        zk.removeAllWatches("/v", Watcher.WatcherType.Any, false);
        fails(KeeperException.Code.RECONFIGDISABLED,
            () -> ((ZooKeeperAdmin) zk).reconfigure("server.9=127.0.0.1:1:2;3", null, null, -1, null));

        // A reconnect with one-shot watches, and one with persistent ones too; changes are missed in between.
        zk.getData("/m", NOTHING, null);
        zk.exists("/w", NOTHING);
        zk.getChildren("/m", NOTHING);
        reconnect(zk, () -> {
            other.setData("/m", bytes("missed"), -1);
            other.create("/w", null, open, CreateMode.PERSISTENT);
            other.create("/m/missed", null, open, CreateMode.PERSISTENT);
        });
        zk.getData("/w", NOTHING, null);
        zk.addWatch("/m", NOTHING, AddWatchMode.PERSISTENT);
        zk.addWatch("/v", NOTHING, AddWatchMode.PERSISTENT_RECURSIVE);
        reconnect(zk, () -> other.delete("/w", -1));

        // A session that the server does not know, a password that is not the session's, a scheme that it has not.
        ended(new ZooKeeper(address, 30000, NOTHING, 0x123456789L, new byte[16]), ZooKeeper.States.CLOSED);
        ended(new ZooKeeper(address, 30000, NOTHING, other.getSessionId(), new byte[16]), ZooKeeper.States.CLOSED);
        ZooKeeper stranger = connect(address);
        stranger.addAuthInfo("nosuch", bytes("x"));
        ended(stranger, ZooKeeper.States.AUTH_FAILED);

        Thread.sleep(12000); // one ping, the container and the TTL znode go
        other.close();
        zk.close();
    }

    private static void reconnect(ZooKeeper zk, Call meanwhile) throws Exception {
        zk.getTestable().closeSocket();
        meanwhile.run();
        for (int i = 0; i < 20; i++) {
            Thread.sleep(1000);
            try {
                zk.exists("/", false);
                return;
            } catch (KeeperException.ConnectionLossException e) {
                // not back yet
            }
        }
        throw new AssertionError("no reconnect");
    }

    private static void ended(ZooKeeper zk, ZooKeeper.States state) throws Exception {
        for (int i = 0; i < 100 && zk.getState() != state; i++) {
            Thread.sleep(100);
        }
        if (zk.getState() != state) {
            throw new AssertionError("still " + zk.getState());
        }
        zk.close();
    }

    /** Writes through one server, then moves the session to another. */
    private static void ensemble(String first, String second) throws Exception {
        ZooKeeper zk = connect(first);
        List<ACL> open = Ids.OPEN_ACL_UNSAFE;
        zk.addAuthInfo("digest", bytes("user:secret"));
        zk.create("/e", bytes("data"), open, CreateMode.PERSISTENT);
        zk.create("/e/eph", bytes("data"), open, CreateMode.EPHEMERAL);
        zk.setData("/e", bytes("more"), 0);
        fails(KeeperException.Code.NONODE, () -> zk.delete("/e/none", -1));
        CountDownLatch synced = new CountDownLatch(1);
        zk.sync("/e", (rc, path, ctx) -> synced.countDown(), null);
        synced.await();
        ZooKeeper moved = new ZooKeeper(second, 30000, NOTHING, zk.getSessionId(), zk.getSessionPasswd());
        for (int i = 0; i < 100 && moved.getState() != ZooKeeper.States.CONNECTED; i++) {
            Thread.sleep(100);
        }
        moved.exists("/e", false);
        ended(new ZooKeeper(second, 30000, NOTHING, 0x123456789L, new byte[16]), ZooKeeper.States.CLOSED);
        Thread.sleep(3000); // pings between the servers carry the session
        moved.close();
    }

    private static void write(String address, String path, boolean unanswered) throws Exception {
        ZooKeeper zk = connect(address);
        if (unanswered) {
            System.out.println("connected");
            System.out.flush();
            System.in.read();
            zk.create(path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, (rc, p, ctx, name) -> { }, null);
            Thread.sleep(1000);
        } else {
            zk.create(path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            zk.close();
        }
    }

    private static void reconfig(String address, String leaving, String joining) throws Exception {
        ZooKeeperAdmin zk = (ZooKeeperAdmin) connect(address);
        zk.getConfig(false, null);
        zk.reconfigure(null, leaving, null, -1, null);
        Thread.sleep(2000);
        zk.reconfigure(joining, null, null, -1, null);
        Thread.sleep(1000);
        zk.close();
    }
}
