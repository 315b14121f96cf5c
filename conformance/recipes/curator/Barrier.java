import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.api.CuratorWatcher;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/**
 * A double barrier: nobody starts before all have come, nobody goes on before all have finished. Round after round.
 * Barrier HOSTS PATH NAME SIZE ROUND
 *
 * Curator's own DistributedDoubleBarrier gives up when the connection is lost while it waits. This one looks again.
 */
public class Barrier {
    private final CuratorFramework client;
    private final String inside, ready, node;
    private final int size;
    private final Semaphore news = new Semaphore(0);
    private final CuratorWatcher watcher = event -> news.release();
    private long session;

    Barrier(CuratorFramework client, String path, String name, int size) throws Exception {
        this.client = client;
        this.size = size;
        inside = path + "/in";
        ready = path + "/ready";
        node = inside + "/" + name;
        Common.ensure(client, inside);
    }

    public static void main(String[] args) throws Exception {
        String name = args[2];
        CuratorFramework client = Common.connect(args[0]);
        for (int round = Integer.parseInt(args[4]); ; round++) {
            // A node of its own for each round: who is slow to leave one never meets who is quick to enter the next.
            String path = String.format("%s/%010d", args[1], round);
            Barrier barrier = new Barrier(client, path, name, Integer.parseInt(args[3]));
            Common.say(name, "arrives", round);
            barrier.enter();
            Common.say(name, "enters", round);
            Thread.sleep(100);
            Common.say(name, "leaves", round);
            Common.say(name, barrier.leave() ? "left" : "expelled", round);
        }
    }

    void enter() throws Exception {
        while (true) {
            try {
                client.create().withMode(CreateMode.EPHEMERAL).forPath(node);
            } catch (KeeperException.NodeExistsException there) {
                // By us, or by our former session, which has yet to end.
            }
            Stat stat = client.checkExists().forPath(node);
            boolean ours = stat != null && stat.getEphemeralOwner() == Common.session(client);
            if (ours) {
                session = stat.getEphemeralOwner();
            }
            if (client.checkExists().usingWatcher(watcher).forPath(ready) != null) {
                return;
            }
            if (ours && client.getChildren().forPath(inside).size() >= size) {
                Common.ensure(client, ready);
                return;
            }
            await();
        }
    }

    /** Returns when all have left; false when our session expired: to the others we are gone. */
    boolean leave() throws Exception {
        client.delete().quietly().forPath(node);
        if (session != Common.session(client)) {
            return false;
        }
        while (!client.getChildren().usingWatcher(watcher).forPath(inside).isEmpty()) {
            await();
        }
        return true;
    }

    private void await() throws InterruptedException {
        news.tryAcquire(1, TimeUnit.SECONDS);
        news.drainPermits();
    }
}
