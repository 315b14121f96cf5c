import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;

/** Gives a server some of everything that a data folder can hold, and says what a client sees of it. */
public final class ApacheData {
    private static final int TIMEOUT_MS = 40000;
    /** Of sessions that nobody comes back for: short, for tests that see them expire. */
    private static final int LEFT_TIMEOUT_MS = 6000;

    private static ZooKeeper connect(String address, int timeoutMs) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeperAdmin(address, timeoutMs, event -> {
            switch (event.getState()) {
                case SyncConnected:
                    connected.countDown();
                    break;
                default:
                    break;
            }
        });
        if (!connected.await(30, TimeUnit.SECONDS)) {
            throw new AssertionError("not connected to " + address);
        }
        zk.addAuthInfo("digest", bytes("ann:secret"));
        return zk;
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void create(ZooKeeper zk, String path, String data, CreateMode mode) throws Exception {
        zk.create(path, data == null ? null : bytes(data), Ids.OPEN_ACL_UNSAFE, mode);
    }

    public static void main(String[] args) throws Exception {
        ZooKeeper zk = connect(args[1], args[0].equals("more") ? LEFT_TIMEOUT_MS : TIMEOUT_MS);
        switch (args[0]) {
            case "fill":
                fill(zk);
                zk.close();
                break;
            case "more":
                more(zk, args[1]);
                break;
            case "tail":
                tail(zk);
                break;
            case "dump":
                dump(zk, "/");
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
        System.out.flush();
        // Sessions that were not closed stay open on the server.
        Runtime.getRuntime().halt(0);
    }

    private static void fill(ZooKeeper zk) throws Exception {
        create(zk, "/app", "config", CreateMode.PERSISTENT);
        create(zk, "/app/null", null, CreateMode.PERSISTENT);
        create(zk, "/app/empty", "", CreateMode.PERSISTENT);
        create(zk, "/app/gr\u00fc\u00dfe \u4e16\u754c", "\u00fc", CreateMode.PERSISTENT);
        for (int i = 0; i < 4; i++) {
            create(zk, "/app/seq-", "s" + i, CreateMode.PERSISTENT_SEQUENTIAL);
        }
        zk.delete("/app/seq-0000000006", -1);
        zk.setData("/app", bytes("config 2"), 0);
        zk.setData("/app", bytes("config 3"), 1);
        List<ACL> several = Arrays.asList(
            new ACL(Perms.READ, Ids.ANYONE_ID_UNSAFE), new ACL(Perms.ALL, new Id("ip", "127.0.0.1/8")));
        zk.create("/secret", bytes("x"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        zk.create("/secret/part", bytes("y"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        create(zk, "/open", "", CreateMode.PERSISTENT);
        zk.setACL("/open", several, 0);
        create(zk, "/box", "", CreateMode.CONTAINER);
        create(zk, "/box/lock", "", CreateMode.PERSISTENT);
        zk.create("/brief", bytes("ttl"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, new Stat(), 3600000);
        zk.multi(Arrays.asList(
            Op.create("/multi", bytes("m"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create("/multi/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.setData("/multi", bytes("m2"), 0),
            Op.check("/app", 2),
            Op.delete("/app/seq-0000000005", -1)));
        failingMulti(zk);
        // This session's own, gone with it.
        create(zk, "/app/passing", "e", CreateMode.EPHEMERAL);
        create(zk, "/app/passing-", "e", CreateMode.EPHEMERAL_SEQUENTIAL);
        create(zk, "/zookeeper/quota/app", null, CreateMode.PERSISTENT);
        create(zk, "/zookeeper/quota/app/zookeeper_limits", "count=100,bytes=100000", CreateMode.PERSISTENT);
        create(zk, "/zookeeper/quota/app/zookeeper_stats", "count=7,bytes=20", CreateMode.PERSISTENT);
    }

    private static void failingMulti(ZooKeeper zk) throws Exception {
        try {
            zk.multi(Arrays.asList(
                Op.create("/never", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.delete("/missing", -1),
                Op.setData("/app", null, -1)));
        } catch (KeeperException.NoNodeException e) {
            return;
        }
        throw new AssertionError("the multi should have failed");
    }

    /** Behind the snapshot; leaves two sessions open, one with ephemeral znodes. */
    private static void more(ZooKeeper zk, String address) throws Exception {
        create(zk, "/live", "", CreateMode.PERSISTENT);
        create(zk, "/live/member-", "here", CreateMode.EPHEMERAL_SEQUENTIAL);
        create(zk, "/live/leader", "me", CreateMode.EPHEMERAL);
        create(zk, "/later", "1", CreateMode.PERSISTENT);
        zk.setData("/later", bytes("2"), -1);
        zk.setData("/app", bytes("config 4"), -1);
        zk.setACL("/later", Ids.READ_ACL_UNSAFE, -1);
        zk.delete("/box/lock", -1);
        create(zk, "/box/lock", "again", CreateMode.PERSISTENT);
        zk.delete("/secret/part", -1);
        create(zk, "/app/seq-", "after", CreateMode.PERSISTENT_SEQUENTIAL);
        failingMulti(zk);
        try {
            zk.create("/app", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
            throw new AssertionError("it exists");
        } catch (KeeperException.NodeExistsException e) {
            // An error that is a transaction.
        }
        zk.multi(Arrays.asList(
            Op.delete("/multi/a", 0),
            Op.create("/multi/b", bytes("b"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
        ZooKeeper other = connect(address, LEFT_TIMEOUT_MS);
        for (ZooKeeper session : Arrays.asList(zk, other)) {
            System.out.println("session " + Long.toHexString(session.getSessionId()) + " " + session.getSessionTimeout());
        }
    }

    /** Writes that will not be answered. */
    private static void tail(ZooKeeper zk) throws Exception {
        System.out.println("connected");
        System.out.flush();
        System.in.read();
        for (int i = 0; i < 3; i++) {
            zk.create("/tail-" + i, bytes("never acknowledged"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                (rc, path, context, name) -> System.err.println(path + " was answered with " + rc), null);
        }
        System.out.println("sent");
        System.out.flush();
        System.in.read();
    }

    /** Every znode: path, numbers, ACL, data. */
    private static void dump(ZooKeeper zk, String path) throws Exception {
        Stat stat = new Stat();
        byte[] data = zk.getData(path, false, stat);
        List<String> acl = new ArrayList<>();
        for (ACL entry : zk.getACL(path, new Stat())) {
            acl.add(entry.getPerms() + ":" + entry.getId().getScheme() + ":" + entry.getId().getId());
        }
        System.out.println("Znode: " + path);
        System.out.println("  stat: " + stat.getCzxid() + " " + stat.getMzxid() + " " + stat.getCtime() + " "
            + stat.getMtime() + " " + stat.getVersion() + " " + stat.getCversion() + " " + stat.getAversion() + " "
            + stat.getEphemeralOwner() + " " + stat.getPzxid());
        System.out.println("  acl: " + String.join(",", acl));
        System.out.println("  data: " + (data == null ? "null" : String.valueOf(data.length)));
        if (data != null && data.length > 0) {
            StringBuilder hex = new StringBuilder("  ");
            for (byte one : data) {
                hex.append(String.format("%02x", one));
            }
            System.out.println(hex);
        }
        List<String> children = zk.getChildren(path, false);
        Collections.sort(children);
        for (String child : children) {
            dump(zk, path.equals("/") ? "/" + child : path + "/" + child);
        }
    }
}
