import java.nio.charset.StandardCharsets;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

/**
 * Configuration: whoever publishes replaces a node's data, and every subscriber gets the newest.
 * Config publish|subscribe HOSTS PATH NAME
 */
public class Config {
    public static void main(String[] args) throws Exception {
        CuratorFramework client = Common.connect(args[1]);
        if (args[0].equals("publish")) {
            publish(client, args[2], args[3]);
        } else {
            subscribe(client, args[2], args[3]);
        }
    }

    static void publish(CuratorFramework client, String path, String name) throws Exception {
        Common.ensure(client, path);
        while (true) {
            Stat stat = new Stat();
            int number = 1 + number(client.getData().storingStatIn(stat).forPath(path));
            try {
                // Only on top of what was read: a publisher that was away does not undo what another wrote.
                client.setData().withVersion(stat.getVersion()).forPath(path, Integer.toString(number).getBytes(StandardCharsets.UTF_8));
            } catch (KeeperException.BadVersionException changed) {
                // By another, or by a try of ours whose reply was lost: the next round reads.
                continue;
            }
            Common.say(name, "published", number);
            Thread.sleep(100);
        }
    }

    static void subscribe(CuratorFramework client, String path, String name) throws Exception {
        CuratorCache cache = CuratorCache.build(client, path, CuratorCache.Options.SINGLE_NODE_CACHE);
        cache.listenable().addListener(CuratorCacheListener.builder().forCreatesAndChanges(new Newest(name)::seen).build());
        cache.start();
        Thread.sleep(Long.MAX_VALUE);
    }

    /** A session is never shown the past; a new session, at a server that lags, may be. */
    static class Newest {
        private final String name;
        private long newest;

        Newest(String name) {
            this.name = name;
        }

        synchronized void seen(ChildData before, ChildData now) {
            if (now.getStat().getMzxid() < newest) {
                Common.say(name, "older", number(now.getData()));
            } else if (now.getStat().getMzxid() > newest && now.getData().length > 0) {
                newest = now.getStat().getMzxid();
                Common.say(name, "saw", number(now.getData()));
            }
        }
    }

    static int number(byte[] data) {
        return data.length == 0 ? 0 : Integer.parseInt(new String(data, StandardCharsets.UTF_8));
    }
}
