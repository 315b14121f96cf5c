import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.api.CuratorWatcher;
import org.apache.curator.framework.api.transaction.CuratorOp;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.data.Stat;

/**
 * A queue of work: items are handed out in order, and each one's result is recorded once.
 * WorkQueue put|take HOSTS PATH NAME
 *
 * An item is claimed by an ephemeral node, so that the claim ends with whoever made it. The item, the claim and the result are
 * changed in one transaction.
 */
public class WorkQueue {
    private final CuratorFramework client;
    private final String path, name;

    WorkQueue(CuratorFramework client, String path, String name) {
        this.client = client;
        this.path = path;
        this.name = name;
    }

    public static void main(String[] args) throws Exception {
        CuratorFramework client = Common.connect(args[1]);
        WorkQueue queue = new WorkQueue(client, args[2], args[3]);
        for (String folder : List.of("/items", "/claims", "/done")) {
            Common.ensure(client, args[2] + folder);
        }
        if (args[0].equals("take")) {
            queue.take();
        }
        for (int number = 1; ; number++) {
            String item = String.format("%010d-%s", number, args[3]);
            queue.put(item);
            Common.say(args[3], "put", item);
            Thread.sleep(100);
        }
    }

    void put(String item) throws Exception {
        while (true) {
            try {
                // ZooKeeper's own client tries once. Curator would create the item again if it had been worked on by then.
                client.getZookeeperClient().getZooKeeper().create(path + "/items/" + item, "work".getBytes(StandardCharsets.UTF_8),
                    ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
                return;
            } catch (KeeperException unknown) {
                // It may be there, and even have been worked on by now. First items, then done: what moves is not missed.
                Common.sync(client, path);
                for (String folder : List.of("/items/", "/done/")) {
                    if (client.checkExists().forPath(path + folder + item) != null) {
                        return;
                    }
                }
            }
        }
    }

    boolean claim(String item) throws Exception {
        String node = path + "/claims/" + item;
        try {
            client.create().withMode(CreateMode.EPHEMERAL).forPath(node, name.getBytes(StandardCharsets.UTF_8));
        } catch (KeeperException.NodeExistsException claimed) {
            // Perhaps by a try of ours whose reply was lost.
            Stat stat = client.checkExists().forPath(node);
            if (stat == null || stat.getEphemeralOwner() != Common.session(client)) {
                return false;
            }
        }
        Common.sync(client, path);
        if (client.checkExists().forPath(path + "/items/" + item) != null) {
            return true;
        }
        client.delete().quietly().forPath(node);
        return false;
    }

    /** Whether the result is ours. */
    boolean finish(String item, long claimedIn) throws Exception {
        while (true) {
            // The claim of another session is not ours to use.
            if (Common.session(client) == claimedIn) {
                CuratorOp unclaim = client.transactionOp().delete().forPath(path + "/claims/" + item);
                CuratorOp remove = client.transactionOp().delete().forPath(path + "/items/" + item);
                CuratorOp record = client.transactionOp().create().forPath(path + "/done/" + item, name.getBytes(StandardCharsets.UTF_8));
                try {
                    client.transaction().forOperations(unclaim, remove, record);
                    return true;
                } catch (KeeperException unknown) {
                    // Done or not: looked up below.
                }
            }
            Common.sync(client, path);
            try {
                return name.equals(new String(client.getData().forPath(path + "/done/" + item), StandardCharsets.UTF_8));
            } catch (KeeperException.NoNodeException open) {
                if (Common.session(client) != claimedIn) {
                    return false;
                }
            }
        }
    }

    void take() throws Exception {
        Semaphore more = new Semaphore(0);
        while (true) {
            more.drainPermits();
            CuratorWatcher watcher = event -> more.release();
            for (String item : new TreeSet<>(client.getChildren().usingWatcher(watcher).forPath(path + "/items"))) {
                long claimedIn = Common.session(client);
                if (claim(item)) {
                    Common.say(name, "took", item);
                    Thread.sleep(50);
                    Common.say(name, finish(item, claimedIn) ? "done" : "lost", item);
                }
            }
            more.tryAcquire(500, TimeUnit.MILLISECONDS);
        }
    }
}
