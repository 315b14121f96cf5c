import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.recipes.leader.LeaderLatch;

/**
 * Master election: of all who stand, one is the master at a time, and another takes over when it is gone.
 * Election HOSTS PATH NAME STORAGE
 */
public class Election {
    public static void main(String[] args) throws Exception {
        String path = args[1], name = args[2];
        Common.Storage storage = new Common.Storage(args[3]);
        CuratorFramework client = Common.connect(args[0]);
        LeaderLatch latch = new LeaderLatch(client, path, name);
        latch.start();
        while (true) {
            latch.await();
            // The zxid that created our node is the term: every later master has a higher one, whatever happens to PATH.
            String node = latch.getLastPathIsLeader();
            long token = node == null ? -1 : Common.token(client, node);
            if (token < 0 || !latch.hasLeadership()) {
                Thread.sleep(50);
                continue;
            }
            Common.say(name, "master", token);
            try {
                // The latch lets go as soon as the connection is lost: nobody could tell us that we have been replaced.
                while (latch.hasLeadership() && node.equals(latch.getLastPathIsLeader())) {
                    storage.write(token, name);
                    Thread.sleep(50);
                }
            } catch (Common.Stale stale) {
                // The latch will hear of it too.
                Thread.sleep(200);
            }
            Common.say(name, "deposed", token);
        }
    }
}
