import java.nio.charset.StandardCharsets;
import org.apache.curator.framework.CuratorFramework;
import org.apache.zookeeper.CreateMode;

/**
 * A naming service: each name is given once, and later names are higher.
 * Naming HOSTS PATH NAME
 */
public class Naming {
    public static void main(String[] args) throws Exception {
        String path = args[1], name = args[2];
        CuratorFramework client = Common.connect(args[0]);
        while (true) {
            // Protection: a random prefix, by which Curator finds the node when the reply to its creation was lost.
            String node = client.create().creatingParentsIfNeeded().withProtection()
                .withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath(path + "/n-", name.getBytes(StandardCharsets.UTF_8));
            Common.say(name, "named", node.substring(node.length() - 10));
            Thread.sleep(100);
        }
    }
}
